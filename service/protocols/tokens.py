"""Who may ask: bearer tokens (RFC 6750), of which the server knows the SHA-256 digests alone."""

import hashlib
import hmac
import re
from pathlib import Path

from service.errors import SettingsError, Unauthorized

_DIGEST = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)
_BEARER = re.compile(rb"bearer +([!-~]+) *", re.IGNORECASE)


class Tokens:
    """The digests of the tokens that are taken; None stands for no tokens: everybody may ask."""

    def __init__(self, digests: tuple[bytes, ...] | None = None) -> None:
        self._digests = digests

    def denial(self, headers: dict[bytes, bytes]) -> Unauthorized | None:
        """What to answer to a request whose headers hold no token that is taken."""
        if self._digests is None:
            return None
        sent = headers.get(b"authorization")
        bearer = _BEARER.fullmatch(sent) if sent else None
        if bearer is None:
            came = "another scheme" if sent else "none"
            return Unauthorized(f"expected a header Authorization: Bearer TOKEN, got {came}")
        digest = hashlib.sha256(bearer[1]).digest()
        # All of them are compared, so that the time tells nothing of which one is the closest.
        if not sum([hmac.compare_digest(digest, known) for known in self._digests]):
            return Unauthorized("expected a token that is known here, got another")
        return None


def read_tokens(file: Path | None) -> Tokens:
    """The tokens of a file: a SHA-256 in hexadecimal a line, `#` begins a comment.

    Raises SettingsError, which never shows what the file holds: it may be a token by mistake.
    """
    if file is None:
        return Tokens()
    name = "VITRINE_API_TOKENS_FILE"
    try:
        lines = [line.partition("#")[0].strip() for line in file.read_text("ascii").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise SettingsError(f"{name}: expected a file of digests at {file}: {why}") from None
    for number, line in enumerate(lines, start=1):
        if line and not _DIGEST.fullmatch(line):
            raise SettingsError(
                f"{name}: {file}, line {number}: expected a SHA-256 of 64 hexadecimal digits, "
                f"got {len(line)} characters that are none"
            )
    digests = tuple(bytes.fromhex(line) for line in lines if line)
    if not digests:
        raise SettingsError(f"{name}: expected at least one digest in {file}, got none")
    return Tokens(digests)
