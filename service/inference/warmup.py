"""Which batch sizes are warmed before a model is ready, and how long each takes."""

import time
from collections.abc import Callable, Sequence
from typing import Any

# Batches that take longer are not timed a second time: no noise hides what they cost.
LONG_S = 0.005
TIMED_RUNS = 10


def powers_of_two(max_batch_size: int) -> tuple[int, ...]:
    """The powers of two up to the largest batch, and that."""
    powers = {2**exponent for exponent in range(max_batch_size.bit_length())}
    return tuple(sorted(powers | {max_batch_size}))


def fastest_s(compute: Callable[[Sequence[Any]], object], batch: Sequence[Any]) -> float:
    """Seconds of the fastest of several runs, but only of the first where that is long."""
    runs: list[float] = []
    while len(runs) < TIMED_RUNS and (not runs or runs[0] < LONG_S):
        started = time.perf_counter()
        compute(batch)
        runs.append(time.perf_counter() - started)
    return min(runs)
