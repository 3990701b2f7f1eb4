"""What a run must keep to pass, and the table of what it kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.load.tasks import COSTS

# The service's objectives: 99.9 % of requests, and the 99th percentile by cost of the model.
DEFAULT_MAX_ERROR_RATIO = 0.001
DEFAULT_MAX_P99_MS = {cost.name: cost.max_p99_ms for cost in COSTS.values()}


@dataclass(frozen=True)
class Objectives:
    """Limits; a cost that `max_p99_ms` does not name has none."""

    max_error_ratio: float = DEFAULT_MAX_ERROR_RATIO
    max_p99_ms: Mapping[str, float] = field(default_factory=lambda: DEFAULT_MAX_P99_MS)
    min_requests_per_s: float = 0.0


@dataclass(frozen=True)
class Measured:
    """What a run, or a part of it, came to; `times_ms` counts times by cost of the model."""

    requests: int
    failures: int
    overloaded: int
    """Of the failures: 503 with Retry-After."""
    wrong: int
    """Of the failures: successes whose answer is wrong."""
    crashes: int
    """Exceptions in the load generator itself."""
    requests_per_s: float
    """Without the failures."""
    times_ms: Mapping[str, Mapping[int, int]]

    @property
    def error_ratio(self) -> float:
        """Failures of all kinds; an overload answer is one, too."""
        return self.failures / self.requests if self.requests else 0.0

    @property
    def p99_ms(self) -> dict[str, float]:
        """By cost of the model."""
        return {cost: percentile(counts, 0.99) for cost, counts in self.times_ms.items() if counts}


@dataclass(frozen=True)
class Verdict:
    """One line of the table."""

    objective: str
    limit: str
    measured: str
    passed: bool


def judge(measured: Measured, objectives: Objectives) -> list[Verdict]:
    """Every objective against what was measured."""
    at_least = objectives.min_requests_per_s
    return [
        *judge_correctness(measured),
        Verdict(
            "error ratio",
            f"<= {objectives.max_error_ratio:g}",
            f"{measured.error_ratio:.5f}",
            measured.error_ratio <= objectives.max_error_ratio,
        ),
        *(
            Verdict(
                f"p99, {cost} models",
                f"<= {objectives.max_p99_ms[cost]:g} ms",
                f"{ms:.0f} ms",
                ms <= objectives.max_p99_ms[cost],
            )
            for cost, ms in measured.p99_ms.items()
            if cost in objectives.max_p99_ms
        ),
        judge_throughput(measured.requests_per_s, at_least),
    ]


def judge_correctness(measured: Measured) -> list[Verdict]:
    """What holds at any load: there are answers, none is wrong, and nothing crashed here."""
    return [
        Verdict("requests", ">= 1", f"{measured.requests}", measured.requests > 0),
        Verdict("wrong answers", "0", f"{measured.wrong}", not measured.wrong),
        Verdict("crashes of the load test", "0", f"{measured.crashes}", not measured.crashes),
    ]


def judge_throughput(requests_per_s: float, at_least: float) -> Verdict:
    """Requests/s against the least that is asked for; none at all is never enough."""
    limit = f">= {at_least:g}" if at_least else "> 0"
    passed = requests_per_s >= at_least and requests_per_s > 0
    return Verdict("requests/s", limit, f"{requests_per_s:.1f}", passed)


def p99_over(p99_ms: Mapping[str, float], max_p99_ms: Mapping[str, float]) -> str | None:
    """The first cost whose p99 is over its limit."""
    return next((cost for cost, ms in p99_ms.items() if ms > max_p99_ms.get(cost, ms)), None)


def percentile(counts: Mapping[int, int], share: float) -> float:
    """The least time, in ms, within which at least `share` of the counted ones lie."""
    wanted = share * sum(counts.values())
    seen = 0
    for time_ms in sorted(counts):
        seen += counts[time_ms]
        if seen >= wanted:
            return float(time_ms)
    raise ValueError("expected counted times, got none")


def table(verdicts: list[Verdict]) -> str:
    """Lines of objective, limit, measured, and pass or FAIL."""
    rows = [("objective", "limit", "measured", "")] + [
        (each.objective, each.limit, each.measured, "pass" if each.passed else "FAIL")
        for each in verdicts
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
