"""Requests as an ASGI server hands them over, without a server."""

import asyncio
from collections.abc import Iterator, Mapping

from starlette.types import Message

from service.protocols.request import Request

DISCONNECT: Message = {"type": "http.disconnect"}


def body_part(data: bytes, *, more: bool = False) -> Message:
    """A message with a part of the body."""
    return {"type": "http.request", "body": data, "more_body": more}


def request(
    *messages: Message,
    method: str = "POST",
    path: str = "/",
    query: str = "",
    headers: Mapping[str, str] | None = None,
) -> Request:
    """A request whose client sends the given messages, and then nothing."""
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [
            (name.lower().encode(), value.encode("latin-1"))
            for name, value in (headers or {}).items()
        ],
    }
    coming: Iterator[Message] = iter(messages)

    async def receive() -> Message:
        for message in coming:
            return message
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    return Request(scope, receive)
