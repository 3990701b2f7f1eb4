"""At most a few log lines of one kind in a while; one line with a count stands for the others."""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

MAX_LINES = 5
"""Of one kind in one period, before the line with the count."""
PERIOD_S = 10.0
MAX_KINDS = 100

MAX_EXAMPLE_LENGTH = 200

# What begins alike is of one kind: a number, a quotation or what follows a colon is its content.
_BEGINNING = re.compile(r"[^:\d'\"]{0,40}")


class _Key(NamedTuple):
    logger: str
    level: int
    beginning: str
    error: str


_OTHERS = _Key(__name__, logging.WARNING, "", "")


@dataclass(slots=True)
class _Kind:
    ends: float
    lines: int = 0
    example: str = ""
    """The last message that was left out."""


class Repeats:
    """Tells which warnings and errors to write; no flood of them fills the log or the memory."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[_Key, _Kind] = {}

    def admit(self, record: logging.LogRecord) -> list[logging.LogRecord]:
        """What to write now: the record, unless it is one too many, after counts that are due."""
        now = self._clock()
        records = self._end_periods(now)
        if record.levelno < logging.WARNING:
            return [*records, record]
        message = record.getMessage()
        key = _key(record, message)
        if key not in self._kinds and len(self._kinds) >= MAX_KINDS:
            key = _OTHERS
        if key not in self._kinds:
            self._kinds[key] = _Kind(now + PERIOD_S)
        kind = self._kinds[key]
        kind.lines += 1
        if kind.lines <= MAX_LINES:
            return [*records, record]
        kind.example = message[:MAX_EXAMPLE_LENGTH]
        return records

    def _end_periods(self, now: float) -> list[logging.LogRecord]:
        """A line for each kind that had too many, for the periods that have ended."""
        ended = [key for key, kind in self._kinds.items() if kind.ends <= now]
        kinds = [(key, self._kinds.pop(key)) for key in ended]
        return [_count(key, kind) for key, kind in kinds if kind.lines > MAX_LINES]


def _key(record: logging.LogRecord, message: str) -> _Key:
    beginning = _BEGINNING.match(message)
    assert beginning is not None  # it may be empty
    error = record.exc_info[0] if record.exc_info else None
    return _Key(record.name, record.levelno, beginning[0], error.__name__ if error else "")


def _count(key: _Key, kind: _Kind) -> logging.LogRecord:
    left_out = kind.lines - MAX_LINES
    return logging.makeLogRecord(
        {
            "name": key.logger,
            "levelno": key.level,
            "levelname": logging.getLevelName(key.level),
            "msg": f"left out {left_out} more like: {kind.example}",
            "fields": {"left_out": left_out},
        }
    )
