from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from service.inference.warmup import LONG_S, TIMED_RUNS, fastest_s, powers_of_two


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (33, (1, 2, 4, 8, 16, 32, 33))],
)
def test_sizes_are_the_powers_of_two_and_the_largest(largest: int, sizes: tuple[int, ...]) -> None:
    assert powers_of_two(largest) == sizes


class Clock:
    """A clock that every run moves on, by the next of some seconds; the last one stays."""

    def __init__(self, *seconds: float) -> None:
        self.now = 0.0
        self.batches: list[Sequence[int]] = []
        self._seconds = seconds

    def perf_counter(self) -> float:
        return self.now

    def compute(self, batch: Sequence[int]) -> None:
        self.now += self._seconds[min(len(self.batches), len(self._seconds) - 1)]
        self.batches.append(batch)


@pytest.mark.parametrize(
    ("seconds", "runs", "fastest"),
    [
        ((0.001,), TIMED_RUNS, 0.001),
        ((0.004, 0.003, 0.002, 0.001, 0.002), TIMED_RUNS, 0.001),
        ((LONG_S, 0.001), 1, LONG_S),
        ((0.001, 1.0), TIMED_RUNS, 0.001),
    ],
)
def test_fastest_run_counts_and_a_long_one_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, ...], runs: int, fastest: float
) -> None:
    clock = Clock(*seconds)
    fake = SimpleNamespace(perf_counter=clock.perf_counter)
    monkeypatch.setattr("service.inference.warmup.time", fake)
    assert fastest_s(clock.compute, [7, 8]) == pytest.approx(fastest)
    assert clock.batches == [[7, 8]] * runs
