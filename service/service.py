"""The BentoML service: `bentoml serve service.service:Vitrine`.

This is the entry module: BentoML fixes the number of workers on import, so settings are read here.
"""

import atexit
import shutil
import tempfile

import attrs
import bentoml
from _bentoml_sdk import Service
from _bentoml_sdk.io_models import IODescriptor
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.context import server_context
from bentoml._internal.service.openapi.specification import OpenAPISpecification, PathItem, Schema
from PIL import Image
from starlette.types import ASGIApp

from service.protocols import openapi
from service.protocols.native import CLASSIFIER, DENOISER, TOP_K
from service.server.app import App, bound_threads, settle, stop_on_error
from service.server.drain import drain_on_sigterm
from service.server.front import fronted
from service.settings import read_settings
from service.telemetry import tracing

with stop_on_error():
    SETTINGS = read_settings()


class VitrineService(Service["Vitrine"]):
    """BentoML's service with Vitrine's front around its app, and /v1 in its OpenAPI page."""

    instance: "Vitrine | None" = None
    metrics_folder: str | None = None

    def inject_config(self) -> None:
        """Give this server a folder of its own for the metrics that its workers share.

        BentoML's is one for all servers of a user, and each that starts empties it.
        """
        super().inject_config()
        if server_context.worker_index is None and self.metrics_folder is None:
            self.metrics_folder = tempfile.mkdtemp(prefix="vitrine-metrics-")
            atexit.register(shutil.rmtree, self.metrics_folder, ignore_errors=True)
            BentoMLContainer.prometheus_multiproc_dir.set(self.metrics_folder)

    def __call__(self) -> "Vitrine":
        """Start one worker."""
        self.instance = super().__call__()
        return self.instance

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Everything that one worker serves."""
        return fronted(super().to_asgi(is_main), self._started_app)

    def _started_app(self) -> App | None:
        return None if self.instance is None else self.instance.app

    def pages(self) -> ASGIApp:
        """BentoML's own app without the front; not started, it is good for its pages alone."""
        pages: ASGIApp = super().to_asgi()
        return pages

    @property
    def openapi_spec(self) -> OpenAPISpecification:
        """One page for all routes."""
        spec = super().openapi_spec
        about = {"title": "Vitrine", "version": "v1", "description": self.inner.__doc__}
        info = attrs.evolve(spec.info, contact=None, **about)
        for path, responses in openapi.RESPONSES.items():
            post = spec.paths[path].post
            post["responses"], post["security"] = responses, openapi.SECURITY
        paths = {path: PathItem(**operations) for path, operations in openapi.PATHS.items()}
        schemas = {name: Schema(**schema) for name, schema in openapi.SCHEMAS.items()}
        components = {"schemas": schemas, "securitySchemes": openapi.SECURITY_SCHEMES}
        paths = {path: item for path, item in spec.paths.items() if path != "/healthz"} | paths
        return attrs.evolve(spec, info=info, paths=paths, components=components)


class ClassifyForm(IODescriptor):
    """POST /classify."""

    image: Image.Image
    model: str = CLASSIFIER
    top_k: int = TOP_K


class DenoiseForm(IODescriptor):
    """POST /denoise."""

    image: Image.Image
    model: str = DENOISER


@bentoml.service(
    name="vitrine",
    service_class=VitrineService,
    workers=SETTINGS.workers,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},  # service.tracing does it, outside of the front
)
class Vitrine:
    """Small vision models: POST an image, get an answer."""

    def __init__(self) -> None:
        with stop_on_error():
            self.app = App(SETTINGS, server_context.worker_index or 0)

    @bentoml.on_deployment
    def verify() -> None:
        """Prove every model once, before any worker: a broken artifact stops the start."""
        with stop_on_error():
            App(SETTINGS).close()

    @bentoml.on_startup
    def settle(self) -> None:
        """Leave what is loaded alone from now on."""
        settle()
        bound_threads()
        if SETTINGS.drain_s:
            drain_on_sigterm(self.app.drain, SETTINGS.drain_s)

    # Declared for BentoML's clients and its OpenAPI page. The front answers both routes itself: on
    # BentoML's own way a request costs 0.3 ms more, and 0.8 KB are held until its timeout is over.
    @bentoml.api(input_spec=ClassifyForm)
    async def classify(self, **form: object) -> dict[str, object]:
        """Name what an image shows."""
        raise NotImplementedError("answered by service.front")

    @bentoml.api(input_spec=DenoiseForm)
    async def denoise(self, **form: object) -> Image.Image:
        """Take the noise out of an image."""
        raise NotImplementedError("answered by service.front")

    @bentoml.on_shutdown
    def close(self) -> None:
        """Let the models' threads end, and send the last traces."""
        self.app.close()
        tracing.close()
