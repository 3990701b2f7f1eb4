"""One HTTP request, read from ASGI once; what it asks of a model goes into its Call."""

import asyncio
import os
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable

from starlette.datastructures import QueryParams
from starlette.types import Message, Receive, Scope

from service.call import Call
from service.errors import BadInput, ClientGone, TooLarge, Unavailable
from service.inference.budget import SMALL_BYTES, Reservation, Share
from service.protocols.content_coding import check_coding, decode
from service.protocols.pace import Pace
from service.protocols.tokens import Token

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_MAX_TIMEOUT_DIGITS = 9
# Memory for a body of undeclared size is taken in steps of this.
_STEP_BYTES = 1_000_000


class Request:
    """Method, path, headers and body of a request."""

    __slots__ = (
        "_held", "_receive", "_watch", "_watches", "call", "client_name", "headers", "method",
        "path", "query", "raw_headers", "share_of_body", "token",
    )  # fmt: skip

    def __init__(
        self, scope: Scope, receive: Receive, is_gone: Callable[[], bool] | None = None
    ) -> None:
        """`is_gone` tells whether the client has left; without it, the request finds out."""
        # Not the scope itself: it leads back here, and cycles wait for the garbage collector.
        self.raw_headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._receive = receive
        self._watch: asyncio.Task[None] | None = None
        self._watches = is_gone is None
        self.share_of_body: Callable[[int | None], Share] | None = None
        """What memory for a body of a size is taken from; None counts none."""
        self._held: Reservation | None = None
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.headers: dict[bytes, bytes] = dict(self.raw_headers)
        self.client_name: str = scope.get("state", {}).get("client_name", "")
        """The name in the client's certificate; empty without one."""
        self.token: Token | None = None
        """The caller's token, once it is known."""
        self.call = Call("other", request_id(self.headers))
        if is_gone is not None:
            self.call.is_gone = is_gone

    @property
    def content_type(self) -> str:
        """The media type of the body, without parameters, in lower case."""
        whole = self.headers.get(b"content-type", b"").decode("latin-1")
        return whole.partition(";")[0].strip().lower()

    def query_params(self) -> dict[str, str]:
        """The query's parameters; raises BadInput for one that is repeated."""
        if not self.query:
            return {}
        pairs = QueryParams(self.query).multi_items()
        params = dict(pairs)
        if len(params) < len(pairs):
            ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
            raise BadInput(f"expected query parameter {twice!r:.80} once, got it twice")
        return params

    def set_timeout(self, limit_s: float) -> float:
        """Set the deadline: the limit, or sooner if the client asks; returns the timeout in s.

        Raises BadInput for an X-Request-Timeout-Ms that is not a whole number of at least 1.
        """
        call = self.call
        call.deadline = call.started + limit_s
        asked = self.headers.get(b"x-request-timeout-ms")
        if asked is None:
            return limit_s
        if not asked.isdigit() or not asked.strip(b"0"):
            text = asked.decode("latin-1")
            raise BadInput(
                f"expected X-Request-Timeout-Ms as a whole number of at least 1, got {text!r:.80}"
            )
        asked_s = int(asked.lstrip(b"0")[:_MAX_TIMEOUT_DIGITS]) / 1000
        timeout_s = min(limit_s, asked_s)
        call.deadline = call.started + timeout_s
        return timeout_s

    async def body(self, max_bytes: int) -> bytes:
        """The whole body, an image, decoded, once there is memory for it.

        Raises TooLarge as soon as it exceeds `max_bytes`, Unavailable and TooSlow as `stream` does,
        BadInput or UnsupportedCoding for a Content-Encoding that cannot be decoded.
        """
        if b"content-encoding" in self.headers:
            decoded = bytearray()
            async for piece in self.stream(max_bytes):
                decoded += piece
            return bytes(decoded)
        declared = declared_length(self.headers)
        if declared > max_bytes:
            raise TooLarge(f"expected an image of at most {max_bytes} bytes, got {declared} bytes")
        if declared > SMALL_BYTES:
            await self._reserve(declared, max_bytes)
        message = await self._next()
        if not message.get("more_body"):
            whole: bytes = message["body"]
            self._watch_disconnect()
            return whole
        body = bytearray(message["body"])
        self._grow(len(body))
        while message.get("more_body"):
            message = await self._next()
            body += message["body"]
            if len(body) > max_bytes:
                raise TooLarge(f"expected an image of at most {max_bytes} bytes, got more")
            self._grow(len(body))
        self._watch_disconnect()
        return bytes(body)

    def stream(self, max_bytes: int) -> AsyncGenerator[bytes, None]:
        """The body, decoded, piece by piece, once there is memory for it.

        Raises TooLarge as soon as it exceeds `max_bytes`, Unavailable where its size was not
        declared and there is no memory for the rest, TooSlow where it does not go on coming though
        it holds memory, BadInput or UnsupportedCoding for a Content-Encoding that cannot be
        decoded.
        """
        if b"content-encoding" in self.headers:
            return self._decoded(max_bytes)
        return self._pieces(max_bytes)

    async def _decoded(self, max_bytes: int) -> AsyncGenerator[bytes, None]:
        sent = [value for name, value in self.raw_headers if name == b"content-encoding"]
        coding = check_coding(b", ".join(sent).decode("latin-1"))
        pieces = self._pieces(max_bytes)
        decoded = pieces if coding == "identity" else decode(pieces, coding)
        size = 0
        async for piece in decoded:
            size += len(piece)
            if size > max_bytes:
                raise TooLarge(
                    f"expected a body of at most {max_bytes} bytes, got more in {coding}"
                )
            self._grow(size)
            yield piece

    async def _pieces(self, max_bytes: int) -> AsyncGenerator[bytes, None]:
        declared = declared_length(self.headers)
        if declared > SMALL_BYTES:
            await self._reserve(declared, max_bytes)
        received = 0
        more = True
        while more:
            message = await self._next()
            received += len(message["body"])
            if received > max_bytes:
                raise TooLarge(f"expected a body of at most {max_bytes} bytes, got more")
            self._grow(received)
            yield message["body"]
            more = message.get("more_body", False)
        self._watch_disconnect()

    async def _reserve(self, declared: int, max_bytes: int) -> None:
        """Wait for memory for a body of declared size before any of it is read."""
        if self.share_of_body is not None:
            size = min(declared, max_bytes)  # it is read no further
            share = self.share_of_body(size)
            self._hold(await share.reserve(size, "a body", self.call.is_gone))

    def _hold(self, memory: Reservation) -> None:
        """From now on the rest of the body has to come quickly."""
        self._held = memory
        if self._watches:  # else it is there
            self._receive = Pace(self._receive).receive

    def _grow(self, size: int) -> None:
        """Hold memory for so much of a body; one of undeclared size must not wait with its part."""
        if self.share_of_body is None or size <= SMALL_BYTES:
            return
        if self._held is None:
            self._hold(Reservation(self.share_of_body(None), 0))
        assert self._held is not None
        if size <= self._held.count:
            return
        budget = self._held.share.budget
        if size > budget.limit:
            raise TooLarge(
                f"expected a body of at most {budget.limit} bytes ({budget.origin}), got more"
            )
        if not self._held.grow_to(min(size + _STEP_BYTES, budget.limit)):
            raise Unavailable(
                f"no memory for more than {size} bytes of a body whose size was not declared"
            )

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client closed its connection before its request was complete")
        return message

    def _watch_disconnect(self) -> None:
        """After the body is read, wait for http.disconnect: ASGI reports it only to a receiver."""
        if self._watches:
            self._watch = asyncio.get_running_loop().create_task(self._disconnected())
            self.call.is_gone = self._watch.done

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def release(self) -> None:
        """Give back the memory of the body."""
        if self._held is not None:
            self._held.release()

    def close(self) -> None:
        """Stop waiting for the client to disconnect."""
        if self._watch is not None:
            self._watch.cancel()


def declared_length(headers: dict[bytes, bytes]) -> int:
    """The bytes of a body by its Content-Length, 0 without one.

    The HTTP parser has checked that it is a number below 2**64, but not how many zeros it begins
    with; int() refuses more than 4,300 digits.
    """
    digits = headers.get(b"content-length", b"0")
    if len(digits) > 20:
        digits = digits.strip().lstrip(b"0") or b"0"
    return int(digits)


def request_id(headers: dict[bytes, bytes]) -> str:
    """The caller's X-Request-ID if it is usable, else a new one."""
    sent = headers.get(b"x-request-id")
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent.decode("ascii")
    return os.urandom(16).hex()
