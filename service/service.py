"""The BentoML service: `bentoml serve service.service:Vitrine`.

This is the entry module: BentoML fixes the number of workers on import, so settings are read here.
"""

import atexit
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, Self

import attrs
import bentoml
from _bentoml_sdk import Service
from _bentoml_sdk.io_models import IODescriptor
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.service.openapi.specification import OpenAPISpecification, PathItem, Schema
from PIL import Image
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.types import ASGIApp

from service import openapi
from service.errors import StartError
from service.front import RECORD, Front
from service.handlers import CLASSIFIER, DENOISER, TOP_K, Handlers, answer
from service.log import configure_logging
from service.metrics import Metrics
from service.models import load_models
from service.settings import read_settings


@contextlib.contextmanager
def stop_on_error() -> Iterator[None]:
    """End the process with a StartError's message; a worker that raised would be started again."""
    try:
        yield
    except StartError as error:
        raise SystemExit(f"error: {error}") from error


with stop_on_error():
    SETTINGS = read_settings()


class VitrineService(Service["Vitrine"]):
    """BentoML's service with Vitrine's front around its app, and /v1 in its OpenAPI page."""

    worker: "Vitrine | None" = None
    metrics_folder: str | None = None

    def inject_config(self) -> None:
        """Give this server a folder of its own for the metrics that its workers share.

        BentoML's is one for all servers of a user, and each that starts empties it.
        """
        super().inject_config()
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ and self.metrics_folder is None:
            self.metrics_folder = tempfile.mkdtemp(prefix="vitrine-metrics-")
            atexit.register(shutil.rmtree, self.metrics_folder, ignore_errors=True)
            BentoMLContainer.prometheus_multiproc_dir.set(self.metrics_folder)

    def __call__(self) -> "Vitrine":
        """Start the worker."""
        self.worker = super().__call__()
        return self.worker

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """The whole app of one worker."""
        return Front(super().to_asgi(is_main), lambda: self.worker)

    @property
    def openapi_spec(self) -> OpenAPISpecification:
        """One page for all routes."""
        spec = super().openapi_spec
        about = {"title": "Vitrine", "version": "v1", "description": self.inner.__doc__}
        info = attrs.evolve(spec.info, contact=None, **about)
        for path, responses in openapi.RESPONSES.items():
            spec.paths[path].post["responses"] = responses
        paths = {path: PathItem(**operations) for path, operations in openapi.PATHS.items()}
        schemas = {name: Schema(**schema) for name, schema in openapi.SCHEMAS.items()}
        components = {"schemas": schemas}
        paths = {path: item for path, item in spec.paths.items() if path != "/healthz"} | paths
        return attrs.evolve(spec, info=info, paths=paths, components=components)


class Form(IODescriptor):
    """A form as BentoML describes it to clients; Vitrine reads it itself.

    BentoML's own reading fetches what looks like a URL and answers a corrupt image with 500. Here
    the field `image` of an incoming form carries the whole request.
    """

    @classmethod
    async def from_http_request(cls, request: Request, _serde: Any) -> Self:
        """The request, unread."""
        return cls.model_construct(image=request)


class ClassifyForm(Form):
    """POST /classify."""

    image: Image.Image
    model: str = CLASSIFIER
    top_k: int = TOP_K


class DenoiseForm(Form):
    """POST /denoise."""

    image: Image.Image
    model: str = DENOISER


@bentoml.service(
    name="vitrine",
    service_class=VitrineService,
    workers=SETTINGS.workers,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    traffic={"timeout": SETTINGS.request_timeout_s + 5},
)
class Vitrine:
    """Small vision models: POST an image, get an answer."""

    def __init__(self) -> None:
        configure_logging(SETTINGS.log_format)
        # Pillow's own limit is lower than what a setting may allow; decode checks first.
        Image.MAX_IMAGE_PIXELS = None
        self.settings = SETTINGS
        self.metrics = Metrics()
        self.models = load_models(SETTINGS, self.metrics)
        self.handlers = Handlers(self.models, SETTINGS)

    @bentoml.on_deployment
    def verify() -> None:
        """Prove every model once, before any worker: a broken artifact stops the start."""
        with stop_on_error():
            load_models(SETTINGS, Metrics(CollectorRegistry())).close()

    @bentoml.api(input_spec=ClassifyForm)
    async def classify(self, image: Request, **_unread: object) -> dict[str, object]:
        """Name what an image shows."""
        return await self._answer(self.handlers.classify, image)

    @bentoml.api(input_spec=DenoiseForm)
    async def denoise(self, image: Request, **_unread: object) -> Image.Image:
        """Take the noise out of an image."""
        return await self._answer(self.handlers.denoise, image)

    async def _answer(self, handler: Any, request: Request) -> Any:
        record = request.scope[RECORD]
        return await answer(handler(request, record), record, SETTINGS.request_timeout_s)

    @bentoml.on_shutdown
    def close(self) -> None:
        """Let the models' threads end."""
        self.models.close()
