"""How a connection ends: after an error, an early answer, or a client that is slow or half gone.

What arrived before is answered first, and the client can read its last answer. No end takes longer
than the request timeout.
"""

import asyncio
from functools import partial
from typing import Any

import uvicorn
from starlette.types import Message, Receive, Scope, Send
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from service.errors import DeadlinePassed, VitrineError
from service.protocols.request import Request, declared_length
from service.protocols.response import Response
from service.server.dispatch import Dispatcher
from service.server.linger import Linger

# The rest of a body that nobody reads is let through if the whole is no longer than this.
MAX_UNREAD_BYTES = 65_536
# A reader takes this much of its answer in each period of the request timeout, or is cut off.
MIN_READ_BYTES = 65_536
# A client that has shut down its writing side may have gone: that shows only when it is written to.
HALF_CLOSED_S = 0.2

_CLOSE = (b"connection", b"close")
_NOBODY: Scope = {"method": "", "path": "", "query_string": b"", "headers": []}


class Ending(HttpToolsProtocol):
    """A connection of uvicorn's that ends as its answers say; `timeout_s` bounds a slow reader."""

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        dispatcher: Dispatcher,
        timeout_s: float,
    ) -> None:
        super().__init__(config, state, {})
        self._dispatcher = dispatcher
        self._timeout_s = timeout_s
        self._running: RequestResponseCycle | None = None
        """The request that is being answered; pipelined ones may wait behind it."""
        self._in_body = False
        """Whether the body of the last request is still arriving."""
        self._error: VitrineError | None = None
        """Why nothing that arrives is read any more."""
        self._ends = False
        """Whether the connection ends once what has arrived is answered."""
        self._lingers = False
        """Whether it ends after the answer that is being sent, though its request is not whole."""
        self._stall: asyncio.TimerHandle | None = None
        """Cuts off a reader that does not read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request as long as for another."""
        super().connection_made(transport)
        self._wait(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Mark every open request as disconnected; uvicorn only marks the last one."""
        for cycle in (self._running, *(waiting for waiting, _ in self.pipeline)):
            if cycle is not None:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        self._unset_keepalive_if_required()
        self._stop_stall()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer for a moment: a client that has shut down its writing side may still read."""
        is_cut = self._in_body and self._running is self.cycle
        if self._is_idle() or is_cut or self.scheme == "https":
            return False  # closes
        self._ends = True
        self.loop.call_later(HALF_CLOSED_S, self.transport.close)
        return True

    def pause_writing(self) -> None:
        """The client reads slowly: bound how slowly."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """The client has read nearly all."""
        super().resume_writing()
        self._stop_stall()

    def _watch_reader(self) -> None:
        self._stop_stall()
        unread = self.transport.get_write_buffer_size()
        self._stall = self.loop.call_later(self._timeout_s, self._check_reader, unread)

    def _check_reader(self, unread: int) -> None:
        if self.transport.get_write_buffer_size() > max(0, unread - MIN_READ_BYTES):
            self.transport.abort()
        else:
            self._watch_reader()

    def _stop_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nothing comes, without waiting for one that does not read."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _wait(self, seconds: float, act: Any) -> None:
        """Act when nothing, or no whole head, has come by then."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(seconds, act)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, partial(self._run, cycle, app))

    async def _run(
        self, cycle: RequestResponseCycle, app: Any, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer a request whose body may turn out to be broken, or may not be read."""

        async def receive_unbroken() -> Message:
            message = await receive()
            if self._error is not None and self._is_arriving(cycle):
                raise self._error
            return message

        async def send_and_end(message: Message) -> None:
            is_start = message["type"] == "http.response.start"
            if not is_start or not self._is_arriving(cycle) or self._may_wait(message, cycle):
                await send(message)
                return
            headers = [*(each for each in message["headers"] if each != _CLOSE), _CLOSE]
            await send({**message, "headers": headers})
            cycle.keep_alive = True  # uvicorn would close at once
            self._ends = self._lingers = True

        await app(scope, receive_unbroken, send_and_end)

    def _is_arriving(self, cycle: RequestResponseCycle) -> bool:
        return self._in_body and self.cycle is cycle

    def _may_wait(self, answer: Message, cycle: RequestResponseCycle) -> bool:
        """Whether the connection goes on after an answer, once the rest of the body has come."""
        return (
            self._error is None
            and answer["status"] != DeadlinePassed.status
            and _CLOSE not in answer["headers"]
            and not cycle.waiting_for_100_continue  # then no body may come at all
            and not is_long(dict(cycle.scope["headers"]))
        )

    def _is_idle(self) -> bool:
        return self._running is None or self._running.response_complete

    def _fail(self, error: VitrineError) -> None:
        """Read nothing more; answer what came before, then the error, and end."""
        self._error = error
        self._ends = True
        if self._in_body and not self.cycle.response_complete:
            self.cycle.message_event.set()  # its own handler answers
        else:
            self._end()

    def on_response_complete(self) -> None:
        """Go on to the next request, or end."""
        super().on_response_complete()
        if self._ends or self.transport.is_closing():
            self._end()

    def _end(self) -> None:
        """End as far as what has arrived is answered."""
        if self.transport.is_closing():
            if self._stall is None:
                self._watch_reader()
        elif self._is_idle() and self.transport.get_protocol() is self:
            if self._error is not None and not self._in_body and not self._lingers:
                self._refuse(self._error)
            self._linger()

    def _refuse(self, error: VitrineError) -> None:
        """Answer a request that cannot be read."""
        request = Request(_NOBODY, _nothing, is_gone=self.transport.is_closing)
        self._write(self._dispatcher.refuse(request, error).closing(), request)
        self._dispatcher.conclude(request.call, error.status)

    def _linger(self) -> None:
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        if self._in_body or self.transport.can_write_eof():
            Linger(self, self.transport)
        else:  # TLS, which says of itself that this is the end
            self.transport.close()

    def _write(self, response: Response, request: Request, *, ends: bool = False) -> None:
        """Send a whole answer; it `ends` the connection where the client wants that."""
        if self.transport.is_closing():
            return
        headers = [
            *self.server_state.default_headers,
            *response.header_list(request.call.request_id),
        ]
        if ends and not response.closes_connection:
            headers.append((b"connection", b"close"))
        lines = [STATUS_LINE[response.status]]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        self.transport.write(b"".join((*lines, b"\r\n", response.body)))


def is_long(headers: dict[bytes, bytes]) -> bool:
    """Whether a body is too long to be let through unread, or may be."""
    return b"transfer-encoding" in headers or declared_length(headers) > MAX_UNREAD_BYTES


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
