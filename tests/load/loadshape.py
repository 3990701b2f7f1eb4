"""Locust's load shape: drives the users over time, and measures steps up to the knee."""

import logging
import time
from argparse import Namespace
from collections import Counter

from locust import LoadTestShape
from locust.runners import MasterRunner

from tests.load.clients import Client
from tests.load.knee import Knee, Step, find_knee, step_text
from tests.load.measure import measured
from tests.load.objectives import Measured
from tests.load.options import objectives_of, options_of
from tests.load.shapes import STEP, step_users, users_at

SETTLE = 1 / 3  # of a step, before it is measured
# Workers report every 3 seconds; what the master knows is that old.
REPORT_LAG_S = 4
logger = logging.getLogger(__name__)


class Shape(LoadTestShape):
    """The load over time that --shape, --users and --run-time ask for."""

    use_common_options = True

    def __init__(self) -> None:
        super().__init__()
        self._steps: list[Step] = []
        self._knee: Knee | None = None
        self._window: tuple[int, Measured] | None = None

    def tick(self) -> tuple[int, float] | None:
        """Users and how many of them start in a second; None at the end. Called every second."""
        options = self._parsed
        share = self.get_run_time() / options.run_time
        if options.shape == STEP:
            return self._step(share * options.steps)
        if share >= 1:
            return self._end()
        return users_at(options.shape, share, options.num_users), options.spawn_rate

    def capacity(self) -> float:
        """The most requests/s of the steps up to the knee; 0 if even the first was too much."""
        good = self._steps[:-1] if self._knee else self._steps
        return max((step.requests_per_s for step in good), default=0.0)

    def report(self) -> str:
        """The steps and the capacity."""
        lines = [step_text(step) for step in self._steps]
        if self._knee:
            lines.append(self._knee.text())
        elif self._steps:
            lines.append(f"capacity: not reached; at least {step_text(self._steps[-1])}")
        if self.runner is not None and self.runner.cpu_log_warning():
            lines.append("the load generator's CPU was above 90 %: the limit may be its own")
        return "\n".join(lines)

    @property
    def _parsed(self) -> Namespace:
        assert self.runner is not None
        return options_of(self.runner.environment)

    def _step(self, at: float) -> tuple[int, float] | None:
        """The users at a moment, in steps since the start; measures the end of each."""
        options = self._parsed
        users = step_users(options.num_users, options.steps)
        done = len(self._steps)
        if self._knee or done == len(users):
            return self._end()
        if at >= done + 1:
            self._measure(users[done])
            self._knee = find_knee(self._steps, objectives_of(options))
        elif at >= done + SETTLE and self._window is None:
            self._window = self._now()
        return users[done], options.spawn_rate

    def _end(self) -> tuple[int, float] | None:
        """Nobody asks anything more; None once the last answers are there.

        A master that quits at once would not hear of what its workers still wait for.
        """
        assert self.runner is not None
        return (0, self._parsed.spawn_rate) if self.runner.user_count else None

    def _measure(self, users: int) -> None:
        """Add the step that ends now."""
        assert self.runner is not None
        assert self._window is not None, "Locust was too busy to measure the step"
        (start_s, before), (end_s, after) = self._window, self._now()
        self._window = None
        total = self.runner.stats.total
        seconds = range(start_s, end_s)
        answered = sum(
            total.num_reqs_per_sec.get(each, 0) - total.num_fail_per_sec.get(each, 0)
            for each in seconds
        )
        requests = after.requests - before.requests
        failures = after.failures - before.failures
        times = {
            cost: Counter(counts) - Counter(before.times_ms.get(cost, {}))
            for cost, counts in after.times_ms.items()
        }
        during = Measured(requests, failures, 0, 0, 0, answered / len(seconds), times)
        step = Step(users, during.requests_per_s, during.p99_ms, during.error_ratio)
        logger.info("step: %s", step_text(step))
        self._steps.append(step)

    def _now(self) -> tuple[int, Measured]:
        """The second of the clock of which all is known, and all that is known."""
        assert self.runner is not None
        lag_s = REPORT_LAG_S if isinstance(self.runner, MasterRunner) else 0
        return int(time.time()) - lag_s, measured(self.runner.environment, Client.plan.models)
