"""Where a request begins and ends on a connection: one meaning for everybody, in bounded memory.

llhttp, the parser, is strict. Beyond it: an upgrade that is not taken does not end a request, no
other coding than chunked is passed over, trailers are no headers, and a head has a limit.
"""

from collections import deque
from typing import Any

import httptools

from service.errors import BadInput, HeadTooLarge, NotSupported, TooSlow, VitrineError
from service.server.ending import Ending
from service.server.head import check_head

MAX_HEAD_BYTES = 65_536

_FRAMING = (b"content-length", b"transfer-encoding")
_NO_TRAILERS: Any = deque(maxlen=0)  # takes headers, and keeps none


class Framing(Ending):
    """A connection whose parser never differs from what is answered."""

    _in_head = False
    """Whether the head of a request is arriving."""
    _made_progress = False
    """Whether the last data began or ended a head, or had some of a body."""
    _quiet_bytes = 0
    """What came since then: parts of a head, or of trailers."""
    _measures_head = False
    """Whether the head may be too long."""
    _has_coding = False
    """Whether it has a Transfer-Encoding."""
    _hosts = 0
    """How many headers Host it has."""
    _keeps_alive = True
    """Whether the client may send another request after this one."""
    _head: list[tuple[bytes, bytes]]
    """Its headers, without trailers."""

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        if self._error is not None:
            return
        if len(data) > MAX_HEAD_BYTES:
            self._measures_head = True
        try:
            self._feed(data)
            if self._in_head or self._in_body:
                self._await_rest(len(data))
        except VitrineError as error:
            self._fail(error)

    def _feed(self, data: bytes) -> None:
        """Parse; raises VitrineError for what is not HTTP, or not supported."""
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as pause:
                data = data[pause.args[0] :]
                self._ignore_upgrade()
            except httptools.HttpParserCallbackError as error:
                if isinstance(error.__context__, VitrineError):
                    raise error.__context__ from None
                raise BadInput("expected an HTTP request, got an unusable URL") from error
            except httptools.HttpParserError as error:
                raise BadInput(f"expected an HTTP request: {error}") from error

    def _ignore_upgrade(self) -> None:
        """Go on with the body of a request that asks for an upgrade (RFC 9110, section 7.8).

        llhttp has ended the request at its head, so a new parser gets a head with its framing.
        """
        framing = [field for field in self._head if field[0] in _FRAMING]
        has_body = any(value.strip(b"0") for _, value in framing)
        if not self._keeps_alive:
            framing.append((b"connection", b"close"))
        lines = [b"%b: %b\r\n" % field for field in framing]
        callbacks = _Callbacks(self)
        self.parser = httptools.HttpRequestParser(callbacks)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(lines))
        callbacks.are_live = True
        if not has_body:
            self.on_message_complete()

    def _await_rest(self, count: int) -> None:
        """Bound a head, or trailers, in several pieces; the last one had `count` bytes."""
        self._quiet_bytes = 0 if self._made_progress else self._quiet_bytes + count
        self._made_progress = False
        if self._quiet_bytes > MAX_HEAD_BYTES:
            raise HeadTooLarge(f"expected headers of at most {MAX_HEAD_BYTES} bytes, got more")
        if self._in_head:
            self._measures_head = True
            if self.timeout_keep_alive_task is None:
                self._wait(self._timeout_s, self._on_slow_head)

    def _on_slow_head(self) -> None:
        if self._is_idle():
            self._fail(TooSlow(f"expected whole headers within {self._timeout_s:g} s"))
        else:  # perhaps it is we who have not read on
            self._wait(self._timeout_s, self._on_slow_head)

    def on_response_complete(self) -> None:
        """Go on; a head that began to arrive meanwhile has no longer than any other."""
        super().on_response_complete()
        if self._in_head and self.timeout_keep_alive_task is not None:
            self._wait(self._timeout_s, self._on_slow_head)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._unset_keepalive_if_required()
        self.url = b""
        self.headers = []
        self.expect_100_continue = self._has_coding = False
        self._hosts = 0
        self._in_head = self._made_progress = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, its name in lower case."""
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        elif name == b"transfer-encoding":
            self._has_coding = True
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Check the head; raises VitrineError."""
        if self._ends:
            raise BadInput("expected no request on a connection that ends")
        self._unset_keepalive_if_required()
        version = self.parser.get_http_version()
        if self._has_coding or self._measures_head or version != "1.1" or self._hosts != 1:
            self._check_head(version)
        self._keeps_alive = version == "1.1" and self.parser.should_keep_alive()
        self._head, self.headers = self.headers, _NO_TRAILERS
        self._in_head, self._in_body, self._made_progress = False, True, True

    def _check_head(self, version: str) -> None:
        """Refuse what another server on the way may read differently."""
        self._measures_head = False
        length = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if length > MAX_HEAD_BYTES:
            raise HeadTooLarge(
                f"expected headers of at most {MAX_HEAD_BYTES} bytes, got {length} bytes"
            )
        check_head(version, self.headers)

    def _begin_cycle(self) -> None:
        """Let uvicorn begin to answer the request whose head has arrived: through ASGI."""
        self._in_body = False  # until there is one whose handler could answer an error
        if self.parser.get_method() == b"CONNECT":
            raise NotSupported("CONNECT is not supported")
        url, expects = self.url, self.expect_100_continue
        super().on_message_begin()  # makes the scope
        self.url, self.expect_100_continue = url, expects
        self.scope["headers"], self.headers = self._head, _NO_TRAILERS
        super().on_headers_complete()
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        """Hand on a piece of the body."""
        self._made_progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole, unless llhttp only ends it where it asks for an upgrade."""
        if not self.parser.should_upgrade():
            self._in_body = False
            super().on_message_complete()


class _Callbacks:
    """What a parser calls on a connection, from when they `are_live`."""

    def __init__(self, connection: Framing) -> None:
        self._connection = connection
        self.are_live = False

    def __getattr__(self, name: str) -> Any:
        callback = getattr(self._connection, name)
        return lambda *found: callback(*found) if self.are_live else None
