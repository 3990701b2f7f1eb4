"""BentoML's pages under our own server: BentoML is imported with the first request for one.

The import takes longer than everything else that a worker does before it is ready, and half of its
memory. Most workers never get a request for a page.
"""

import asyncio
from typing import cast

from starlette.types import ASGIApp, Receive, Scope, Send

from service.server.app import settle
from service.settings import Settings
from service.telemetry.log import configure_logging


class LazyPages:
    """An ASGI app that loads BentoML's app with the first request."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: ASGIApp | None = None
        self._loading = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with BentoML's app."""
        async with self._loading:
            if self._app is None:
                self._app = await asyncio.to_thread(_load)
                configure_logging(self._settings.log_format)  # BentoML has replaced it
                settle()
        await self._app(scope, receive, send)


def _load() -> ASGIApp:
    from service.service import Vitrine, VitrineService

    return cast(VitrineService, Vitrine).pages()  # what BentoML's decorator returns
