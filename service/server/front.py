"""The outermost ASGI layer: routes, one body for all errors, request ids, the log and the metrics.

BentoML's own app lies inside of it and serves its pages; everything else is answered here, past
BentoML's middlewares, which would cost a request more than all of its own work.
"""

import asyncio
import re
import time
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Unavailable, UnknownRoute, VitrineError, WrongMethod
from service.protocols.native import Handlers, answer, unexpected_error
from service.protocols.openapi import PAGE
from service.protocols.request import PROBES, Request, request_id
from service.protocols.response import Response, error_response, json_response
from service.server.app import App
from service.telemetry import tracing
from service.telemetry.log import log_request
from service.telemetry.metrics import CONTENT_TYPE, UNKNOWN_MODEL

_PREDICT = re.compile(r"/v1/models/(?P<name>[^/:]+)(/versions/(?P<version>[^/:]+))?:predict")
FORMS = ("/classify", "/denoise")
_PAGES = ("/", "/v1/models", *PROBES)
_BENTOML_PAGES = re.compile(r"/docs\.json|/schema\.json|/static_content/.+")
_ROUTES = (*FORMS, *_PAGES, "/v1/models/{name}[/versions/{version}]:predict")
_REDIRECTS = (301, 302, 307, 308)


def fronted(inner: ASGIApp, started: Callable[[], App | None]) -> ASGIApp:
    """`inner` with the front around it, and tracing around that where it is configured."""
    if not tracing.is_configured():
        return Front(inner, started)
    return tracing.traced(Front(inner, started, tracing.annotate_span))


class Front:
    """Wraps BentoML's app; `started` gives what this process serves with, or None before.

    `on_answer` is called with every request once its answer is known, before it is sent.
    """

    def __init__(
        self,
        inner: ASGIApp,
        started: Callable[[], App | None],
        on_answer: Callable[[Request], None] | None = None,
    ) -> None:
        self._inner = inner
        self._started = started
        self._on_answer = on_answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, deny a WebSocket; anything else goes to BentoML."""
        app = self._started()
        if scope["type"] == "websocket":
            denial = error_response(UnknownRoute("expected an HTTP request, got a WebSocket"))
            await denial.send(send, request_id(dict(scope["headers"])), "websocket.http")
            return
        if scope["type"] != "http" or app is None:
            await self._inner(scope, receive, send)
            return
        request = Request(scope, receive)
        reply = _Reply(send, request)
        status = 500
        try:
            response = await _respond(app, request)
            if response is None:
                await self._inner(scope, receive, reply)
                status = reply.status
            else:
                status = response.status
                if self._on_answer is not None:
                    self._on_answer(request)
                if app.drain.is_on:
                    response = response.closing()
                await response.send(send, request.request_id)
        except Exception:
            if reply.status:  # what has begun cannot be replaced
                raise
            await error_response(unexpected_error(request)).send(send, request.request_id)
        finally:
            conclude(app, request, status)


async def _respond(app: App, request: Request) -> Response | None:
    """The answer to a request; None where BentoML may have a page."""
    denial = None if request.path in PROBES else app.tokens.denial(request.headers)
    if denial is not None:
        return error_response(denial)
    work = image_route(app.handlers, request)
    if work is not None:
        return await answer(work, request, app.settings.request_timeout_s)
    return await _page(app, request)


def image_route(handlers: Handlers, request: Request) -> Coroutine[Any, Any, Response] | None:
    """The work on an image that a request asks for, if it asks for that."""
    if request.method != "POST":
        return None
    predict = _PREDICT.fullmatch(request.path)
    if predict:
        request.protocol = "v1"
        return handlers.predict(request, predict["name"], predict["version"])
    match request.path:
        case "/classify":
            request.protocol = "classify"
            return handlers.classify(request)
        case "/denoise":
            request.protocol = "denoise"
            return handlers.denoise(request)
    return None


async def _page(app: App, request: Request) -> Response | None:
    """The answer to what is no image; None where BentoML may have a page."""
    path = request.path
    allowed: tuple[str, ...]
    if path in _PAGES:
        allowed = ("GET", "HEAD")
    elif path in FORMS or _PREDICT.fullmatch(path):
        allowed = ("POST",)
    else:
        request.protocol = "page"
        return None if _BENTOML_PAGES.fullmatch(path) else _unknown_route(path)
    if request.method not in allowed:
        wrong = WrongMethod(f"{path}: expected {allowed[0]}, got {request.method}")
        return error_response(wrong, {"Allow": ", ".join(allowed)})
    match path:
        case "/":
            return Response(PAGE.encode(), "text/html; charset=utf-8")
        case "/metrics" if app.settings.metrics:
            loop = asyncio.get_running_loop()
            text = await loop.run_in_executor(app.scraper, app.metrics.expose)
            return Response(text, CONTENT_TYPE)
        case "/metrics":
            return error_response(UnknownRoute("expected VITRINE_METRICS=true, got false"))
        case "/v1/models":
            return app.handlers.list_models()
        case "/livez" | "/readyz" if app.metrics.is_any_engine_failing():
            return error_response(Unavailable("expected engines that work, got one that fails"))
        case "/readyz" if app.drain.is_on:
            return error_response(Unavailable("expected to go on serving, got told to end"))
        case _:
            # A worker that has started has proven its models on their samples.
            return json_response({"status": "ready" if path == "/readyz" else "alive"})


def _unknown_route(path: str) -> Response:
    known = ", ".join(_ROUTES)
    return error_response(UnknownRoute(f"no route {path!r:.200}: expected one of {known}"))


class _Reply:
    """Sends BentoML's response on, with the request's id; replaces the body of an error."""

    def __init__(self, send: Send, request: Request) -> None:
        self.status = 0
        self._send = send
        self._request = request
        self._replaced = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.status in _REDIRECTS:
                self.status = 404  # to a path without its last slash: not a route of ours
            if self.status >= 400:
                self._replaced = True
                await self._error().send(self._send, self._request.request_id)
                return
            id_header = (b"x-request-id", self._request.request_id.encode())
            message["headers"] = [*message.get("headers", ()), id_header]
        if not self._replaced:
            await self._send(message)

    def _error(self) -> Response:
        request = self._request
        match self.status:
            case 404:
                return _unknown_route(request.path)
            case 405:
                wrong = WrongMethod(f"{request.path!r:.200} does not take {request.method}")
                return error_response(wrong, {"Allow": "GET, HEAD"})
            case 503:
                return error_response(Unavailable("not ready"))
            case _:
                return error_response(VitrineError(f"failed with status {self.status}"))


def conclude(app: App, request: Request, status: int) -> None:
    """Count and log a request that has ended."""
    seconds = time.perf_counter() - request.started
    model, metrics = request.model or UNKNOWN_MODEL, app.metrics
    metrics.requests[model, request.version, request.protocol, str(status)].inc()
    metrics.request_seconds[model, request.version, request.protocol].observe(seconds)
    if app.settings.log_requests and request.path not in PROBES:
        log_request(request, status, seconds)
