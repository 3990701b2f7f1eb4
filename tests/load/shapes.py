"""How many users there are at each moment of a run."""

from collections.abc import Callable

STEP = "step"
"""The shape that rises until it finds the capacity; the others know beforehand what comes."""
SOAK_RAMP = 0.1  # of the run
SPIKE_BASE = 0.1  # of the users


def ramp(share: float) -> float:
    """From nobody to all over three quarters of the run; then all stay."""
    return min(1.0, share / 0.75)


def spike(share: float) -> float:
    """A tenth of the users, all of them at once for the middle third, and a tenth again."""
    return 1.0 if 1 / 3 <= share < 2 / 3 else SPIKE_BASE


def soak(share: float) -> float:
    """All users for the whole run, after a short ramp."""
    return min(1.0, share / SOAK_RAMP)


SHAPES: dict[str, Callable[[float], float]] = {"ramp": ramp, "spike": spike, "soak": soak}
"""By name; each takes the share of the run that has passed, gives the share of the users."""


def users_at(shape: str, share: float, peak_users: int) -> int:
    """How many users there are once `share` of the run has passed; at least one."""
    return max(1, round(peak_users * SHAPES[shape](share)))


def step_users(peak_users: int, steps: int) -> list[int]:
    """The users of each step: equal steps up to the peak."""
    return [max(1, round(peak_users * number / steps)) for number in range(1, steps + 1)]
