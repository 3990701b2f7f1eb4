"""One HTTP connection of a worker: uvicorn's, with a way of its own for an image in one piece.

Many requests with an image come whole, in one read. Such a one is answered here, without an
ASGI cycle around it, which would take a tenth of its time; or it is refused here, before a task is
made for it, which costs a fifth of an answer: under overload the rest is free for answers.
"""

import asyncio
from collections.abc import Callable

import uvicorn
from starlette.types import Message
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from service.errors import VitrineError
from service.protocols.native import answer
from service.protocols.request import Request
from service.protocols.response import Response, error_response
from service.server.app import App
from service.server.front import FORMS, conclude, image_route
from service.telemetry import tracing

# A longer one, or one with a fragment, is for uvicorn to take apart.
MAX_URL_BYTES = 4096


class Connection(HttpToolsProtocol):
    """Tells when it is closed; answers by itself what comes in one piece with an image.

    All else goes the ordinary way, through ASGI: requests in several pieces, or sent before the
    answer to the one before them; with tracing on, every request, since the spans are made there.
    """

    def __init__(
        self, config: uvicorn.Config, state: ServerState, app: App, on_close: Callable[[], None]
    ) -> None:
        super().__init__(config, state, {})
        self._vitrine = app
        self._on_close = on_close
        self._may_answer = not tracing.is_configured()
        self._running: _Exchange | RequestResponseCycle | None = None
        """The request that is being answered; others may have come behind it."""
        self._own_paths = {*app.models.by_path, *(path.encode() for path in FORMS)}
        self._holds = False
        """Whether a request is coming in that may still be answered here."""
        self._path = b""
        self._body = b""
        self._keeps_alive = True
        self._header_count = 0

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell of the end, and every request; uvicorn tells the one that came last alone."""
        for cycle in (self._running, *(waiting for waiting, _ in self.pipeline)):
            if cycle is not None:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)
        self._on_close()

    def data_received(self, data: bytes) -> None:
        """Read what came; a request that is not whole yet goes the ordinary way."""
        super().data_received(data)
        if self._holds:
            self._go_on()

    def on_headers_complete(self) -> None:
        """Wait for the body of a request with an image; begin to answer any other."""
        self._unset_keepalive_if_required()
        self._path = self.url.partition(b"?")[0]
        if self._path in self._own_paths and self._is_ordinary_post():
            version = self.parser.get_http_version()
            self._holds, self._body = True, b""
            self._keeps_alive = version != "1.0" and self.parser.should_keep_alive()
            self._header_count = len(self.headers)  # trailers will be added to them
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        if self._holds:
            self._body += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if not self._holds:
            super().on_message_complete()
            return
        self._holds = False
        exchange = self._exchange()
        request = self._request(exchange)
        refusal = self._refusal(request)
        if refusal is not None:
            self._write(error_response(refusal), request, exchange)
            conclude(self._vitrine, request, refusal.status)
            self.on_response_complete()
            return
        self.cycle = self._running = exchange  # type: ignore[assignment]
        task = self.loop.create_task(self._answer(request, exchange))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _is_ordinary_post(self) -> bool:
        return (
            self._may_answer
            and (self.cycle is None or self.cycle.response_complete)
            and self.parser.get_method() == b"POST"
            and not self.expect_100_continue
            and not self.flow.write_paused
            and len(self.url) <= MAX_URL_BYTES
            and b"#" not in self.url
        )

    def _go_on(self) -> None:
        """Hand to uvicorn what was kept from it."""
        self._holds = False
        super().on_headers_complete()
        body, self._body = self._body, b""
        if body:
            super().on_body(body)

    def _refusal(self, request: Request) -> VitrineError | None:
        """What to answer at once to a stranger, or where the model's queue takes nothing more."""
        denial = self._vitrine.tokens.denial(request.headers)
        if denial is not None:
            return denial
        model = self._vitrine.models.by_path.get(self._path)
        if model is None or not model.is_full:
            return None
        request.protocol = "v1"
        request.model, request.version = model.manifest.name, model.manifest.version
        return model.overload()

    async def _answer(self, request: Request, exchange: "_Exchange") -> None:
        app, status = self._vitrine, 500
        try:
            work = image_route(app.handlers, request)
            assert work is not None  # so says the path
            response = await answer(work, request, app.settings.request_timeout_s)
            status = response.status
            if not self.transport.is_closing():
                self._write(response, request, exchange)
        finally:
            exchange.response_complete = True
            conclude(app, request, status)
        self.on_response_complete()

    def _exchange(self) -> "_Exchange":
        body, self._body = self._body, b""
        return _Exchange(body, self._keeps_alive)

    def _request(self, exchange: "_Exchange") -> Request:
        scope = {
            "method": "POST",
            "path": self._path.decode("ascii"),
            "query_string": self.url.partition(b"?")[2],
            "headers": self.headers[: self._header_count],
        }
        return Request(scope, exchange.receive)

    def _write(self, response: Response, request: Request, exchange: "_Exchange") -> None:
        if self._vitrine.drain.is_on:
            exchange.keep_alive = False
        headers = [*self.server_state.default_headers, *response.header_list(request.request_id)]
        if not exchange.keep_alive:
            headers.append((b"connection", b"close"))
        lines = [STATUS_LINE[response.status]]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        self.transport.write(b"".join((*lines, b"\r\n", response.body)))
        if not exchange.keep_alive:
            self.transport.close()


class _Exchange:
    """A request that is whole and its answer: as much of a cycle as uvicorn's protocol looks at."""

    __slots__ = ("_body", "disconnected", "keep_alive", "message_event", "response_complete")

    def __init__(self, body: bytes, keep_alive: bool) -> None:
        self._body: bytes | None = body
        self.keep_alive = keep_alive
        self.message_event = asyncio.Event()  # uvicorn sets it when the client has gone
        self.disconnected = False
        self.response_complete = False

    async def receive(self) -> Message:
        """ASGI's: the body, then that the client has gone, once it has."""
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        await self.message_event.wait()
        return {"type": "http.disconnect"}
