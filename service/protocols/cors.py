"""Which pages of other origins may read answers (the Fetch standard's CORS protocol).

Never with credentials: a page that calls this server sends its token itself, in a header.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from service.protocols.request import Request
from service.protocols.response import Response

ANY = "*"
PREFLIGHT_MAX_AGE_S = 600
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Encoding, Content-Type, X-Request-ID, "
    "X-Request-Timeout-Ms",
    "Access-Control-Max-Age": str(PREFLIGHT_MAX_AGE_S),
}
_EXPOSED = {"Access-Control-Expose-Headers": "X-Request-ID, Retry-After"}
_VARY = {"Vary": "Origin"}


class Cors:
    """Adds the headers that let the pages of the given origins read an answer."""

    def __init__(self, origins: Sequence[str]) -> None:
        allowed = {origin: {"Access-Control-Allow-Origin": origin} | _EXPOSED for origin in origins}
        self._by_origin: dict[bytes, Mapping[str, str]] = {
            origin.encode(): headers | _VARY for origin, headers in allowed.items()
        }
        self._other: Mapping[str, str] = allowed.get(ANY, _VARY)

    def preflight(self, request: Request) -> Response | None:
        """The answer to what a browser asks before it sends a page's request; None for any other.

        It is the same for every path, with or without a token: it tells nothing of what is here.
        """
        asks = b"access-control-request-method" in request.headers
        if request.method != "OPTIONS" or not asks:
            return None
        if "Access-Control-Allow-Origin" not in self._headers(request):
            return None
        return Response(b"", status=204, headers=_PREFLIGHT)

    def allow(self, request: Request, response: Response) -> Response:
        """The response as the caller's origin may read it."""
        return replace(response, headers={**response.headers, **self._headers(request)})

    def _headers(self, request: Request) -> Mapping[str, str]:
        return self._by_origin.get(request.headers.get(b"origin", b""), self._other)
