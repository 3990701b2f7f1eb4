"""Every error that Vitrine raises on purpose, and the HTTP status of each.

VitrineError
├── RequestError              the caller can fix it
│   ├── BadInput          400
│   ├── Unauthorized      401
│   ├── Forbidden         403
│   ├── UnknownModel      404
│   ├── UnknownRoute      404
│   ├── WrongMethod       405
│   ├── TooSlow           408
│   ├── TooLarge          413
│   ├── UnsupportedImage  415
│   │   └── UnsupportedCoding  415
│   ├── TooManyRequests   429
│   └── HeadTooLarge      431
├── NotSupported          501  a part of HTTP that is not there
├── Unavailable           503  not ready, or overloaded
├── DeadlinePassed        504
├── ClientGone            499  only for the log and the metrics
└── StartError                 stops the start; never becomes an answer
    ├── ArtifactError
    └── SettingsError
"""

from collections.abc import Sequence
from typing import ClassVar


class VitrineError(Exception):
    """An error whose message says what was expected, what came, and the limit."""

    status: ClassVar[int] = 500

    @property
    def headers(self) -> dict[str, str]:
        """Headers that go with the answer."""
        return {}


class RequestError(VitrineError):
    """An error of the caller."""

    status = 400


class BadInput(RequestError):
    """An image or a parameter that cannot be used."""


class Unauthorized(RequestError):
    """No token that is known, or no certificate of the client."""

    status = 401

    def __init__(self, message: str, scheme: str = "Bearer") -> None:
        super().__init__(message)
        self._scheme = scheme

    @property
    def headers(self) -> dict[str, str]:
        """WWW-Authenticate (RFC 9110, section 11.6.1), Bearer by default (RFC 6750, section 3)."""
        return {"WWW-Authenticate": f'{self._scheme} realm="vitrine"'}


class Forbidden(RequestError):
    """A known token without the scope that the route needs."""

    status = 403

    def __init__(self, needed: str, held: Sequence[str]) -> None:
        super().__init__(
            f"expected a token with the scope {needed}, got one with {', '.join(held)}"
        )
        self.needed = needed

    @property
    def headers(self) -> dict[str, str]:
        """WWW-Authenticate (RFC 6750, section 3.1)."""
        about = f'error="insufficient_scope", scope="{self.needed}"'
        return {"WWW-Authenticate": f'Bearer realm="vitrine", {about}'}


class UnknownModel(RequestError):
    """No such model, or no such version of it."""

    status = 404


class UnknownRoute(RequestError):
    """No such path."""

    status = 404


class WrongMethod(RequestError):
    """The path exists, for another method."""

    status = 405

    def __init__(self, message: str, allowed: Sequence[str]) -> None:
        super().__init__(message)
        self.allowed = allowed

    @property
    def headers(self) -> dict[str, str]:
        """Allow (RFC 9110, section 10.2.1)."""
        return {"Allow": ", ".join(self.allowed)}


class TooSlow(RequestError):
    """The headers of a request, or a body that holds memory, that do not arrive in time."""

    status = 408

    @property
    def headers(self) -> dict[str, str]:
        """Connection (RFC 9110, section 15.5.9)."""
        return {"Connection": "close"}


class TooLarge(RequestError):
    """More bytes, pixels or images than the limit allows."""

    status = 413


class UnsupportedImage(RequestError):
    """An image of a type that is not read."""

    status = 415


class UnsupportedCoding(UnsupportedImage):
    """A body in a Content-Encoding that is not decoded."""

    def __init__(self, message: str, codings: Sequence[str]) -> None:
        super().__init__(message)
        self.codings = codings

    @property
    def headers(self) -> dict[str, str]:
        """Accept-Encoding (RFC 9110, section 15.5.16)."""
        return {"Accept-Encoding": ", ".join(self.codings)}


class TooManyRequests(RequestError):
    """More requests a second than a token may send; the next may come after `retry_after_s`."""

    status = 429

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """Retry-After, in seconds (RFC 6585, section 4)."""
        return {"Retry-After": str(self.retry_after_s)}


class HeadTooLarge(RequestError):
    """A URL and headers of more bytes than the limit allows."""

    status = 431


class NotSupported(VitrineError):
    """A part of HTTP that is not there for any route."""

    status = 501


class Unavailable(VitrineError):
    """Not ready, or overloaded; `retry_after_s` is when another try may succeed."""

    status = 503

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """Retry-After, in seconds (RFC 9110, section 10.2.3)."""
        return {"Retry-After": str(self.retry_after_s)}


class ClientGone(VitrineError):
    """The client has closed its connection: nobody will read the answer."""

    status = 499


class DeadlinePassed(VitrineError):
    """The answer would have come too late."""

    status = 504


class StartError(VitrineError):
    """The service cannot start."""


class ArtifactError(StartError):
    """An artifact that is missing, incomplete, altered or wrong."""


class SettingsError(StartError):
    """A setting that is unknown or has an unusable value."""
