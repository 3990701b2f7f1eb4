"""Counters in memory that the workers of a server share: one file a worker, mapped.

prometheus_client's own cost 1 to 4 µs an update, a quarter of a small request's time; here an
update is an addition or two. Only its worker writes a file; a worker that is started again goes on
in the file of the one that ended.
"""

import mmap
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Values: TypeAlias = "memoryview[float]"
_DOUBLE_BYTES = 8


class Counter:
    """A number that grows."""

    __slots__ = ("_slot", "_values")

    def __init__(self, values: Values, slot: int) -> None:
        self._values = values
        self._slot = slot

    def inc(self) -> None:
        """Add one."""
        self._values[self._slot] += 1.0


class Gauge(Counter):
    """A number that comes and goes."""

    __slots__ = ()

    def set(self, value: float) -> None:
        """Replace the number."""
        self._values[self._slot] = value


class Histogram:
    """How many observations fell into each bucket, and their sum."""

    __slots__ = ("_bounds", "_slot", "_sum_slot", "_values")

    def __init__(self, values: Values, slot: int, bounds: Sequence[float]) -> None:
        self._values = values
        self._slot = slot
        self._bounds = bounds
        self._sum_slot = slot + len(bounds) + 1

    def observe(self, value: float) -> None:
        """Count one observation."""
        self._values[self._slot + bisect_left(self._bounds, value)] += 1.0
        self._values[self._sum_slot] += value


class SilentGauge(Gauge):
    """Counts nothing."""

    __slots__ = ()

    def inc(self) -> None:
        """Do nothing."""

    def set(self, value: float) -> None:
        """Do nothing."""


class SilentHistogram(Histogram):
    """Counts nothing."""

    __slots__ = ()

    def observe(self, value: float) -> None:
        """Do nothing."""


def open_values(folder: Path | None, worker: int, count: int, kind: str = "requests") -> Values:
    """A worker's numbers of a kind; a folder of None keeps them to this process."""
    size = count * _DOUBLE_BYTES
    if folder is None:
        return memoryview(bytearray(size)).cast("d")
    with (folder / _file_name(kind, str(worker))).open("a+b") as file:
        # Noughts are written: where the disk is full, a page that only a longer size promises would
        # kill the process when it is first touched.
        file.write(bytes(max(0, size - file.tell())))
        file.truncate(size)
        return memoryview(mmap.mmap(file.fileno(), size)).cast("d")


def total_values(folder: Path, count: int, kind: str = "requests") -> npt.NDArray[np.float64]:
    """The sum of the numbers of a kind over all workers."""
    totals = np.zeros(count)
    for file in folder.glob(_file_name(kind, "*")):
        values = np.fromfile(file, dtype=np.float64)
        if values.size == count:  # else its worker is only just beginning
            totals += values
    return totals


def _file_name(kind: str, worker: str) -> str:
    return f"{kind}-{worker}.doubles"
