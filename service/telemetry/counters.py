"""Counters, gauges and histograms, stored as doubles in memory that processes share.

prometheus_client's own cost 1 to 4 µs an update, a quarter of a small request's time; here an
update is an addition or two.
"""

from bisect import bisect_left
from collections.abc import Sequence

from service.telemetry.series import Values


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
    """A number that rises and falls."""

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
    """Records nothing, where metrics are off."""

    __slots__ = ()

    def inc(self) -> None:
        """Do nothing."""

    def set(self, value: float) -> None:
        """Do nothing."""


class SilentHistogram(Histogram):
    """Records nothing, where metrics are off."""

    __slots__ = ()

    def observe(self, value: float) -> None:
        """Do nothing."""
