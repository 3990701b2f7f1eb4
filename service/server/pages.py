"""BentoML's pages where the server is not BentoML's: imported when the first one is asked for.

Importing BentoML takes longer than everything else that a worker does before it is ready, and half
of its memory; most workers are never asked for a page.
"""

import asyncio
from typing import cast

from starlette.types import ASGIApp, Receive, Scope, Send

from service.server.app import settle
from service.settings import Settings
from service.telemetry.log import configure_logging


class LazyPages:
    """An ASGI app that becomes BentoML's with the first request."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: ASGIApp | None = None
        self._loading = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with BentoML's app."""
        async with self._loading:
            if self._app is None:
                self._app = await asyncio.to_thread(_load)
                configure_logging(self._settings.log_format)  # BentoML has turned it off
                settle()
        await self._app(scope, receive, send)


def _load() -> ASGIApp:
    from service.service import Vitrine, VitrineService

    return cast(VitrineService, Vitrine).pages()  # BentoML's decorator has made it of the class
