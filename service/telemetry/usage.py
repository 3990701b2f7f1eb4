"""Limits and usage of a whole server: workers, CPUs, memory."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from service.machine import cpu_quota
from service.settings import Settings
from service.telemetry.counters import Counter, Gauge
from service.telemetry.metrics import ServedModel
from service.telemetry.series import Table, open_values, read_totals

if TYPE_CHECKING:
    import psutil

_STARTED = "started"
_STARTS = "vitrine_worker_starts_total"
_READY = "vitrine_workers_ready"
_HANGS = "vitrine_worker_hangs_total"
_UNAVAILABLE = "workers_unavailable"
_CONNECTIONS = "vitrine_connections"
_CONNECTIONS_LIMIT = "vitrine_connections_limit"
_OF_SUPERVISOR = (_HANGS, _UNAVAILABLE, _CONNECTIONS, _CONNECTIONS_LIMIT)


def limit_metrics(settings: Settings, models: Sequence[ServedModel]) -> Iterator[Metric]:
    """The limits that the settings and the cgroup give the server."""
    yield GaugeMetricFamily(
        "vitrine_workers", "Processes that are to serve", value=settings.workers
    )
    yield GaugeMetricFamily("vitrine_cpus", "CPUs that may be used", value=cpu_quota())
    limit = GaugeMetricFamily(
        "vitrine_queue_limit", "Images that may wait, in all workers", labels=("model", "version")
    )
    for model in models:
        limit.add_metric((model.name, model.version), settings.queue_limit * settings.workers)
    yield limit


class WorkerState:
    """Whether a worker serves, and how often workers were started; totals over all of a server's.

    It is separate from the other metrics, whose series depend on the models: a worker that cannot
    read the models must be visible, too.
    """

    def __init__(self, folder: Path) -> None:
        """Count a start; `folder` is what the workers of the server share."""
        self._folder = folder
        with contextlib.suppress(FileExistsError):
            (folder / _STARTED).touch(exist_ok=False)
        values = open_values(folder, (Table(_STARTS, ((),)), Table(_READY, ((),), is_gauge=True)))
        Counter(values, 0).inc()
        self._ready = Gauge(values, 1)

    def set_ready(self) -> None:
        """Mark the worker as serving."""
        self._ready.set(1)

    def metrics(self) -> Iterator[Metric]:
        """The state of all workers, and when the first of them was started."""
        names = (_STARTS, _READY, *_OF_SUPERVISOR)
        totals = {name: rows[()][0] for name, rows in read_totals(self._folder, names).items()}
        yield CounterMetricFamily(
            _STARTS, "Times that a process was started to serve", value=totals[_STARTS]
        )
        yield GaugeMetricFamily(
            _READY,
            "Processes that serve; fewer than vitrine_workers where one cannot start",
            value=totals[_READY] - totals.get(_UNAVAILABLE, 0),
        )
        if _HANGS in totals:  # BentoML's server knows nothing of these
            yield CounterMetricFamily(
                _HANGS, "Times that a process was killed because it hung", value=totals[_HANGS]
            )
            yield GaugeMetricFamily(
                _CONNECTIONS, "Open connections of all workers", value=totals[_CONNECTIONS]
            )
            yield GaugeMetricFamily(
                _CONNECTIONS_LIMIT,
                "Connections that the workers may hold, by their limit of open files",
                value=totals[_CONNECTIONS_LIMIT],
            )
        # The time of one file: each worker's own clock reading might differ by a second.
        yield GaugeMetricFamily(
            "vitrine_start_time_seconds",
            "When the server was started, in seconds since 1970",
            value=(self._folder / _STARTED).stat().st_mtime,
        )


class SupervisorState:
    """What the parent of the workers finds out about them."""

    def __init__(self, folder: Path | None) -> None:
        """Begin at zero; `folder` is what the processes of the server share."""
        tables = [Table(name, ((),), is_gauge=name != _HANGS) for name in _OF_SUPERVISOR]
        values = open_values(folder, tables)
        self.hangs = Counter(values, 0)
        """Workers that were killed because they did nothing."""
        self.unavailable = Gauge(values, 1)
        """Workers that were ready, and hang or end."""
        self.connections = Gauge(values, 2)
        """Open connections of all workers."""
        self.connections_limit = Gauge(values, 3)
        """Connections that all workers may hold."""


def usage_metrics(server_pid: int) -> Iterator[Metric]:
    """CPU time and memory of the server's first process and of its workers."""
    import psutil  # at the first scrape: it takes 30 ms of a start

    server = psutil.Process(server_pid)
    own = server.cpu_times()
    # Of the workers that have ended, too, so that the count never falls.
    cpu_s = own.user + own.system + own.children_user + own.children_system
    memory_bytes = _memory_bytes(server)
    for worker in server.children():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            memory_bytes += _memory_bytes(worker)
            times = worker.cpu_times()
            cpu_s += times.user + times.system
    yield CounterMetricFamily(
        "vitrine_cpu_seconds_total", "CPU time of all processes of the server", value=cpu_s
    )
    yield GaugeMetricFamily(
        "vitrine_memory_bytes",
        "Memory of all processes of the server, what they share counted once",
        value=memory_bytes,
    )


def _memory_bytes(process: "psutil.Process") -> int:
    """Proportional set size (PSS): shared memory is divided by the processes that share it.

    Only Linux reports it, and not always for another process; elsewhere it is the whole RSS.
    """
    import psutil

    with contextlib.suppress(psutil.AccessDenied, AttributeError):
        return int(process.memory_full_info().pss)
    return int(process.memory_info().rss)
