"""The outermost ASGI layer: every HTTP request is answered here.

Under `bentoml serve` it wraps BentoML's own app, which starts and ends the service and gets no
request: its path costs 0.3 ms more, has no limits, and fetches URLs that a field names.
"""

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import BadInput, NotSupported, Unavailable, UnknownRoute, VitrineError
from service.protocols import health
from service.protocols.request import Request, request_id
from service.protocols.response import error_response
from service.server.app import App
from service.server.head import check_head
from service.telemetry import tracing


class Front:
    """An ASGI app; `started` returns this process's App, or None before it is loaded."""

    def __init__(self, started: Callable[[], App | None], inner: ASGIApp | None = None) -> None:
        self._started = started
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, deny a WebSocket; pass lifespan events to the inner app."""
        if scope["type"] == "lifespan":
            if self._inner is not None:
                await self._inner(scope, receive, send)
            return
        app = self._started()
        error: VitrineError
        if scope["type"] == "websocket":
            error = UnknownRoute("expected an HTTP request, got a WebSocket")
            await _deny(error, scope, send, "websocket.http")
        elif self._inner is not None and (unusable := _unusable(scope)) is not None:
            await _deny(unusable, scope, send, "http", closes=True)
        elif app is None:
            await _deny(Unavailable("not ready"), scope, send, "http")
        else:
            await _answer(app, Request(scope, receive), send)


def _unusable(scope: Scope) -> VitrineError | None:
    """Why uvicorn's own connection may not go on after a request; `Connection` sees to it itself.

    uvicorn ends a request for an upgrade at its head, and takes its body for the next request.
    """
    if scope["method"] == "CONNECT" or any(name == b"upgrade" for name, _ in scope["headers"]):
        return NotSupported("expected plain HTTP/1.1, got a request for an upgrade")
    try:
        check_head(scope["http_version"], scope["headers"])
    except BadInput as error:
        return error
    return None


async def _deny(
    error: VitrineError, scope: Scope, send: Send, kind: str, *, closes: bool = False
) -> None:
    response = error_response(error)
    if closes:
        response = response.closing()
    await response.send(send, request_id(dict(scope["headers"])), kind)


async def _answer(app: App, request: Request, send: Send) -> None:
    status = 500
    try:
        response = await app.dispatcher.respond(request)
        status = response.status
        await response.send(send, request.call.request_id)
    finally:
        request.close()
        app.dispatcher.conclude(request.call, status, request.method, request.path)


def traced(front: Front) -> ASGIApp:
    """The front, with a span around each request where tracing is configured."""
    if not tracing.is_configured():
        return front
    # Imported only here: tracing that is off costs no memory and no start time.
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.util.http import parse_excluded_urls

    middleware: ASGIApp = OpenTelemetryMiddleware(
        front,
        tracer_provider=tracing.start(),
        excluded_urls=parse_excluded_urls(",".join(route.path for route in health.ROUTES)),
        exclude_spans=["receive", "send"],
    )
    return middleware
