import logging
import sys
from collections.abc import Callable

import pytest

from service.telemetry.repeats import (
    MAX_EXAMPLE_LENGTH,
    MAX_KINDS,
    MAX_LINES,
    PERIOD_S,
    Repeats,
)


class Clock:
    """Stands still until it is told otherwise."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def written(clock: Clock) -> Callable[..., list[str]]:
    repeats = Repeats(clock)

    def write(
        message: str, *args: object, level: int = logging.WARNING, **more: object
    ) -> list[str]:
        known = {"name": "vitrine", "levelno": level, "msg": message, "args": args}
        record = logging.makeLogRecord(known | more)
        return [each.getMessage() for each in repeats.admit(record)]

    return write


Written = Callable[..., list[str]]


def test_few_lines_are_all_written(written: Written) -> None:
    for number in range(MAX_LINES):
        assert written("so: %d", number) == [f"so: {number}"]


def test_one_too_many_is_left_out_and_counted_when_the_period_ends(
    written: Written, clock: Clock
) -> None:
    lines = [line for number in range(1000) for line in written("so: %d", number)]
    assert lines == [f"so: {number}" for number in range(MAX_LINES)]
    clock.now += PERIOD_S
    assert written("so: again") == [f"left out {1000 - MAX_LINES} more like: so: 999", "so: again"]


def test_count_comes_with_any_line(written: Written, clock: Clock) -> None:
    for _ in range(MAX_LINES + 1):
        written("so")
    clock.now += PERIOD_S
    assert written("shutting down", level=logging.INFO) == [
        "left out 1 more like: so", "shutting down",
    ]  # fmt: skip
    assert written("bye", level=logging.INFO) == ["bye"]


def test_nothing_is_counted_where_nothing_was_left_out(written: Written, clock: Clock) -> None:
    for _ in range(MAX_LINES):
        written("so")
    clock.now += PERIOD_S
    assert written("so") == ["so"]


def test_flood_is_a_few_lines_a_period_however_long_it_lasts(
    written: Written, clock: Clock
) -> None:
    lines = 0
    for _ in range(10_000):
        lines += len(written("so"))
        clock.now += PERIOD_S / 1000
    assert lines <= 11 * (MAX_LINES + 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("TIFFReadDirectory: unknown field 1", "TIFFFetch: unknown field 1"),
        ("no model 'a'", "no file 'a'"),
    ],
)
def test_other_kinds_are_still_written(written: Written, one: str, other: str) -> None:
    for _ in range(MAX_LINES + 1):
        written(one)
    assert written(one) == []
    assert written(other) == [other]
    assert written(one, name="uvicorn.error") == [one]
    assert written(one, level=logging.ERROR) == [one]
    assert written(one, exc_info=(ValueError, ValueError(), None)) == [one]


@pytest.mark.parametrize(
    "message", ["TIFFRead: tag {}", "tag {} is unknown", "no model '{}'", "a" * 40 + "{}"]
)
def test_what_a_client_may_choose_does_not_make_another_kind(
    written: Written, message: str
) -> None:
    lines = [line for number in range(1000) for line in written(message.format(number))]
    assert len(lines) == MAX_LINES


def test_requests_and_other_news_are_never_left_out(written: Written) -> None:
    for _ in range(1000):
        assert written("request", level=logging.INFO) == ["request"]


def letters(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


def test_kinds_without_end_take_no_memory_and_few_lines(written: Written, clock: Clock) -> None:
    lines = [line for number in range(10_000) for line in written(letters(number))]
    assert len(lines) == MAX_KINDS + MAX_LINES
    clock.now += PERIOD_S
    (count, _) = written("so")
    assert count.startswith(f"left out {10_000 - len(lines)} more like: ")


def test_only_the_beginning_of_a_line_that_is_left_out_is_kept(
    written: Written, clock: Clock
) -> None:
    for _ in range(MAX_LINES + 1):
        written("x" * 1_000_000)
    clock.now += PERIOD_S
    assert len(written("so")[0]) < MAX_EXAMPLE_LENGTH + 50


def test_line_that_is_left_out_keeps_nothing_alive(written: Written) -> None:
    error = ValueError("no such luck")
    before = sys.getrefcount(error)
    for _ in range(MAX_LINES + 1):
        written("so", exc_info=(ValueError, error, None))
    assert sys.getrefcount(error) == before
