"""One HTTP connection of a worker: uvicorn's, with a fast path for an image in one piece.

Most requests with an image arrive whole, in one read. The fast path answers them without an ASGI
cycle, which would take a tenth of their time. It refuses them before an asyncio task is made, so
that under overload a refusal costs a fifth of an answer.
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
from service.protocols.request import Request
from service.protocols.response import Response
from service.protocols.route import Match
from service.server.dispatch import Dispatcher
from service.server.tls import client_name
from service.telemetry import tracing

# uvicorn parses a longer URL, and one with a fragment.
MAX_URL_BYTES = 4096


class Connection(HttpToolsProtocol):
    """Answers requests that arrive in one piece with an image; calls `on_close` at its end.

    All others go through ASGI: requests in several pieces, pipelined requests, and with tracing
    on every request, because the spans are made there.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        dispatcher: Dispatcher,
        on_close: Callable[[], None],
    ) -> None:
        super().__init__(config, state, {})
        self._dispatcher = dispatcher
        self._on_close = on_close
        self._may_answer = not tracing.is_configured()
        self._running: _Exchange | RequestResponseCycle | None = None
        """The request that is being answered; pipelined ones may wait behind it."""
        self._holds = False
        """Whether the request that is arriving may still take the fast path."""
        self._match: Match | None = None
        """The route of that request."""
        self._body = b""
        self._keeps_alive = True
        self._header_count = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note who the client is, by its certificate, for every request of the connection."""
        super().connection_made(transport)
        self.app_state["client_name"] = client_name(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Mark every open request as disconnected; uvicorn only marks the last one."""
        for cycle in (self._running, *(waiting for waiting, _ in self.pipeline)):
            if cycle is not None:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)
        self._on_close()

    def data_received(self, data: bytes) -> None:
        """Read what came; a request that is not whole yet goes through ASGI."""
        super().data_received(data)
        if self._holds:
            self._leave_fast_path()

    def on_headers_complete(self) -> None:
        """Wait for the body of a request with an image; begin to answer any other."""
        self._unset_keepalive_if_required()
        self._match = self._fast_match()
        if self._match is not None:
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
        body, self._body = self._body, b""
        exchange = _Exchange(body, self._keeps_alive)
        request = self._request(exchange)
        try:
            match = self._dispatcher.admit(request, self._match)
        except VitrineError as error:
            response = self._dispatcher.refuse(request, error)
            self._write(response, request, exchange)
            self._conclude(request, response.status)
            self.on_response_complete()
            return
        self.cycle = self._running = exchange  # type: ignore[assignment]
        task = self.loop.create_task(self._answer(match, request, exchange))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _fast_match(self) -> Match | None:
        """The route of a request that the fast path may take, once its headers have arrived."""
        if (
            self._may_answer
            and (self.cycle is None or self.cycle.response_complete)
            and self.parser.get_method() == b"POST"
            and not self.expect_100_continue
            and not self.flow.write_paused
            and len(self.url) <= MAX_URL_BYTES
            and b"#" not in self.url
        ):
            return self._dispatcher.inference_paths.get(self.url.partition(b"?")[0])
        return None

    def _leave_fast_path(self) -> None:
        """Pass to uvicorn what was held back: the request goes through ASGI."""
        self._holds = False
        super().on_headers_complete()
        body, self._body = self._body, b""
        if body:
            super().on_body(body)

    async def _answer(self, match: Match, request: Request, exchange: "_Exchange") -> None:
        status = 500
        try:
            response = await self._dispatcher.answer(match, request)
            status = response.status
            if not self.transport.is_closing():
                self._write(response, request, exchange)
        finally:
            exchange.response_complete = True
            self._conclude(request, status)
        self.on_response_complete()

    def _conclude(self, request: Request, status: int) -> None:
        self._dispatcher.conclude(request.call, status, request.method, request.path)

    def _request(self, exchange: "_Exchange") -> Request:
        path, _, query = self.url.partition(b"?")
        scope = {
            "method": "POST",
            "path": path.decode("ascii"),
            "query_string": query,
            "headers": self.headers[: self._header_count],
            "state": self.app_state,
        }
        return Request(scope, exchange.receive, is_gone=exchange.is_gone)

    def _write(self, response: Response, request: Request, exchange: "_Exchange") -> None:
        if response.closes_connection:
            exchange.keep_alive = False
        headers = [
            *self.server_state.default_headers,
            *response.header_list(request.call.request_id),
        ]
        if not exchange.keep_alive and not response.closes_connection:
            headers.append((b"connection", b"close"))
        lines = [STATUS_LINE[response.status]]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        self.transport.write(b"".join((*lines, b"\r\n", response.body)))
        if not exchange.keep_alive:
            self.transport.close()


class _Exchange:
    """A whole request and its answer, with the attributes of a cycle that uvicorn reads."""

    __slots__ = ("_body", "disconnected", "keep_alive", "message_event", "response_complete")

    def __init__(self, body: bytes, keep_alive: bool) -> None:
        self._body = body
        self.keep_alive = keep_alive
        self.message_event = asyncio.Event()  # uvicorn sets it when the client has gone
        self.disconnected = False
        self.response_complete = False

    async def receive(self) -> Message:
        """The whole body, as ASGI hands it over."""
        return {"type": "http.request", "body": self._body, "more_body": False}

    def is_gone(self) -> bool:
        """Whether the client has closed its connection."""
        return self.disconnected
