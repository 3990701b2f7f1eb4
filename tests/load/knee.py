"""Where more users stop to mean more answers: the capacity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.load.objectives import Objectives, p99_over

# Of the throughput that the added users brought so far, on average: with less, the load has gone
# past the knee. In between, throughput grows by waiting longer.
MIN_GAIN = 0.25


@dataclass(frozen=True)
class Step:
    """What was measured at one number of users; p99 by cost of the model, in ms."""

    users: int
    requests_per_s: float
    p99_ms: Mapping[str, float]
    error_ratio: float


@dataclass(frozen=True)
class Knee:
    """The last step that was good, if any was, and why the next was not."""

    capacity: Step | None
    reason: str

    def text(self) -> str:
        """One line for people."""
        if self.capacity is None:
            return f"capacity: below the first step: {self.reason}"
        return f"capacity: {step_text(self.capacity)}; beyond it {self.reason}"


def find_knee(
    steps: Sequence[Step], objectives: Objectives, min_gain: float = MIN_GAIN
) -> Knee | None:
    """The knee of steps with ever more users; None if all of them are below it."""
    good: Step | None = None
    for step in steps:
        reason = _broken(step, good, objectives, min_gain)
        if reason:
            return Knee(good, f"with {step.users} users {reason}")
        good = step
    return None


def step_text(step: Step) -> str:
    """One line for people."""
    p99 = ", ".join(f"{cost} {ms:.0f} ms" for cost, ms in step.p99_ms.items())
    return f"{step.requests_per_s:.0f} requests/s with {step.users} users, p99 {p99}"


def _broken(step: Step, before: Step | None, objectives: Objectives, min_gain: float) -> str | None:
    if step.error_ratio > objectives.max_error_ratio:
        return f"the error ratio is {step.error_ratio:.4f}"
    over = p99_over(step.p99_ms, objectives.max_p99_ms)
    if over:
        return f"the p99 of {over} models is {step.p99_ms[over]:.0f} ms"
    if before is None:
        return None
    promised = before.requests_per_s / before.users * (step.users - before.users)
    gained = step.requests_per_s - before.requests_per_s
    if gained < min_gain * promised:
        return f"there are {gained:+.0f} requests/s, of {promised:.0f} that the added users promise"
    return None
