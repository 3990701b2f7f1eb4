"""One HTTP connection of a worker: uvicorn's, with a fast path for an image in one piece.

Most requests with an image arrive whole, in one read. The fast path answers them without an ASGI
cycle, which would take a tenth of their time. Where the model is full it refuses them when their
head has arrived, and makes no asyncio task.
"""

import asyncio
from collections.abc import Callable

import uvicorn
from starlette.types import Message
from uvicorn.server import ServerState

from service.errors import VitrineError
from service.protocols.request import Request
from service.protocols.route import Match
from service.server.dispatch import Dispatcher
from service.server.ending import is_long
from service.server.framing import Framing
from service.server.tls import client_name
from service.telemetry import tracing

# uvicorn parses a longer URL, and one with a fragment.
MAX_URL_BYTES = 4096


class Connection(Framing):
    """Answers requests that arrive in one piece with an image; calls `on_close` at its end.

    All others go through ASGI: requests in several pieces, pipelined requests, and with tracing
    on every request, because the spans are made there.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        dispatcher: Dispatcher,
        timeout_s: float,
        on_close: Callable[[], None],
    ) -> None:
        super().__init__(config, state, dispatcher, timeout_s)
        self._on_close = on_close
        self._may_answer = not tracing.is_configured()
        self._held: tuple[Match, Request, _Exchange] | None = None
        """The request that is arriving, as long as it may take the fast path."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note who the client is, by its certificate, for every request of the connection."""
        super().connection_made(transport)
        self.app_state["client_name"] = client_name(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the end."""
        super().connection_lost(exc)
        self._on_close()

    def on_headers_complete(self) -> None:
        """Wait for the body of a request with an image; begin to answer any other."""
        super().on_headers_complete()
        match = self._fast_match()
        if match is None:
            self._begin_cycle()
            return
        exchange = _Exchange(self._keeps_alive)
        self._held = match, self._request(exchange), exchange

    def on_body(self, body: bytes) -> None:
        """Keep the body, if it comes in one piece."""
        if self._held is None:
            super().on_body(body)
        elif not self._held[2].body:
            self._held[2].body = body
        else:
            self._leave_fast_path()
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._held is None or self.parser.should_upgrade():
            super().on_message_complete()
            return
        match, request, exchange = self._held
        self._held, self._in_body = None, False
        if self._is_refused(match, request, exchange):
            return
        self.cycle = self._running = exchange  # type: ignore[assignment]
        task = self.loop.create_task(self._answer(match, request, exchange))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

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

    def _await_rest(self, count: int) -> None:
        """A request that is not whole yet goes through ASGI, unless it is refused."""
        if self._held is not None:
            if self._is_refused(*self._held):
                self._held = None
            else:
                self._leave_fast_path()
        super()._await_rest(count)

    def _fail(self, error: VitrineError) -> None:
        """So does one that turns out to be broken: its handler answers the error."""
        if self._held is not None:
            self._leave_fast_path()
        super()._fail(error)

    def _leave_fast_path(self) -> None:
        """Pass what was held back to uvicorn."""
        assert self._held is not None
        body, self._held = self._held[2].body, None
        self._begin_cycle()
        if body:
            super().on_body(body)

    def _is_refused(self, match: Match, request: Request, exchange: "_Exchange") -> bool:
        """Refuse a request that is not admitted; a long body that has not come is not read."""
        try:
            self._dispatcher.admit(request, match)
        except VitrineError as error:
            response = self._dispatcher.refuse(request, error)
        else:
            return False
        ends = response.closes_connection or not exchange.keep_alive
        if self._in_body:
            ends = self._lingers = ends or is_long(request.headers)
        self._ends = ends
        self._write(response, request, ends=ends)
        exchange.response_complete = True
        self.cycle = self._running = exchange  # type: ignore[assignment]
        self._conclude(request, response.status)
        if ends and not self._in_body:
            self.transport.close()
        self.on_response_complete()
        return True

    async def _answer(self, match: Match, request: Request, exchange: "_Exchange") -> None:
        status = 500
        try:
            response = await self._dispatcher.answer(match, request)
            status = response.status
            ends = response.closes_connection or not exchange.keep_alive
            self._write(response, request, ends=ends)
            if ends:
                self.transport.close()
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
            "headers": self._head,
            "state": self.app_state,
        }
        return Request(scope, exchange.receive, is_gone=exchange.is_gone)


class _Exchange:
    """A whole request and its answer, with the attributes of a cycle that uvicorn reads."""

    __slots__ = ("body", "disconnected", "keep_alive", "response_complete")

    message_event = asyncio.Event()  # uvicorn sets it when the client has gone; nobody waits for it

    def __init__(self, keep_alive: bool) -> None:
        self.body = b""
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False

    async def receive(self) -> Message:
        """The whole body, as ASGI hands it over."""
        return {"type": "http.request", "body": self.body, "more_body": False}

    def is_gone(self) -> bool:
        """Whether the client has closed its connection."""
        return self.disconnected
