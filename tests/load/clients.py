"""The simulated client: what it sends, how long it waits, and what it takes for an answer."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar
from uuid import uuid4

from locust import FastHttpUser, task
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS
from urllib3.filepost import encode_multipart_formdata

from tests.load.answers import (
    Answers,
    UnexpectedStatus,
    check_error,
    check_headers,
    check_status,
)
from tests.load.models import Model
from tests.load.pictures import Picture
from tests.load.tasks import JSON, WrongAnswer

NETWORK_TIMEOUT_S = 40.0  # the service itself gives up after 30
OVERLOADED = "overloaded"
"""Ends the name under which Locust counts answers of 503 with Retry-After."""


class Overloaded(Exception):
    """503 with Retry-After: the service has said when to come again."""


@dataclass(frozen=True)
class Plan:
    """What all clients of this process share."""

    models: Mapping[str, Model]
    mix: Mapping[str, float]
    think_time_s: float
    """The mean; times are distributed exponentially, as those of independent clients are."""
    token: str | None
    answers: Answers


@dataclass(frozen=True)
class BadInput:
    """A mistake that clients make, and the status that it deserves."""

    name: str
    path: str
    body: bytes
    content_type: str
    status: int


class Client(FastHttpUser):
    """A client with a connection of its own, which stays open."""

    network_timeout = NETWORK_TIMEOUT_S
    connection_timeout = 10.0
    plan: ClassVar[Plan]
    _retry_after_s = 0.0

    def wait_time(self) -> float:
        """Seconds until the next request: think time, or what Retry-After asked for."""
        if self._retry_after_s:
            # Not all at the same moment again.
            wait_s = self._retry_after_s * random.uniform(1, 1.5)
            self._retry_after_s = 0.0
            return wait_s
        mean_s = self.plan.think_time_s
        return random.expovariate(1 / mean_s) if mean_s else 0.0

    @task(58)
    def raw(self) -> None:
        """The image itself is the body."""
        model, picture = self._choose()
        self._predict(model, "raw", picture.data, picture.media_type, [picture])

    @task(30)
    def form(self) -> None:
        """A form with one image, to the route for forms."""
        model, picture = self._choose()
        fields: dict[str, Any] = {
            "image": _file(picture),
            "model": model.name,
            **model.task.form_fields,
        }
        body, content_type = encode_multipart_formdata(fields)
        self._post(
            model.task.form_route,
            body,
            content_type,
            f"{model.name} form",
            media_type=model.task.media_type,
            check=partial(self.plan.answers.check_form, model, picture),
        )

    @task(10)
    def several(self) -> None:
        """A form with several images, where the task takes several."""
        model, picture = self._choose()
        pictures = [picture]
        most = model.task.max_images
        if most > 1:
            pictures = random.choices(model.pictures, k=random.randint(2, most))
        body, content_type = encode_multipart_formdata([("image", _file(one)) for one in pictures])
        how = "several" if len(pictures) > 1 else "form"
        self._predict(model, how, body, content_type, pictures)

    @task(2)
    def bad(self) -> None:
        """A mistake; what counts as a failure is any other answer than the one it deserves."""
        model, _ = self._choose()
        mistake = random.choice(_mistakes(model))
        self._post(
            mistake.path,
            mistake.body,
            mistake.content_type,
            f"bad: {mistake.name}",
            media_type=JSON,
            check=partial(check_error, model),
            status=mistake.status,
        )

    def _choose(self) -> tuple[Model, Picture]:
        mix = self.plan.mix
        name = random.choices(list(mix), weights=list(mix.values()))[0]
        model = self.plan.models[name]
        return model, random.choice(model.pictures)

    def _predict(
        self, model: Model, how: str, body: bytes, content_type: str, pictures: list[Picture]
    ) -> None:
        self._post(
            f"/v1/models/{model.name}:predict",
            body,
            content_type,
            f"{model.name} {how}",
            media_type=model.task.media_type,
            check=partial(self.plan.answers.check_predictions, model, pictures),
        )

    def _post(
        self,
        path: str,
        body: Any,
        content_type: str,
        name: str,
        *,
        media_type: str,
        check: Callable[[bytes], None],
        status: int = 200,
    ) -> None:
        request_id = uuid4().hex
        headers = {"Content-Type": content_type, "X-Request-ID": request_id}
        if self.plan.token:
            headers["Authorization"] = f"Bearer {self.plan.token}"
        with self.client.post(
            path, data=body, headers=headers, name=name, catch_response=True
        ) as response:
            if not response.status_code:  # no answer: Locust counts the connection's error
                return
            retry_after = response.headers.get("Retry-After", "")
            if response.status_code == 503 and retry_after.isdigit():
                self._retry_after_s = float(retry_after)
                response.request_meta["name"] = f"{name.partition(' ')[0]} {OVERLOADED}"
                response.failure(Overloaded("503 with Retry-After"))
                return
            try:
                body = response.content
                check_status(response.status_code, status, body, request_id)
                check_headers(response.headers, media_type, request_id)
                check(body)
                response.success()
            except (UnexpectedStatus, WrongAnswer, *FAILURE_EXCEPTIONS) as error:
                response.failure(error)


def _file(picture: Picture) -> tuple[str, bytes, str]:
    return "image", picture.data, picture.media_type


def _mistakes(model: Model) -> list[BadInput]:
    path = f"/v1/models/{model.name}:predict"
    data, media_type = model.sample.data, model.sample.media_type
    form, form_type = encode_multipart_formdata([("note", "no image")])
    return [
        BadInput("no image", path, b"no image", media_type, 415),
        BadInput("half an image", path, data[: len(data) // 2], media_type, 400),
        BadInput("not a content type", path, data, "text/plain", 415),
        BadInput("unknown model", "/v1/models/no-such-model:predict", data, media_type, 404),
        BadInput("top_k of 0", f"{path}?top_k=0", data, media_type, 400),
        BadInput("form without image", path, form, form_type, 400),
    ]
