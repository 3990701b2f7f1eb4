"""The service's ASGI app in this process: for tests that need neither a process nor a socket."""

import contextlib
from collections.abc import AsyncIterator, Iterator

import httpx
from starlette.types import ASGIApp

from service.server.app import App
from service.server.front import Front
from service.settings import Settings, read_settings
from tests.server import environment

MODEL = "fashion-mnist-mlp"


@contextlib.contextmanager
def started_app(settings: Settings) -> Iterator[ASGIApp]:
    """The app as a worker serves it; its models are loaded and proven.

    Raises StartError where a worker could not start.
    """
    app = App(settings)
    try:
        yield Front(lambda: app)
    finally:
        app.close()


@contextlib.asynccontextmanager
async def app_client(**settings: object) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app with these settings, by default of one small model."""
    chosen = {"models": MODEL, "workers": 1, **settings}
    with started_app(read_settings(environment(**chosen))) as app:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            yield client
