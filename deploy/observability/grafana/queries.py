"""PromQL of the dashboard: selectors by its variables, and what is asked again and again."""

SERVICE = 'namespace=~"$namespace", job=~"$job"'
SERVER = f'{SERVICE}, pod=~"$pod"'
MODEL = 'model=~"$model"'
VITRINE = 'job="vitrine"'
# Without probes, scrapes and pages; a new protocol is in it at once.
ASKED = 'protocol!~"page|other"'
FAILED = 'status!~"2.."'
PREDICTED = 'stage="predict"'


def series(name: str, *matchers: str) -> str:
    """A selector of the servers that the dashboard's variables name."""
    return f"{name}{{{', '.join((SERVER, *matchers))}}}"


def rate(name: str, *matchers: str) -> str:
    """A counter's rate a second."""
    return f"rate({series(name, *matchers)}[$__rate_interval])"


def recorded(name: str, *matchers: str) -> str:
    """A recording rule's selector; those over all pods know no pod."""
    return f"{name}{{{', '.join((SERVICE, *matchers))}}}"


def mean(name: str, label: str) -> str:
    """A histogram's mean by one label."""
    total = f"sum by ({label}) ({rate(f'{name}_sum', MODEL)})"
    count = f"sum by ({label}) ({rate(f'{name}_count', MODEL)})"
    return f"{total} / clamp_min({count}, 1e-9)"


def quantile(share: float, name: str, by: str, *matchers: str) -> str:
    """A histogram's quantile over all pods, by labels of which one is le."""
    buckets = f"sum by ({by}) ({rate(f'{name}_bucket', MODEL, *matchers)})"
    return f"histogram_quantile({share}, {buckets})"


OVER_OBJECTIVE = (
    f"{recorded('vitrine:request_seconds:p99_5m', MODEL)} / on (namespace, job, model, version) "
    f"{recorded('vitrine:latency_objective_seconds', MODEL)}"
)
