"""One HTTP connection of a worker: uvicorn's, which also refuses at the door.

A full queue refuses a request wherever it is noticed. Noticed here, before a task and a response
cycle are made for it, that costs a fifth of an answer: under overload the rest is free for answers.
"""

from collections.abc import Callable

import uvicorn
from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from service import tracing
from service.app import App
from service.front import conclude
from service.model import Model
from service.request import Request
from service.response import error_response


class Connection(HttpToolsProtocol):
    """Tells when it is closed; answers by itself what would find a full queue.

    Only a request that comes in one piece is refused here; whatever else is wrong with it is not
    looked at. With tracing on, everything goes the ordinary way, where the spans are made.
    """

    def __init__(
        self, config: uvicorn.Config, state: ServerState, app: App, on_close: Callable[[], None]
    ) -> None:
        super().__init__(config, state, {})
        self._vitrine = app
        self._on_close = on_close
        self._refuses = not tracing.is_configured()
        self._full: Model | None = None
        """The model whose queue is full, while a request for it comes in."""
        self._body = b""

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        super().connection_lost(exc)
        self._on_close()

    def data_received(self, data: bytes) -> None:
        """Read what came; a request that is not whole yet goes the ordinary way."""
        super().data_received(data)
        if self._full is not None:
            self._go_on()

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the queue that the request is for is full."""
        self._unset_keepalive_if_required()
        model = self._vitrine.models.by_path.get(self.url.partition(b"?")[0])
        if model is not None and model.is_full and self._may_refuse():
            self._full, self._body = model, b""
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        if self._full is None:
            super().on_body(body)
        else:
            self._body += body

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._full is not None and self._full.is_full:
            model, self._full = self._full, None
            self._refuse(model)
            return
        if self._full is not None:
            self._go_on()
        super().on_message_complete()

    def _may_refuse(self) -> bool:
        return (
            self._refuses
            and (self.cycle is None or self.cycle.response_complete)
            and self.parser.get_method() == b"POST"
            and not self.expect_100_continue
            and not self.flow.write_paused
        )

    def _go_on(self) -> None:
        """Hand to uvicorn what was kept from it."""
        self._full = None
        super().on_headers_complete()
        if self._body:
            super().on_body(self._body)

    def _refuse(self, model: Model) -> None:
        path = self.url.partition(b"?")[0].decode("ascii")
        scope = {**self.scope, "method": "POST", "path": path, "query_string": b""}
        request = Request(scope, _unread)
        request.protocol = "v1"
        request.model, request.version = model.manifest.name, model.manifest.version
        response = error_response(model.overload())
        keeps = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        headers = [*self.server_state.default_headers, *response.header_list(request.request_id)]
        if not keeps:
            headers.append((b"connection", b"close"))
        lines = [STATUS_LINE[response.status]]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        self.transport.write(b"".join((*lines, b"\r\n", response.body)))
        conclude(self._vitrine, request, response.status)
        if not keeps:
            self.transport.close()
        self.on_response_complete()


async def _unread() -> Message:
    raise NotImplementedError
