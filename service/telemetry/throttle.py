"""Limits how many log lines one kind of event makes."""

import time

PERIOD_S = 10.0


class Throttle:
    """Lets `lines` lines through in each period; not for several threads."""

    def __init__(self, lines: int = 1, period_s: float = PERIOD_S) -> None:
        self._lines = lines
        self._period_s = period_s
        self._ends = 0.0
        self._left = 0

    def lets_through(self) -> bool:
        """Whether one more line may be written."""
        now = time.monotonic()
        if now >= self._ends:
            self._ends = now + self._period_s
            self._left = self._lines
        self._left -= 1
        return self._left >= 0
