"""The dashboard's rows and panels as data."""

from dataclasses import dataclass
from typing import Literal

from deploy.observability.grafana.queries import (
    ASKED,
    FAILED,
    MODEL,
    OVER_OBJECTIVE,
    PREDICTED,
    VITRINE,
    mean,
    quantile,
    rate,
    recorded,
    series,
)


@dataclass(frozen=True)
class Panel:
    """One panel: `queries` are by their legend, `limit` is where red begins."""

    title: str
    about: str
    unit: str
    """Grafana's name of it."""
    queries: dict[str, str]
    kind: Literal["timeseries", "stat", "table", "heatmap"] = "timeseries"
    limit: float | None = None
    is_stacked: bool = False
    width: int = 8
    """Of the 24 columns."""
    height: int = 8


@dataclass(frozen=True)
class Row:
    """A title with panels under it, from left to right, as many a line as fit."""

    title: str
    panels: tuple[Panel, ...]


def _stat(title: str, about: str, unit: str, expr: str, limit: float | None = None) -> Panel:
    return Panel(title, about, unit, {title: expr}, "stat", limit, width=4, height=4)


ROWS = (
    Row(
        "Now",
        (
            _stat(
                "Servers up",
                "Targets that the last scrape reached.",
                "none",
                f"sum({series('up', VITRINE)})",
            ),
            _stat(
                "Requests",
                "Requests for an answer, a second.",
                "reqps",
                f"sum({rate('vitrine_requests_total', MODEL, ASKED)})",
            ),
            _stat(
                "Error budget burn, 1 h",
                "How many times faster than sustainable the 0.1 % of allowed errors goes; "
                "above 14.4 somebody is paged.",
                "none",
                f"max({recorded('vitrine:error_budget_burn:rate1h')})",
                limit=14.4,
            ),
            _stat(
                "Slowest model, p99 over objective",
                "The 99th percentile of 5 minutes over the model's objective, of the worst model.",
                "percentunit",
                f"max({OVER_OBJECTIVE})",
                limit=1,
            ),
            _stat(
                "Fullest queue",
                "Images that wait over those that may; at 100 % requests get 503.",
                "percentunit",
                f"max({series('vitrine:queue:ratio', MODEL)})",
                limit=0.5,
            ),
            _stat(
                "Workers not ready",
                "Workers that are wanted and do not serve.",
                "none",
                f"sum({series('vitrine_workers')}) - sum({series('vitrine_workers_ready')})",
                limit=1,
            ),
        ),
    ),
    Row(
        "Traffic",
        (
            Panel(
                "Requests by model",
                "Requests for an answer, a second; unknown is whatever model does not exist.",
                "reqps",
                {"{{model}}": f"sum by (model) ({rate('vitrine_requests_total', MODEL, ASKED)})"},
                is_stacked=True,
            ),
            Panel(
                "Requests by status",
                "All requests with probes and scrapes, a second; 499 is a client that has gone.",
                "reqps",
                {"{{status}}": f"sum by (status) ({rate('vitrine_requests_total', MODEL)})"},
                is_stacked=True,
            ),
            Panel(
                "Images by model",
                "Images that went through a network, a second; a request may have several.",
                "ops",
                {
                    "{{model}}": "sum by (model) "
                    f"({rate('vitrine_stage_seconds_count', MODEL, PREDICTED)})"
                },
                is_stacked=True,
            ),
        ),
    ),
    Row(
        "Latency",
        (
            Panel(
                "p99 by model",
                "99 % of requests are answered within this time, errors and refusals included.",
                "s",
                {
                    "{{model}}": quantile(0.99, "vitrine_request_seconds", "model, le", ASKED),
                },
            ),
            Panel(
                "p50, p90 and p99",
                "Quantiles over the chosen models; between the bounds of buckets they are a guess.",
                "s",
                {
                    f"p{share * 100:.0f}": quantile(share, "vitrine_request_seconds", "le", ASKED)
                    for share in (0.5, 0.9, 0.99)
                },
            ),
            Panel(
                "p99 over objective",
                "99th percentile of 5 minutes over the objective in the model's manifest.",
                "percentunit",
                {"{{model}} {{version}}": OVER_OBJECTIVE},
                limit=1,
            ),
            Panel(
                "Mean time by stage",
                "Where the time of an image goes: a long queue asks for replicas, a long decode "
                "for smaller photos.",
                "s",
                {"{{stage}}": mean("vitrine_stage_seconds", "stage")},
                is_stacked=True,
            ),
            Panel(
                "p99 by stage",
                "99 % of images spend less than this in the stage; quantiles do not add up.",
                "s",
                {"{{stage}}": quantile(0.99, "vitrine_stage_seconds", "stage, le")},
            ),
            Panel(
                "Requests by time",
                "How many requests a second took how long.",
                "reqps",
                {"{{le}}": f"sum by (le) ({rate('vitrine_request_seconds_bucket', MODEL, ASKED)})"},
                kind="heatmap",
            ),
        ),
    ),
    Row(
        "Errors",
        (
            Panel(
                "5xx by model",
                "Part of 5 minutes' requests that got a 5xx, 503 for overload included.",
                "percentunit",
                {"{{model}} {{version}}": recorded("vitrine:errors:ratio_rate5m", MODEL)},
                limit=0.05,
            ),
            Panel(
                "Error budget burn",
                "Errors over what 99.9 % allow, by window: 14.4 over 1 h pages, and 6 over 6 h.",
                "none",
                {
                    window: f"max({recorded(f'vitrine:error_budget_burn:rate{window}')})"
                    for window in ("5m", "1h", "6h", "3d")
                },
            ),
            Panel(
                "Answers that are no success",
                "By model and status, a second: 4xx is the caller's, 503 overload, 504 too late.",
                "reqps",
                {
                    "{{model}} {{status}}": "sum by (model, status) "
                    f"({rate('vitrine_requests_total', MODEL, ASKED, FAILED)})"
                },
            ),
        ),
    ),
    Row(
        "Queue and batches",
        (
            Panel(
                "Images that wait",
                "Over the chosen pods; the autoscaler looks at this figure a pod.",
                "none",
                {"{{model}}": f"sum by (model) ({series('vitrine_queue_depth', MODEL)})"},
            ),
            Panel(
                "Queue over its limit",
                "The fullest pod's, by model.",
                "percentunit",
                {"{{model}}": f"max by (model) ({series('vitrine:queue:ratio', MODEL)})"},
                limit=0.5,
            ),
            Panel(
                "p99 of the wait",
                "99 % of images wait less than this for an idle engine.",
                "s",
                {
                    "{{model}}": quantile(
                        0.99, "vitrine_stage_seconds", "model, le", 'stage="queue"'
                    )
                },
            ),
            Panel(
                "Mean batch",
                "Images that one call of the network takes; 1 means that nothing waits.",
                "none",
                {"{{model}}": mean("vitrine_batch_size", "model")},
            ),
            Panel(
                "Progressive JPEGs",
                "A second; they are unpacked in full and take 3 to 8 bytes a pixel.",
                "ops",
                {"{{model}}": f"sum by (model) ({rate('vitrine_progressive_jpegs_total', MODEL)})"},
            ),
            Panel(
                "Engines that fail",
                "Workers whose engine fails whatever it is given; /livez fails there.",
                "none",
                {"{{model}}": f"sum by (model) ({series('vitrine_engine_failing', MODEL)})"},
                limit=1,
            ),
        ),
    ),
    Row(
        "Saturation",
        (
            Panel(
                "CPU",
                "CPU seconds a second over the CPUs that the server may use, over 5 minutes.",
                "percentunit",
                {"{{pod}}": series("vitrine:cpu:ratio_rate5m")},
                limit=0.9,
            ),
            Panel(
                "Memory",
                "Of all processes of a server.",
                "bytes",
                {"{{pod}}": series("vitrine_memory_bytes")},
            ),
            Panel(
                "Memory over 6 hours ago",
                "The least of an hour over the least of the same 6 hours before.",
                "percentunit",
                {"{{pod}}": series("vitrine:memory_growth:ratio6h")},
                limit=1.2,
            ),
            Panel(
                "Workers",
                "Wanted and ready.",
                "none",
                {
                    "{{pod}} wanted": series("vitrine_workers"),
                    "{{pod}} ready": series("vitrine_workers_ready"),
                },
            ),
            Panel(
                "Worker restarts",
                "Workers that had to be replaced within an hour, because they died.",
                "none",
                {"{{pod}}": f"increase({series('vitrine_worker_starts_total')}[1h])"},
            ),
            Panel(
                "Uptime",
                "Since the server started.",
                "s",
                {"{{pod}}": f"time() - {series('vitrine_start_time_seconds')}"},
            ),
        ),
    ),
    Row(
        "Models and predictions",
        (
            Panel(
                "Models",
                "What is served where, and with which engine.",
                "none",
                {
                    "": "max by (pod, model, version, task, engine, device) "
                    f"({series('vitrine_model_info', MODEL)})"
                },
                kind="table",
            ),
            Panel(
                "Labels, last day",
                "Part of the images that got each label, the ten most frequent of each model.",
                "percentunit",
                {
                    "{{model}} {{label}}": "topk by (namespace, job, model) "
                    f"(10, {recorded('vitrine:predictions:share1d', MODEL)})"
                },
            ),
            Panel(
                "Label drift",
                "Total variation distance between the last day's labels and those of a week "
                "before; only where both days have 100 images a label.",
                "percentunit",
                {"{{model}}": recorded("vitrine:label_drift:distance", MODEL)},
                limit=0.2,
            ),
        ),
    ),
    Row(
        "GPU",
        (
            Panel(
                "GPU memory in use",
                "By all that use the GPU; it grows as needed and is not given back.",
                "bytes",
                {"{{pod}} {{gpu}} {{name}}": series("vitrine_gpu_memory_bytes", 'state="used"')},
                width=12,
            ),
            Panel(
                "GPU memory over its total",
                "Above 95 % the next larger batch may fail.",
                "percentunit",
                {"{{pod}} {{gpu}} {{name}}": series("vitrine:gpu_memory:ratio")},
                limit=0.95,
                width=12,
            ),
        ),
    ),
)
