"""A limit on requests a second by token, over all workers of the server.

The generic cell rate algorithm (ITU-T I.371, annex A): of each token one number is kept, the time
at which its next request is due.
"""

import math
from pathlib import Path

from service.errors import TooManyRequests
from service.protocols.tokens import Token, Tokens
from service.shared import Doubles, keyed_doubles, shared_doubles

BURST_S = 1.0
"""A token that was idle may send at once what it may send in this time, and at least one."""
# Of an interval: sums of many intervals are not exact.
_ROUNDING = 0.01
# Further ahead than by this is only what a folder has kept from before the machine was started.
_STALE_S = 60.0


class RateLimit:
    """At most `per_s` requests a second from each token; the workers share `folder`.

    Two workers that take at the same microsecond may count one request: a write is atomic, an
    addition is not, and a lock that a hung worker holds would stop the others.
    """

    def __init__(self, per_s: float, folder: Path | None) -> None:
        self._per_s = per_s
        self._interval_s = 1 / per_s
        self._most_ahead_s = max(BURST_S, self._interval_s) - (1 - _ROUNDING) * self._interval_s
        self._folder = folder
        self._due: dict[bytes, Doubles] = {}

    def watch(self, tokens: Tokens) -> None:
        """Make a place for each token; one that has a place keeps it. Raises OSError."""
        digests = [token.digest for token in tokens.known]
        if self._folder is not None:
            self._due = keyed_doubles(self._folder / "rates", digests)
        else:
            self._due = {
                digest: self._due.get(digest) or shared_doubles(None, "", 1) for digest in digests
            }

    def take(self, token: Token, now_s: float) -> None:
        """Count one request at a time of time.monotonic; raises TooManyRequests."""
        due = self._due.get(token.digest)
        if due is None:  # it was let in, and is not known any more since then
            return
        ahead_s = max(0.0, due[0] - now_s)
        if ahead_s > self._most_ahead_s + self._interval_s + _STALE_S:
            ahead_s = 0.0
        if ahead_s > self._most_ahead_s:
            raise TooManyRequests(
                f"expected at most {self._per_s:g} requests a second with this token, got more",
                max(1, math.ceil(ahead_s - self._most_ahead_s)),
            )
        due[0] = now_s + ahead_s + self._interval_s
