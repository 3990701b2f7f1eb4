"""What goes back to the client: a body and its headers, or an error as `{"error": …}`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Self

import orjson
from starlette.types import Send

from service.errors import VitrineError
from service.tasks.task import JSON

# A browser is to go by the Content-Type, not by what a body looks like.
_NOSNIFF = (b"x-content-type-options", b"nosniff")
# Of every answer that does not say how long it may be kept.
_NO_STORE = (b"cache-control", b"no-store")
_NO_CONTENT = int(HTTPStatus.NO_CONTENT)


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response, to be sent in one piece."""

    body: bytes
    media_type: str = JSON
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def closing(self) -> Self:
        """The same, but the connection is closed after it (RFC 9112, section 9.6)."""
        return replace(self, headers={**self.headers, "Connection": "close"})

    @property
    def closes_connection(self) -> bool:
        """Whether no further request may come on its connection."""
        return "Connection" in self.headers

    async def send(self, send: Send, request_id: str, kind: str = "http") -> None:
        """Send it over ASGI; `kind` is "websocket.http" to deny a WebSocket."""
        headers = self.header_list(request_id)
        await send({"type": f"{kind}.response.start", "status": self.status, "headers": headers})
        await send({"type": f"{kind}.response.body", "body": self.body})

    def header_list(self, request_id: str) -> list[tuple[bytes, bytes]]:
        """Its headers as HTTP and ASGI have them."""
        headers = [(b"x-request-id", request_id.encode()), _NOSNIFF]
        if self.status != _NO_CONTENT:
            headers.append((b"content-type", self.media_type.encode()))
            headers.append((b"content-length", b"%d" % len(self.body)))
        if "Cache-Control" not in self.headers:
            headers.append(_NO_STORE)
        for name, value in self.headers.items():
            headers.append((name.lower().encode(), value.encode()))
        return headers


def json_response(content: Mapping[str, object]) -> Response:
    """An object as compact JSON in UTF-8."""
    return Response(orjson.dumps(content))


def error_response(error: VitrineError) -> Response:
    """`{"error": …}` with the error's status and headers."""
    body = json_response({"error": str(error)}).body
    return Response(body, status=error.status, headers=error.headers)
