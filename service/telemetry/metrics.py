"""What Prometheus sees: all metrics by name and label, summed over all workers on every scrape.

prometheus_client writes the text. The label values are all known at the start, so that no request
can make a series.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

from service.telemetry.counters import (
    Counter,
    Gauge,
    Histogram,
    SilentGauge,
    SilentHistogram,
    open_values,
    total_values,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
UNKNOWN_MODEL = "unknown"  # whatever callers ask for, this is the one series for it
STAGES = ("decode", "queue", "predict", "encode")

_CLIENT_CLOSED_REQUEST = 499  # not in HTTPStatus
_STATUSES = (*(int(status) for status in HTTPStatus), _CLIENT_CLOSED_REQUEST)
_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
)  # fmt: skip
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)

Labels = tuple[str, ...]


@dataclass(frozen=True)
class ServedModel:
    """What the metrics tell of a model."""

    name: str
    version: str
    task: str
    labels: tuple[str, ...]
    latency_objective_s: float | None


Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


@dataclass(frozen=True)
class _Family:
    """The series of one name, and where their numbers lie: one row of doubles a series."""

    kind: type[Family]
    name: str
    about: str
    label_names: tuple[str, ...]
    series: tuple[Labels, ...]
    first_slot: int
    bounds: tuple[float, ...] = ()
    shows_nought: bool = True
    """Whether series without any observation are shown; those of improbable labels are not."""

    @property
    def width(self) -> int:
        """Doubles a series: the buckets (the last without a bound) and the sum, or one number."""
        return len(self.bounds) + 2 if self.bounds else 1

    @property
    def end_slot(self) -> int:
        return self.first_slot + self.width * len(self.series)

    def slots(self) -> dict[Labels, int]:
        """The first slot of every series."""
        return {
            labels: self.first_slot + self.width * row for row, labels in enumerate(self.series)
        }

    def expose(self, totals: npt.NDArray[np.float64]) -> Family:
        """The family with its numbers, for prometheus_client to write."""
        metric = self.kind(self.name, self.about, labels=self.label_names)
        table = totals[self.first_slot : self.end_slot].reshape(-1, self.width)
        rows = (
            range(len(table)) if self.shows_nought else np.flatnonzero(table.any(axis=1)).tolist()
        )
        for labels, row in ((self.series[index], table[index].tolist()) for index in rows):
            if isinstance(metric, HistogramMetricFamily):
                bounds = [*map(floatToGoString, self.bounds), "+Inf"]
                below = np.cumsum(row[:-1]).tolist()
                metric.add_metric(labels, list(zip(bounds, below, strict=True)), row[-1])
            else:
                metric.add_metric(labels, row[0])
        return metric


class Metrics:
    """The metrics of one worker, and the sum over all that share its folder.

    A folder of None shares nothing. Not safe across threads: the event loop alone updates them.
    Turned off, nothing is counted.
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        protocols: Sequence[str],
        folder: Path | None = None,
        worker: int = 0,
        *,
        is_on: bool = True,
    ) -> None:
        names = tuple(dict.fromkeys(model.name for model in models))
        by_name = tuple((name,) for name in names)
        versions = [(UNKNOWN_MODEL, ""), *((model.name, model.version) for model in models)]
        statuses = tuple(str(status) for status in _STATUSES)
        self._families: list[_Family] = []
        requests = self._family(
            CounterMetricFamily,
            "vitrine_requests_total",
            "Requests answered",
            ("model", "version", "protocol", "status"),
            (
                (*model, protocol, status)
                for model, protocol, status in product(versions, protocols, statuses)
            ),
            shows_nought=False,
        )
        request_seconds = self._family(
            HistogramMetricFamily,
            "vitrine_request_seconds",
            "Time from a request's arrival to its answer",
            ("model", "protocol"),
            product((UNKNOWN_MODEL, *names), protocols),
            bounds=_SECONDS,
            shows_nought=False,
        )
        stage_seconds = self._family(
            HistogramMetricFamily,
            "vitrine_stage_seconds",
            "Time that one image spent in a stage: decode, queue, predict, encode",
            ("model", "stage"),
            product(names, STAGES),
            bounds=_SECONDS,
        )
        batch_size = self._family(
            HistogramMetricFamily,
            "vitrine_batch_size",
            "Images that were computed together",
            ("model",),
            by_name,
            bounds=_BATCH_SIZES,
        )
        queue_depth = self._family(
            GaugeMetricFamily, "vitrine_queue_depth", "Images that wait", ("model",), by_name
        )
        predictions = self._family(
            CounterMetricFamily,
            "vitrine_predictions_total",
            "Images by the label that they got",
            ("model", "label"),
            ((model.name, label) for model in models for label in model.labels),
        )
        progressive = self._family(
            CounterMetricFamily,
            "vitrine_progressive_jpegs_total",
            "JPEGs that are unpacked in full before they are scaled down: 3 to 8 bytes a pixel",
            ("model",),
            by_name,
        )
        engine_failing = self._family(
            GaugeMetricFamily,
            "vitrine_engine_failing",
            "Workers whose engine fails whatever it is given; /livez fails then, too",
            ("model", "version"),
            ((model.name, model.version) for model in models),
        )
        self._folder = folder
        self._is_on = is_on
        self._values = open_values(folder, worker, self._families[-1].end_slot)
        self.requests = self._counters(requests)
        self.request_seconds = self._histograms(request_seconds)
        self.stage_seconds = self._histograms(stage_seconds)
        self.batch_size = self._histograms(batch_size)
        self.predictions = self._counters(predictions)
        self.progressive_jpegs = self._counters(progressive)
        self.queue_depth = self._gauges(queue_depth)
        # Not only for those who look at the metrics.
        self._engine_failing = engine_failing
        self.engine_failing = {
            labels: Gauge(self._values, slot) for labels, slot in engine_failing.slots().items()
        }
        for gauge in (*self.queue_depth.values(), *self.engine_failing.values()):
            gauge.set(0)  # what a worker of this number left when it died
        self._sources: list[Callable[[], Iterable[Metric]]] = []
        self._info = GaugeMetricFamily(
            "vitrine_model_info",
            "1 for every model that is served",
            labels=("model", "version", "engine", "device", "sha256"),
        )

    def announce(self, name: str, version: str, engine: str, device: str, sha256: str) -> None:
        """Note what a model is served with."""
        self._info.add_metric((name, version, engine, device, sha256), 1)

    def watch(self, source: Callable[[], Iterable[Metric]]) -> None:
        """Ask a source for more metrics on every scrape."""
        self._sources.append(source)

    def failing_engines(self) -> list[str]:
        """The models whose engine fails in some worker."""
        family = self._engine_failing
        counts = self._totals()[family.first_slot : family.end_slot]
        return [name for (name, _), count in zip(family.series, counts, strict=True) if count]

    def expose(self) -> bytes:
        """The metrics of all workers, in Prometheus's text format."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks a collector for."""
        totals = self._totals()
        yield self._info
        for source in self._sources:
            yield from source()
        for family in self._families:
            yield family.expose(totals)

    def _totals(self) -> npt.NDArray[np.float64]:
        if self._folder is None:
            return np.array(self._values, dtype=np.float64)
        return total_values(self._folder, len(self._values))

    def _family(
        self,
        kind: type[Family],
        name: str,
        about: str,
        label_names: tuple[str, ...],
        series: Iterable[Labels],
        *,
        bounds: tuple[float, ...] = (),
        shows_nought: bool = True,
    ) -> _Family:
        first_slot = self._families[-1].end_slot if self._families else 0
        unique = tuple(dict.fromkeys(series))
        family = _Family(kind, name, about, label_names, unique, first_slot, bounds, shows_nought)
        self._families.append(family)
        return family

    def _counters(self, family: _Family) -> dict[Labels, Counter]:
        kind = Counter if self._is_on else SilentGauge
        return {labels: kind(self._values, slot) for labels, slot in family.slots().items()}

    def _gauges(self, family: _Family) -> dict[Labels, Gauge]:
        kind = Gauge if self._is_on else SilentGauge
        return {labels: kind(self._values, slot) for labels, slot in family.slots().items()}

    def _histograms(self, family: _Family) -> dict[Labels, Histogram]:
        kind = Histogram if self._is_on else SilentHistogram
        return {
            labels: kind(self._values, slot, family.bounds)
            for labels, slot in family.slots().items()
        }
