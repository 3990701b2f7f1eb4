"""Whether an answer is right: well formed, as recorded, and the same each time."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.load.models import Model
from tests.load.pictures import Picture
from tests.load.tasks import WrongAnswer


class UnexpectedStatus(Exception):
    """An answer with another status than the request deserves."""


class Answers:
    """Remembers what each image was answered with; a model's sample has its recorded answer."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._known: dict[tuple[str, bytes], Any] = {
            (model.name, model.sample.data): model.recorded for model in models.values()
        }

    def check_form(self, model: Model, picture: Picture, body: bytes) -> None:
        """The answer of the task's form route; raises WrongAnswer."""
        self._check(model, picture, model.task.parse_form(body))

    def check_predictions(self, model: Model, pictures: Sequence[Picture], body: bytes) -> None:
        """The answer of :predict, one prediction an image, in order; raises WrongAnswer."""
        predictions = model.task.parse_predictions(body, len(pictures))
        for picture, prediction in zip(pictures, predictions, strict=True):
            self._check(model, picture, prediction)

    def _check(self, model: Model, picture: Picture, came: Any) -> None:
        key = (model.name, picture.data)
        model.task.check(picture, came, self._known.get(key))
        self._known.setdefault(key, came)


def check_status(came: int, status: int, body: bytes, request_id: str) -> None:
    """The status that a request deserves; raises UnexpectedStatus."""
    if came != status:
        text = body.decode(errors="replace").replace(request_id, "…")
        raise UnexpectedStatus(f"expected {status}, got {came}: {text:.150}")


def check_headers(headers: Mapping[str, Any], media_type: str, request_id: str) -> None:
    """The type of an answer, and the id of its request; raises WrongAnswer."""
    came = headers.get("Content-Type", "").partition(";")[0]
    if came != media_type:
        raise WrongAnswer(f"expected Content-Type {media_type}, got {came!r:.80}")
    if headers.get("X-Request-ID") != request_id:
        raise WrongAnswer("expected the X-Request-ID that was sent")


def check_error(model: Model, body: bytes) -> None:
    """The answer to a mistake: one object with a message; raises WrongAnswer."""
    try:
        answer = json.loads(body)
    except ValueError:
        raise WrongAnswer(f"{model.name}: expected JSON") from None
    if not isinstance(answer, dict) or not isinstance(answer.get("error"), str):
        raise WrongAnswer(f"{model.name}: expected an error with a message")
