"""Definitions of the metrics that workers count: name, help text, labels, buckets."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.utils import floatToGoString

from service.telemetry.series import Doubles, Labels, Table

_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
)  # fmt: skip
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
# Sums of seconds are shown to the microsecond. The order in which workers are added up changes when
# one is replaced; a sum that is smaller by its last bit would look like a restart to Prometheus.
_SUM_DIGITS = 6

Exposed: TypeAlias = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


@dataclass(frozen=True)
class Family:
    """The definition of a metric: type, name, help text, labels."""

    kind: type[Exposed]
    name: str
    about: str
    label_names: tuple[str, ...]
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets; one without a bound follows."""

    def tables(self, series: Iterable[Labels], hidden: Iterable[Labels] = ()) -> Iterator[Table]:
        """Tables of its series: those shown from the start, and those shown once they count."""
        # The buckets and the sum, or one number.
        width = len(self.bounds) + 2 if self.bounds else 1
        is_gauge = self.kind is GaugeMetricFamily
        shown = dict.fromkeys(series)
        yield Table(self.name, tuple(shown), width, is_gauge)
        others = tuple(labels for labels in hidden if labels not in shown)
        yield Table(self.name, others, width, is_gauge, show_zero=False)

    def expose(self, rows: Mapping[Labels, Doubles]) -> Exposed:
        """The family with its numbers, for prometheus_client to write."""
        metric = self.kind(self.name, self.about, labels=self.label_names)
        bounds = [*map(floatToGoString, self.bounds), "+Inf"]
        for labels, row in rows.items():
            if isinstance(metric, HistogramMetricFamily):
                below = np.cumsum(row[:-1]).tolist()
                total = round(float(row[-1]), _SUM_DIGITS)
                metric.add_metric(labels, list(zip(bounds, below, strict=True)), total)
            else:
                metric.add_metric(labels, float(row[0]))
        return metric


REQUESTS = Family(
    CounterMetricFamily,
    "vitrine_requests_total",
    "Requests answered",
    ("model", "version", "protocol", "status", "task"),
)
REQUEST_SECONDS = Family(
    HistogramMetricFamily,
    "vitrine_request_seconds",
    "Time from a request's arrival to its answer",
    ("model", "version", "protocol", "task"),
    _SECONDS,
)
STAGE_SECONDS = Family(
    HistogramMetricFamily,
    "vitrine_stage_seconds",
    "Time that one image spent in a stage: decode, queue, predict, encode",
    ("model", "version", "stage"),
    _SECONDS,
)
BATCH_SIZE = Family(
    HistogramMetricFamily,
    "vitrine_batch_size",
    "Images that were computed together",
    ("model", "version"),
    _BATCH_SIZES,
)
QUEUE_DEPTH = Family(
    GaugeMetricFamily, "vitrine_queue_depth", "Images that wait", ("model", "version")
)
PREDICTIONS = Family(
    CounterMetricFamily,
    "vitrine_predictions_total",
    "Images by the label that they got",
    ("model", "version", "label"),
)
PROGRESSIVE_JPEGS = Family(
    CounterMetricFamily,
    "vitrine_progressive_jpegs_total",
    "JPEGs that are decoded at full size before they are scaled down: 3 to 8 bytes a pixel",
    ("model", "version"),
)
ENGINE_FAILING = Family(
    GaugeMetricFamily,
    "vitrine_engine_failing",
    "Workers whose engine fails whatever it is given; /livez fails then, too",
    ("model", "version"),
)
FAMILIES = {
    family.name: family
    for family in (
        REQUESTS,
        REQUEST_SECONDS,
        STAGE_SECONDS,
        BATCH_SIZE,
        QUEUE_DEPTH,
        PREDICTIONS,
        PROGRESSIVE_JPEGS,
        ENGINE_FAILING,
    )
}
