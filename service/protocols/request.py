"""One HTTP request: read from ASGI once, and what is known of it when it ends."""

import re
import secrets
import time
from collections.abc import AsyncGenerator

from starlette.datastructures import QueryParams
from starlette.types import Message, Receive, Scope

from service.errors import BadInput, ClientGone, TooLarge

PROBES = ("/livez", "/readyz", "/healthz", "/metrics")
"""Paths that are asked for again and again: neither logged nor traced."""

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_MAX_TIMEOUT_DIGITS = 9


class Request:
    """A request and its record for the log and the metrics; times in seconds, over all images."""

    __slots__ = (
        "batch_size", "deadline", "headers", "images", "method", "model", "path", "protocol",
        "query", "raw_headers", "receive", "request_id", "stages", "started", "version",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.started = time.perf_counter()
        self.deadline = self.started
        # Not the scope itself: it leads back here, and cycles wait for the garbage collector.
        self.raw_headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.receive = receive
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.headers: dict[bytes, bytes] = dict(self.raw_headers)
        self.request_id = request_id(self.headers)
        self.protocol = "other"
        self.model = ""
        self.version = ""
        self.images = 0
        self.batch_size = 0
        self.stages: list[tuple[str, float, float]] = []
        """Of each image: the stage, when it began (as time.perf_counter tells), and its seconds."""

    @property
    def content_type(self) -> str:
        """The media type of the body, without parameters, in lower case."""
        whole = self.headers.get(b"content-type", b"").decode("latin-1")
        return whole.partition(";")[0].strip().lower()

    def query_params(self, *allowed: str) -> dict[str, str]:
        """The query's parameters; raises BadInput for one that is unknown or repeated."""
        if not self.query:
            return {}
        pairs = QueryParams(self.query).multi_items()
        params = dict(pairs)
        if len(params) < len(pairs) or not params.keys() <= set(allowed):
            known = f"at most {', '.join(allowed)} once" if allowed else "none"
            names = ", ".join(name for name, _ in pairs)
            raise BadInput(f"expected of query parameters {known}, got {names:.80}")
        return params

    def set_timeout(self, limit_s: float) -> float:
        """Set the deadline: the limit, or sooner if the client asks; returns the timeout in s.

        Raises BadInput for an X-Request-Timeout-Ms that is not a whole number of at least 1.
        """
        self.deadline = self.started + limit_s
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
        self.deadline = self.started + timeout_s
        return timeout_s

    async def body(self, max_bytes: int) -> bytes:
        """The whole body, an image; raises TooLarge as soon as it exceeds `max_bytes`."""
        declared = self.headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > max_bytes:
            raise TooLarge(
                f"expected an image of at most {max_bytes} bytes, got {int(declared)} bytes"
            )
        message = await self._receive()
        if not message.get("more_body"):
            whole: bytes = message["body"]
            return whole
        body = bytearray(message["body"])
        while message.get("more_body"):
            message = await self._receive()
            body += message["body"]
            if len(body) > max_bytes:
                raise TooLarge(f"expected an image of at most {max_bytes} bytes, got more")
        return bytes(body)

    async def stream(self, max_bytes: int) -> AsyncGenerator[bytes, None]:
        """The body, piece by piece; raises TooLarge as soon as it exceeds `max_bytes`."""
        received = 0
        more = True
        while more:
            message = await self._receive()
            received += len(message["body"])
            if received > max_bytes:
                raise TooLarge(f"expected a body of at most {max_bytes} bytes, got more")
            yield message["body"]
            more = message.get("more_body", False)

    async def _receive(self) -> Message:
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client closed its connection before its request was complete")
        return message

    def is_gone(self) -> bool:
        """Whether the client has closed its connection; to be asked once the body is read.

        Looks whether an ASGI message lies there, without waiting for one.
        """
        waiting = self.receive().__await__()
        try:
            next(waiting)
        except StopIteration as arrived:
            gone: bool = arrived.value["type"] == "http.disconnect"
            return gone
        waiting.close()
        return False

    def stages_s(self) -> dict[str, float]:
        """The seconds that all images together spent in each stage."""
        totals: dict[str, float] = {}
        for stage, _, seconds in self.stages:
            totals[stage] = totals.get(stage, 0.0) + seconds
        return totals


def request_id(headers: dict[bytes, bytes]) -> str:
    """The caller's X-Request-ID if it is usable, else a new one."""
    sent = headers.get(b"x-request-id")
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent.decode("ascii")
    return secrets.token_hex(16)
