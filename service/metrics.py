"""What Prometheus sees: the metrics of one process, and their sum over all workers.

prometheus_client decides on import, by PROMETHEUS_MULTIPROC_DIR, whether processes share files.
"""

import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
UNKNOWN_MODEL = "unknown"  # whatever callers ask for, this is the one series for it

_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
)  # fmt: skip
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of this process."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.requests = Counter(
            "vitrine_requests_total",
            "Requests answered",
            ("model", "version", "protocol", "status"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "vitrine_request_seconds",
            "Time from a request's arrival to its answer",
            ("model", "protocol"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "vitrine_stage_seconds",
            "Time that one image spent in a stage: decode, queue, predict, encode",
            ("model", "stage"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "vitrine_batch_size",
            "Images in the batch that an image was computed in",
            ("model",),
            buckets=_BATCH_SIZES,
            registry=registry,
        )
        self.queue_depth = Gauge(
            "vitrine_queue_depth",
            "Images that wait for a model",
            ("model",),
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.predictions = Counter(
            "vitrine_predictions_total",
            "Images by the label that they got",
            ("model", "label"),
            registry=registry,
        )
        self.model_info = Gauge(
            "vitrine_model_info",
            "1 for every model that is served",
            ("model", "version", "engine", "device", "sha256"),
            multiprocess_mode="max",
            registry=registry,
        )


def expose() -> bytes:
    """The metrics of all workers, in Prometheus's text format."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
