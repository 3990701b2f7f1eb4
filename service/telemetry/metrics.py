"""The metrics of a worker, and what Prometheus sees: their sums over all workers.

`families.py` defines them; prometheus_client writes the text. All label values are known at the
start, so that no request can create a series.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import product
from pathlib import Path

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from service.telemetry.counters import Counter, Gauge, Histogram, SilentGauge, SilentHistogram
from service.telemetry.families import (
    BATCH_SIZE,
    ENGINE_FAILING,
    FAMILIES,
    PREDICTIONS,
    PROGRESSIVE_JPEGS,
    QUEUE_DEPTH,
    REQUEST_SECONDS,
    REQUESTS,
    STAGE_SECONDS,
    Family,
)
from service.telemetry.series import (
    Labels,
    Table,
    Totals,
    add_rows,
    open_values,
    read_totals,
    slots,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
UNKNOWN_MODEL = "unknown"  # whatever callers ask for, this is the one series for it
STAGES = ("decode", "queue", "predict", "encode")
STATUSES_FROM_START = (200, 400, 500, 503, 504)
"""Of a served model these are shown before any request: `rate()` misses what begins above zero."""

_CLIENT_CLOSED_REQUEST = 499  # not in HTTPStatus
_STATUSES = (*(int(status) for status in HTTPStatus), _CLIENT_CLOSED_REQUEST)


@dataclass(frozen=True)
class ServedModel:
    """What metrics need to know of a model."""

    name: str
    version: str
    task: str
    labels: tuple[str, ...]
    """Its classes; empty where its answer is not a label."""
    latency_objective_s: float | None
    """The time within which 99 % of requests are to be answered; None for no objective."""
    protocols: tuple[str, ...]
    """How it is called. Their request counters are shown from the start, and so is the latency
    histogram of the first; more histograms would make the page long."""


class Metrics:
    """The metrics of one worker, and the sum over all that share its folder.

    A folder of None shares nothing. Not safe across threads: the event loop alone updates them.
    Turned off, nothing is counted. `protocols` are the values of that label.
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        protocols: Sequence[str],
        folder: Path | None = None,
        *,
        is_on: bool = True,
    ) -> None:
        self._folder = folder
        self._is_on = is_on
        self._tables = _tables(models, protocols)
        self._values = open_values(folder, self._tables)
        self._slots = slots(self._tables)
        # The task is left out of these keys: model and version determine it.
        self.requests = {key[:-1]: each for key, each in self._counters(REQUESTS).items()}
        self.request_seconds = {
            key[:-1]: each for key, each in self._histograms(REQUEST_SECONDS).items()
        }
        self.stage_seconds = self._histograms(STAGE_SECONDS)
        self.batch_size = self._histograms(BATCH_SIZE)
        self.predictions = self._counters(PREDICTIONS)
        self.progressive_jpegs = self._counters(PROGRESSIVE_JPEGS)
        self.queue_depth = self._gauges(QUEUE_DEPTH)
        # Also where metrics are off: the probes read them.
        self.engine_failing = {
            labels: Gauge(self._values, slot)
            for labels, slot in self._slots[ENGINE_FAILING.name].items()
        }
        self._sources: list[Callable[[], Iterable[Metric]]] = []
        self._tasks = {(model.name, model.version): model.task for model in models}
        self._info = GaugeMetricFamily(
            "vitrine_model_info",
            "1 for every model that is served",
            labels=("model", "version", "task", "engine", "device", "sha256"),
        )
        self._objectives = GaugeMetricFamily(
            "vitrine_latency_objective_seconds",
            "Time within which 99 % of a model's requests are to be answered",
            labels=("model", "version"),
        )
        for model in models:
            if model.latency_objective_s is not None:
                self._objectives.add_metric((model.name, model.version), model.latency_objective_s)

    def announce(self, name: str, version: str, engine: str, device: str, sha256: str) -> None:
        """Note what a model is served with."""
        task = self._tasks[name, version]
        self._info.add_metric((name, version, task, engine, device, sha256), 1)

    def watch(self, source: Callable[[], Iterable[Metric]]) -> None:
        """Ask a source for more metrics on every scrape."""
        self._sources.append(source)

    def failing_engines(self) -> list[str]:
        """The models whose engine fails in some worker.

        Where the shared files are gone, in this one: whoever cleans up temporary folders is not to
        make a server that works look dead.
        """
        name = ENGINE_FAILING.name
        try:
            totals = self._totals({name})
        except FileNotFoundError:
            totals = self._own_totals({name})
        return [*dict.fromkeys(model for (model, _), row in totals[name].items() if row.any())]

    def expose(self) -> bytes:
        """The metrics of all workers, in Prometheus's text format."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks a collector for."""
        yield self._info
        yield self._objectives
        for source in self._sources:
            yield from source()
        for name, rows in self._totals(FAMILIES).items():
            yield FAMILIES[name].expose(rows)

    def _totals(self, names: Container[str]) -> Totals:
        if self._folder is not None:
            return read_totals(self._folder, names)
        return self._own_totals(names)

    def _own_totals(self, names: Container[str]) -> Totals:
        totals: Totals = {}
        values = np.array(self._values, dtype=np.float64)
        add_rows(totals, self._tables, values, lambda table: table.name in names)
        return totals

    def _counters(self, family: Family) -> dict[Labels, Counter]:
        kind = Counter if self._is_on else SilentGauge
        rows = self._slots[family.name]
        return {labels: kind(self._values, slot) for labels, slot in rows.items()}

    def _gauges(self, family: Family) -> dict[Labels, Gauge]:
        kind = Gauge if self._is_on else SilentGauge
        rows = self._slots[family.name]
        return {labels: kind(self._values, slot) for labels, slot in rows.items()}

    def _histograms(self, family: Family) -> dict[Labels, Histogram]:
        kind = Histogram if self._is_on else SilentHistogram
        rows = self._slots[family.name]
        return {labels: kind(self._values, slot, family.bounds) for labels, slot in rows.items()}


def _tables(models: Sequence[ServedModel], protocols: Sequence[str]) -> tuple[Table, ...]:
    """All series that a worker may count."""
    versions = [(model.name, model.version) for model in models]
    tasks = [(model.name, model.version, model.task) for model in models]
    tasks.append((UNKNOWN_MODEL, "", ""))
    return (
        *REQUESTS.tables(
            (
                (model.name, model.version, protocol, str(status), model.task)
                for model in models
                for protocol, status in product(model.protocols, STATUSES_FROM_START)
            ),
            (
                (name, version, protocol, str(status), task)
                for (name, version, task), protocol, status in product(tasks, protocols, _STATUSES)
            ),
        ),
        *REQUEST_SECONDS.tables(
            (
                (model.name, model.version, protocol, model.task)
                for model in models
                for protocol in model.protocols[:1]
            ),
            (
                (name, version, protocol, task)
                for (name, version, task), protocol in product(tasks, protocols)
            ),
        ),
        *STAGE_SECONDS.tables((*version, stage) for version, stage in product(versions, STAGES)),
        *BATCH_SIZE.tables(versions),
        *QUEUE_DEPTH.tables(versions),
        *PREDICTIONS.tables(
            (model.name, model.version, label) for model in models for label in model.labels
        ),
        *PROGRESSIVE_JPEGS.tables(versions),
        *ENGINE_FAILING.tables(versions),
    )
