"""Authentication by bearer tokens (RFC 6750); the server knows only their SHA-256 digests."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.errors import Forbidden, SettingsError, Unauthorized

SCOPES = ("predict", "metrics", "admin")
"""What a token may be for; none implies another. No route needs `admin` yet."""
DEFAULT_SCOPES = ("predict", "metrics")

_SETTING = "VITRINE_API_TOKENS_FILE"
_DIGEST = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)
_BEARER = re.compile(rb"bearer +([!-~]+) *", re.IGNORECASE)


@dataclass(frozen=True)
class Token:
    """What is known of a token: its SHA-256, its name in the log, and what it is for."""

    digest: bytes
    name: str
    scopes: tuple[str, ...]

    def check_scope(self, needed: str) -> None:
        """Raise Forbidden unless the token has the scope."""
        if needed not in self.scopes:
            raise Forbidden(needed, self.scopes)


class Tokens:
    """The tokens that are accepted."""

    def __init__(self, known: Sequence[Token]) -> None:
        self.known = known

    def identify(self, headers: Sequence[tuple[bytes, bytes]]) -> Token:
        """The caller's token, by the request's headers; raises Unauthorized.

        A token anywhere but in the one header Authorization does not count.
        """
        sent = [value for name, value in headers if name == b"authorization"]
        bearer = _BEARER.fullmatch(sent[0]) if len(sent) == 1 else None
        if bearer is None:
            came = ("none", "another scheme", f"{len(sent)} of them")[min(len(sent), 2)]
            raise Unauthorized(f"expected a header Authorization: Bearer TOKEN, got {came}")
        digest = hashlib.sha256(bearer[1]).digest()
        # All are compared, so that the time does not reveal which one is the closest.
        found = [token for token in self.known if hmac.compare_digest(digest, token.digest)]
        if not found:
            raise Unauthorized("unknown token")
        return found[0]


def read_tokens(file: Path) -> Tokens:
    """The tokens of a file, one a line: hexadecimal SHA-256, scopes, and its name after `#`.

    Raises SettingsError, which never shows what the file holds: it may be a token by mistake.
    """
    try:
        lines = file.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise SettingsError(f"{_SETTING}: expected a file of digests at {file}: {why}") from None
    known: dict[bytes, Token] = {}
    for number, line in enumerate(lines, start=1):
        if not line.partition("#")[0].strip():
            continue
        try:
            token = _parse(line)
            if token.digest in known:
                raise ValueError("expected each digest once, got one again")
        except ValueError as error:
            raise SettingsError(f"{_SETTING}: {file}, line {number}: {error}") from None
        known[token.digest] = token
    if not known:
        raise SettingsError(f"{_SETTING}: expected at least one digest in {file}, got none")
    return Tokens([*known.values()])


def _parse(line: str) -> Token:
    """The token of one line; raises ValueError."""
    before, _, comment = line.partition("#")
    digest, *rest = before.split(maxsplit=1)
    if not _DIGEST.fullmatch(digest):
        raise ValueError(
            "expected a SHA-256 of 64 hexadecimal digits, "
            f"got other text of {len(digest)} characters"
        )
    scopes = tuple(scope.strip() for scope in rest[0].split(",")) if rest else DEFAULT_SCOPES
    if not set(scopes) <= set(SCOPES):
        raise ValueError(
            f"expected scopes of {', '.join(SCOPES)}, separated by commas, "
            f"got other text of {len(rest[0].strip())} characters"
        )
    return Token(bytes.fromhex(digest), comment.strip() or digest[:8].lower(), scopes)
