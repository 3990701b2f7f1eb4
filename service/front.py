"""The outermost ASGI layer: routes, request ids, one body for all errors, the log and the metrics.

BentoML's own app lies inside of it and serves the forms of its APIs and its pages.
"""

import re
import time
import uuid
from collections.abc import Callable
from typing import Protocol

from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from service.errors import TooLarge, Unavailable, UnknownRoute, VitrineError, WrongMethod
from service.handlers import Handlers, answer, error_response
from service.log import log_request
from service.metrics import CONTENT_TYPE, UNKNOWN_MODEL, Metrics, expose
from service.openapi import PAGE
from service.record import Record
from service.settings import Settings

RECORD = "vitrine.record"  # where a request's Record lies in its ASGI scope

_METHODS = {
    "/": "GET",
    "/classify": "POST",
    "/denoise": "POST",
    "/v1/models": "GET",
    "/livez": "GET",
    "/readyz": "GET",
    "/metrics": "GET",
}
_PREDICT = re.compile(r"/v1/models/(?P<name>[^/:]+)(/versions/(?P<version>[^/:]+))?:predict")
_FORMS = ("/classify", "/denoise")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_REDIRECTS = (301, 302, 307, 308)
_UNLOGGED = ("/livez", "/readyz", "/metrics")


class Worker(Protocol):
    """What a worker offers once it has started."""

    handlers: Handlers
    metrics: Metrics
    settings: Settings


class Front:
    """Wraps BentoML's app; `worker` gives the started service, or None before."""

    def __init__(self, inner: ASGIApp, worker: Callable[[], Worker | None]) -> None:
        self._inner = inner
        self._worker = worker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; anything else goes to BentoML."""
        worker = self._worker()
        if scope["type"] == "websocket":
            denial = error_response(UnknownRoute("expected an HTTP request, got a WebSocket"))
            denial.headers["x-request-id"] = _request_id(HTTPConnection(scope))
            await WebSocket(scope, receive, send).send_denial_response(denial)
            return
        if scope["type"] != "http" or worker is None:
            await self._inner(scope, receive, send)
            return
        request = Request(scope, receive)
        record = Record(_request_id(request), scope["method"], scope["path"])
        scope[RECORD] = record
        reply = _Reply(send, record)
        try:
            await self._dispatch(worker, request, record, reply)
        finally:
            _conclude(worker, record, reply.status)

    async def _dispatch(
        self, worker: Worker, request: Request, record: Record, reply: "_Reply"
    ) -> None:
        scope, path = request.scope, record.path
        receive = _limited(request.receive, worker.settings.max_request_bytes)
        predict = _PREDICT.fullmatch(path)
        expected = "POST" if predict else _METHODS.get(path)
        allowed = ("GET", "HEAD") if expected == "GET" else (expected,)
        if expected is None or (path in _FORMS and record.method in allowed):
            record.protocol = path[1:] if path in _FORMS else "page"
            await self._inner(scope, receive, reply)
            return
        if record.method not in allowed:
            response = error_response(
                WrongMethod(f"{path}: expected {expected}, got {record.method}")
            )
            response.headers["Allow"] = ", ".join(method for method in allowed if method)
            record.answered = True
        elif predict:
            record.protocol = "v1"
            work = worker.handlers.predict(
                Request(scope, receive), record, predict["name"], predict["version"]
            )
            response = await answer(work, record, worker.settings.request_timeout_s)
        else:
            response = await _information(worker, path)
            record.answered = True
        await response(scope, receive, reply)


async def _information(worker: Worker, path: str) -> Response:
    match path:
        case "/":
            return HTMLResponse(PAGE)
        case "/metrics":
            return Response(expose(), media_type=CONTENT_TYPE)
        case "/v1/models":
            return await worker.handlers.list_models()
        case _:
            # A worker that has started has proven its models on their samples.
            return JSONResponse({"status": "alive" if path == "/livez" else "ready"})


class _Reply:
    """Sends a response on, with the request's id; replaces BentoML's own error bodies."""

    def __init__(self, send: Send, record: Record) -> None:
        self.status = 0
        self._send = send
        self._record = record
        self._replaced = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if not self._record.answered and self.status in _REDIRECTS:
                self.status = 404  # to a path without its last slash: not a route of ours
            if not self._record.answered and self.status >= 400:
                self._replaced = True
                await self._send_error()
                return
            id_header = (b"x-request-id", self._record.request_id.encode())
            message["headers"] = [*message.get("headers", ()), id_header]
        if not self._replaced:
            await self._send(message)

    async def _send_error(self) -> None:
        response = error_response(_explain(self.status, self._record))
        response.headers["x-request-id"] = self._record.request_id
        if self.status == 405:  # BentoML's pages
            response.headers["allow"] = "GET, HEAD"
        await self._send(
            {
                "type": "http.response.start",
                "status": self.status,
                "headers": response.raw_headers,
            }
        )
        await self._send({"type": "http.response.body", "body": response.body})


def _explain(status: int, record: Record) -> VitrineError:
    routes = "/v1/models/{name}[/versions/{version}]:predict"
    match status:
        case 404:
            known = ", ".join([*_METHODS, routes])
            return UnknownRoute(f"no route {record.path!r:.200}: expected one of {known}")
        case 405:
            return WrongMethod(f"{record.path!r:.200} does not take {record.method}")
        case 503:
            return Unavailable("not ready")
        case _:
            return VitrineError(f"the request failed with status {status}")


def _limited(receive: Receive, max_bytes: int) -> Receive:
    """`receive`, but raising TooLarge when a body exceeds `max_bytes`."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise TooLarge(f"expected a body of at most {max_bytes} bytes, got more")
        return message

    return limited


def _request_id(connection: HTTPConnection) -> str:
    sent = connection.headers.get("x-request-id", "")
    return sent if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex


def _conclude(worker: Worker, record: Record, status: int) -> None:
    seconds = time.perf_counter() - record.started
    model = record.model or UNKNOWN_MODEL
    labels = (model, record.version, record.protocol, str(status))
    worker.metrics.requests.labels(*labels).inc()
    worker.metrics.request_seconds.labels(model, record.protocol).observe(seconds)
    if worker.settings.log_requests and record.path not in _UNLOGGED:
        log_request(record, status, seconds)
