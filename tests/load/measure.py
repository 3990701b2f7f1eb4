"""Locust's statistics, over all workers, as what is judged."""

from collections import Counter
from collections.abc import Mapping

from locust import log
from locust.env import Environment
from locust.stats import RequestStats, StatsError

from tests.load.clients import OVERLOADED
from tests.load.models import Model
from tests.load.objectives import Measured
from tests.load.tasks import WrongAnswer


def measured(environment: Environment, models: Mapping[str, Model]) -> Measured:
    """All that is known so far; what was overloaded says nothing about times."""
    stats: RequestStats = environment.stats
    total = stats.total
    duration_s = (total.last_request_timestamp or 0.0) - total.start_time
    times: dict[str, Counter[int]] = {}
    overloaded = 0
    for (name, _), entry in stats.entries.items():
        model, _, how = name.partition(" ")
        if how == OVERLOADED:
            overloaded += entry.num_requests
        elif model in models:
            cost = models[model].task.cost.name
            times.setdefault(cost, Counter()).update(entry.response_times)
    return Measured(
        requests=total.num_requests,
        failures=total.num_failures,
        overloaded=overloaded,
        wrong=sum(each.occurrences for each in stats.errors.values() if _is_wrong(each)),
        crashes=_crashes(environment),
        requests_per_s=(total.num_requests - total.num_failures) / max(duration_s, 1.0),
        times_ms=times,
    )


def _is_wrong(error: StatsError) -> bool:
    """Whether an error is a WrongAnswer; from a worker it comes as text."""
    return StatsError.parse_error(error.error).startswith(f"{WrongAnswer.__name__}(")


def _crashes(environment: Environment) -> int:
    """Exceptions in clients, and one for any elsewhere in this process."""
    assert environment.runner is not None
    in_clients = sum(each["count"] for each in environment.runner.exceptions.values())
    return in_clients + log.unhandled_greenlet_exception
