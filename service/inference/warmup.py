"""Which batch sizes are warmed before a model is ready, and how long each takes."""

import time
from collections.abc import Callable, Sequence
from typing import Any

# Batches that take longer are timed once: noise is small beside their cost.
LONG_S = 0.005
TIMED_RUNS = 10


def powers_of_two(max_batch_size: int) -> tuple[int, ...]:
    """The powers of two below the largest batch, and the largest batch itself."""
    powers = {2**exponent for exponent in range(max_batch_size.bit_length())}
    return tuple(sorted(powers | {max_batch_size}))


def fastest_s(compute: Callable[[Sequence[Any]], object], batch: Sequence[Any]) -> float:
    """Seconds of the fastest of TIMED_RUNS runs; one run is enough if it takes LONG_S."""
    runs: list[float] = []
    while len(runs) < TIMED_RUNS and (not runs or runs[0] < LONG_S):
        started = time.perf_counter()
        compute(batch)
        runs.append(time.perf_counter() - started)
    return min(runs)
