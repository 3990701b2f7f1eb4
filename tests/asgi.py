"""Requests as an ASGI server hands them over, and a whole app in this process, without a server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import httpx
from starlette.types import Message

from service.protocols.request import Request
from service.server.app import App
from service.server.front import Front
from service.settings import Settings

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


@contextlib.contextmanager
def in_process(**settings: Any) -> Iterator[httpx.Client]:
    """A client of an app in this process, with one worker and the given settings."""
    app = App(Settings(**({"workers": 1} | settings)))
    try:
        with client_of(app) as client:
            yield client
    finally:
        app.close()


def client_of(app: App) -> httpx.Client:
    """A client that an app in this process answers; the caller closes it."""
    return httpx.Client(transport=_InProcess(app), base_url="http://vitrine")


class _InProcess(httpx.BaseTransport):
    """Sends requests to an app on an event loop of its own, one after the other."""

    def __init__(self, app: App) -> None:
        self._runner = asyncio.Runner()
        self._transport = httpx.ASGITransport(Front(lambda: app))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._runner.run(self._answer(request))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        asked = httpx.Request(
            request.method, request.url, headers=request.headers, stream=_Async(request.stream)
        )
        answer = await self._transport.handle_async_request(asked)
        body = await answer.aread()
        return httpx.Response(answer.status_code, headers=answer.headers, content=body)

    def close(self) -> None:
        self._runner.close()


class _Async(httpx.AsyncByteStream):
    """A stream that an asynchronous transport can read."""

    def __init__(self, stream: httpx.SyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._stream:
            yield part
