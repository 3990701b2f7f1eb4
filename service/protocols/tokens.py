"""Authentication by bearer tokens (RFC 6750); the server knows only their SHA-256 digests."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from pathlib import Path

from service.errors import SettingsError, Unauthorized

_DIGEST = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)
_BEARER = re.compile(rb"bearer +([!-~]+) *", re.IGNORECASE)


class Tokens:
    """The digests of the accepted tokens, with a name each; None lets everybody in."""

    def __init__(self, names: Mapping[bytes, str] | None = None) -> None:
        self._names = names

    def identify(self, headers: Mapping[bytes, bytes]) -> str:
        """The name of the caller's token, "" where none is needed; raises Unauthorized."""
        if self._names is None:
            return ""
        sent = headers.get(b"authorization")
        bearer = _BEARER.fullmatch(sent) if sent else None
        if bearer is None:
            came = "another scheme" if sent else "none"
            raise Unauthorized(f"expected a header Authorization: Bearer TOKEN, got {came}")
        digest = hashlib.sha256(bearer[1]).digest()
        # All are compared, so that the time does not reveal which one is the closest.
        found = [name for known, name in self._names.items() if hmac.compare_digest(digest, known)]
        if not found:
            raise Unauthorized("unknown token")
        return found[0]


def read_tokens(file: Path | None) -> Tokens:
    """The tokens of a file: one hexadecimal SHA-256 per line, its name after `#`.

    Raises SettingsError, which never shows what the file holds: it may be a token by mistake.
    """
    if file is None:
        return Tokens()
    name = "VITRINE_API_TOKENS_FILE"
    try:
        lines = [line.partition("#") for line in file.read_text("ascii").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise SettingsError(f"{name}: expected a file of digests at {file}: {why}") from None
    names: dict[bytes, str] = {}
    for number, (before, _, comment) in enumerate(lines, start=1):
        digest = before.strip()
        if digest and not _DIGEST.fullmatch(digest):
            raise SettingsError(
                f"{name}: {file}, line {number}: expected a SHA-256 of 64 hexadecimal digits, "
                f"got other text of {len(digest)} characters"
            )
        if digest:
            names[bytes.fromhex(digest)] = comment.strip() or digest[:8].lower()
    if not names:
        raise SettingsError(f"{name}: expected at least one digest in {file}, got none")
    return Tokens(names)
