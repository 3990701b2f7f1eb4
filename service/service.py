"""The BentoML service: `bentoml serve service.service:Vitrine`; an adapter with nothing of its own.

BentoML fixes the number of workers when this module is imported, so the settings are read here.
"""

import atexit
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

import bentoml
from _bentoml_sdk import Service  # private: the one seam outside of all of BentoML's middlewares
from bentoml.exceptions import BentoMLException
from PIL import Image
from starlette.types import ASGIApp

from service.call import Call
from service.errors import VitrineError
from service.server.app import IN_PROCESS, App, bound_threads, settle
from service.server.drain import drain_on_sigterm
from service.server.front import Front, traced
from service.settings import read_settings
from service.tasks.classification import Classification
from service.tasks.denoising import Denoising
from service.tasks.task import Answer, Task
from service.telemetry import tracing
from service.telemetry.log import configure_logging, stop_on_error
from service.telemetry.stderr import logged_stderr

with stop_on_error():
    SETTINGS = read_settings()


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """A bad start ends the process with one line; what libraries write to stderr is logged.

    To be entered after BentoML has configured its logging.
    """
    configure_logging(SETTINGS.log_format)
    with stop_on_error(), logged_stderr():
        yield


class VitrineService(Service["Vitrine"]):
    """BentoML's service, with Vitrine's front around its app on a main port."""

    instance: "Vitrine | None" = None

    def inject_config(self) -> None:
        """In the parent of the workers, make the folder in which they share their metrics."""
        super().inject_config()
        if bentoml.server_context.worker_index is None and "VITRINE_METRICS_DIR" not in os.environ:
            folder = tempfile.mkdtemp(prefix="vitrine-metrics-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            os.environ["VITRINE_METRICS_DIR"] = folder

    def __call__(self) -> "Vitrine":
        """Start one worker, or an instance in this process."""
        self.instance = super().__call__()
        return self.instance

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """On a main port only the front answers; a dependency is called by BentoML's own app."""
        inner: ASGIApp = super().to_asgi(is_main)
        return traced(Front(self._app, inner)) if is_main else inner

    def _app(self) -> App | None:
        return None if self.instance is None else self.instance.app


@bentoml.service(
    name="vitrine",
    service_class=VitrineService,
    workers=SETTINGS.workers,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},  # service.telemetry.tracing does it, around the front
)
class Vitrine:
    """Small vision models: POST an image, get an answer."""

    def __init__(self) -> None:
        index = bentoml.server_context.worker_index
        is_served = index is not None  # else whoever made the instance has a log of their own
        with starting() if is_served else contextlib.nullcontext():
            self.app = App(SETTINGS, index, bentoml_schema=bentoml_schema)

    @bentoml.on_deployment
    def verify() -> None:
        """Prove every model once, before any worker: a broken artifact stops the start."""
        with starting():
            App(SETTINGS).close()

    @bentoml.on_startup
    def settle(self) -> None:
        """Leave what is loaded alone from now on."""
        settle()
        bound_threads()
        if SETTINGS.drain_s:
            drain_on_sigterm(self.app.drain, SETTINGS.drain_s)

    @bentoml.api
    async def classify(
        self, image: Image.Image, model: str | None = None, top_k: int = 3
    ) -> dict[str, Any]:
        """Name what an image shows."""
        answer, identity = await self._infer(Classification, image, model, {"top_k": str(top_k)})
        assert isinstance(answer.content, Mapping)
        return identity | dict(answer.content)

    @bentoml.api
    async def denoise(self, image: Image.Image, model: str | None = None) -> Image.Image:
        """Take the noise out of an image."""
        answer, _ = await self._infer(Denoising, image, model, {})
        return answer.image()

    async def _infer(
        self,
        task: type[Task[Any, Any]],
        image: Image.Image,
        model: str | None,
        options: Mapping[str, str],
    ) -> tuple[Answer, dict[str, Any]]:
        registry = self.app.registry
        call = Call(IN_PROCESS, timeout_s=SETTINGS.request_timeout_s)
        status = 500
        try:
            found = registry.select_for(task, model, call)
            parsed = found.task.parse_options(options)
            answer = await registry.infer(call.model, call.version, image, call, parsed)
            status = 200
            return answer, {"model": call.model, "version": call.version}
        except VitrineError as error:
            status = error.status
            raise BentoMLException(str(error), error_code=HTTPStatus(status)) from error
        finally:
            self.app.dispatcher.conclude(call, status)

    @bentoml.on_shutdown
    def close(self) -> None:
        """Let the models' threads end, and send the last traces."""
        self.app.close()
        tracing.close()


def bentoml_schema() -> dict[str, Any]:
    """What BentoML's client reads of the service before its first call."""
    service: Any = Vitrine  # the decorator has made a VitrineService of it
    schema: dict[str, Any] = service.schema()
    return schema
