"""The BentoML service: `bentoml serve service.service:Vitrine`.

BentoML fixes the number of workers when this module is imported, so the settings are read here.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

import bentoml
from PIL import Image

from service.heap import return_large_blocks
from service.server.app import App, freeze_loaded_objects, limit_decode_threads
from service.server.bento import FrontedService, infer, is_worker, refuse_tls, starting
from service.server.drain import drain_on_sigterm
from service.settings import asked_log_format, read_settings
from service.tasks.classification import Classification
from service.tasks.denoising import Denoising
from service.telemetry import tracing
from service.telemetry.log import stop_on_error

with stop_on_error(asked_log_format()):
    SETTINGS = read_settings()


@bentoml.service(
    name="vitrine",
    service_class=FrontedService,
    workers=SETTINGS.workers,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},  # service.telemetry.tracing does it, around the front
)
class Vitrine:
    """Small vision models: POST an image, get an answer."""

    def __init__(self) -> None:
        # In process, the log belongs to the caller.
        with starting(SETTINGS.log_format) if is_worker() else contextlib.nullcontext():
            index = bentoml.server_context.worker_index
            self.app = App(SETTINGS, index, bentoml_schema=bentoml_schema)

    @bentoml.on_deployment
    def verify() -> None:
        """Prove every model once, before any worker: a broken artifact stops the start."""
        with starting(SETTINGS.log_format):
            refuse_tls(SETTINGS)
            App(SETTINGS).close()

    @bentoml.on_startup
    def prepare(self) -> None:
        """Tune the loaded process: heap, garbage collection, decode threads; drain on SIGTERM."""
        return_large_blocks()
        freeze_loaded_objects()
        limit_decode_threads()
        if SETTINGS.drain_s:
            drain_on_sigterm(self.app.drain, SETTINGS.drain_s)

    @bentoml.api
    async def classify(
        self, image: Image.Image, model: str | None = None, top_k: int = 3
    ) -> dict[str, Any]:
        """Name what an image shows."""
        answer, call = await infer(self.app, Classification, image, model, top_k=top_k)
        assert isinstance(answer.content, Mapping)
        return {"model": call.model, "version": call.version, **answer.content}

    @bentoml.api
    async def denoise(self, image: Image.Image, model: str | None = None) -> Image.Image:
        """Take the noise out of an image."""
        answer, _ = await infer(self.app, Denoising, image, model)
        return answer.image()

    @bentoml.on_shutdown
    def close(self) -> None:
        """End the models' threads, and send the last traces."""
        self.app.close()
        tracing.close()


def bentoml_schema() -> dict[str, Any]:
    """What BentoML's client reads of the service before its first call."""
    service: Any = Vitrine  # the decorator has made a FrontedService of it
    schema: dict[str, Any] = service.schema()
    return schema
