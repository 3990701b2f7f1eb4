import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry.metrics import STAGES, UNKNOWN_MODEL, Metrics, ServedModel
from tests.exposition import Series, parsed, value

BY_BODY = ("v1", "classify")
CLASSIFIER = ServedModel("tops", "1", "classification", ("Shirt", "Bag"), 0.25, BY_BODY)
MODELS = (CLASSIFIER, ServedModel("denoiser", "1", "denoising", (), None, ("v1",)))
PROTOCOLS = ("classify", "v1", "page")
FAMILIES = {
    "vitrine_requests": {"model", "version", "task", "protocol", "status"},
    "vitrine_request_seconds": {"model", "version", "task", "protocol"},
    "vitrine_stage_seconds": {"model", "version", "stage"},
    "vitrine_batch_size": {"model", "version"},
    "vitrine_queue_depth": {"model", "version"},
    "vitrine_progressive_jpegs": {"model", "version"},
    "vitrine_engine_failing": {"model", "version"},
    "vitrine_predictions": {"model", "version", "label"},
    "vitrine_model_info": {"model", "version", "task", "engine", "device", "sha256"},
    "vitrine_latency_objective_seconds": {"model", "version"},
}
SHARED_MEMORY = Path("/dev/shm")
CLASSIFIED = ("tops", "1", "v1", "200")
BAG = ("tops", "1", "Bag")
DENOISER = ("denoiser", "1")
Open = Callable[[], Metrics]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Opens the metrics of one worker of several that share a folder."""
    return lambda: Metrics(MODELS, PROTOCOLS, tmp_path)


@pytest.fixture
def metrics(opened: Open) -> Metrics:
    return opened()


def series(metrics: Metrics) -> Series:
    return parsed(metrics.expose().decode())


def buckets(found: Series, name: str, **labels: str) -> list[tuple[float, float]]:
    """Bound and count of every bucket of a histogram's one series, in order."""
    return sorted(
        (float(pairs["le"]), number)
        for pairs, number in (
            (dict(pairs), number) for (known, pairs), number in found.items()
            if known == f"{name}_bucket"
        )
        if labels.items() <= pairs.items()
    )  # fmt: skip


def observed(metrics: Metrics, *seconds: float) -> Series:
    for each in seconds:
        metrics.stage_seconds[*DENOISER, "predict"].observe(each)
    return series(metrics)


PREDICT = {"model": "denoiser", "stage": "predict"}


def test_text_holds_every_metric_with_its_labels(metrics: Metrics) -> None:
    metrics.announce("tops", "1", "litert", "cpu", "0123")
    metrics.requests[CLASSIFIED].inc()
    metrics.request_seconds["tops", "1", "v1"].observe(0.001)
    families = list(text_string_to_metric_families(metrics.expose().decode()))
    assert {
        family.name: {label for sample in family.samples for label in sample.labels} - {"le"}
        for family in families
    } == FAMILIES
    assert all(family.documentation for family in families)


def test_every_stage_model_and_label_has_a_series_from_the_start(metrics: Metrics) -> None:
    found = series(metrics)
    for model in MODELS:
        by_model = {"model": model.name}
        assert len(buckets(found, "vitrine_batch_size", **by_model)) > 1
        for stage in STAGES:
            assert len(buckets(found, "vitrine_stage_seconds", stage=stage, **by_model)) > 1
        labels = {
            dict(pairs)["label"]
            for name, pairs in found
            if name == "vitrine_predictions_total" and by_model.items() <= dict(pairs).items()
        }
        assert labels == set(model.labels)


def labels_of(found: Series, name: str, *labels: str) -> set[tuple[str, ...]]:
    """The values of these labels in all series of a name."""
    return {
        tuple(dict(pairs).get(label, "") for label in labels)
        for known, pairs in found
        if known == name
    }


def test_requests_of_served_models_have_series_from_the_start(metrics: Metrics) -> None:
    """A counter that begins at its first error hides that error from `rate()`."""
    found = series(metrics)
    names = ("model", "version", "task", "protocol", "status")
    statuses = ("200", "400", "500", "503", "504")
    asked = [
        ("tops", "1", "classification", "classify"),
        ("tops", "1", "classification", "v1"),
        ("denoiser", "1", "denoising", "v1"),
    ]
    assert labels_of(found, "vitrine_requests_total", *names) == {
        (*labels, status) for labels in asked for status in statuses
    }
    assert value(found, "vitrine_requests_total") == 0
    assert labels_of(found, "vitrine_request_seconds_count", "model", "protocol") == {
        ("tops", "v1"),
        ("denoiser", "v1"),
    }


def test_other_requests_have_a_series_once_they_came(metrics: Metrics) -> None:
    before = set(series(metrics))
    metrics.requests["tops", "1", "v1", "413"].inc()
    metrics.request_seconds[UNKNOWN_MODEL, "", "page"].observe(0.001)
    found = series(metrics)
    new = set(found) - before
    assert {name for name, _ in new} == {
        "vitrine_requests_total",
        "vitrine_request_seconds_bucket",
        "vitrine_request_seconds_count",
        "vitrine_request_seconds_sum",
    }
    assert value(found, "vitrine_requests_total", status="413", task="classification") == 1
    assert value(found, "vitrine_request_seconds_count", model=UNKNOWN_MODEL) == 1


def test_objective_of_a_model_is_told_where_it_has_one(metrics: Metrics) -> None:
    objectives = {
        labels: number
        for (name, labels), number in series(metrics).items()
        if name == "vitrine_latency_objective_seconds"
    }
    assert objectives == {(("model", "tops"), ("version", "1")): 0.25}


def test_workers_are_summed(opened: Open) -> None:
    one, other = opened(), opened()
    for metrics, times in ((one, 3), (other, 4)):
        for _ in range(times):
            metrics.requests[CLASSIFIED].inc()
            metrics.predictions[BAG].inc()
        metrics.queue_depth[DENOISER].set(times)
        metrics.batch_size[DENOISER].observe(times)
        observed(metrics, times / 1000)
    for metrics in (one, other):
        found = series(metrics)
        assert value(found, "vitrine_requests_total") == 7
        assert value(found, "vitrine_predictions_total", label="Bag") == 7
        assert value(found, "vitrine_queue_depth") == 7
        assert value(found, "vitrine_batch_size_count") == 2
        assert value(found, "vitrine_batch_size_sum") == 7
        assert value(found, "vitrine_stage_seconds_count") == 2
        assert value(found, "vitrine_stage_seconds_sum") == pytest.approx(0.007)


def test_worker_that_takes_the_place_of_another_goes_on_counting(opened: Open) -> None:
    first = opened()
    first.requests[CLASSIFIED].inc()
    first.queue_depth[DENOISER].set(5)
    observed(first, 0.001, 0.002)
    del first
    second = opened()
    second.requests[CLASSIFIED].inc()
    found = observed(second, 0.003)
    assert value(found, "vitrine_requests_total") == 2
    assert value(found, "vitrine_stage_seconds_count") == 3
    assert value(found, "vitrine_stage_seconds_sum") == pytest.approx(0.006)
    assert value(found, "vitrine_queue_depth") == 0


def test_workers_with_other_models_are_summed_by_series(tmp_path: Path) -> None:
    """A later set of models is served by new workers while the old ones still answer."""
    newer = replace(CLASSIFIER, version="2", labels=("Bag", "Shoe"))
    old, new = (Metrics(models, PROTOCOLS, tmp_path) for models in (MODELS, [newer, CLASSIFIER]))
    for metrics in (old, new):
        metrics.requests[CLASSIFIED].inc()
        metrics.predictions[BAG].inc()
    old.queue_depth[DENOISER].set(3)
    new.predictions["tops", "2", "Shoe"].inc()
    for metrics in (old, new):
        found = series(metrics)
        assert value(found, "vitrine_requests_total", model="tops", version="1") == 2
        assert value(found, "vitrine_predictions_total", version="1", label="Bag") == 2
        assert value(found, "vitrine_predictions_total", version="2", label="Shoe") == 1
        assert value(found, "vitrine_queue_depth", model="denoiser") == 3


def test_sum_of_seconds_never_falls_when_a_worker_is_replaced(opened: Open) -> None:
    """Prometheus would take a sum that is smaller by its last bit for a restart."""
    seconds = (0.1, 0.2, 0.3, 0.7, 1.1)
    for first in range(len(seconds)):
        workers = [opened() for _ in seconds]
        for metrics, each in zip(workers, seconds, strict=True):
            observed(metrics, each)
        before = value(series(workers[-1]), "vitrine_stage_seconds_sum")
        workers[first] = opened()
        assert value(series(workers[-1]), "vitrine_stage_seconds_sum") == before


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="there is no folder in memory")
def test_room_for_all_numbers_is_taken_at_the_start() -> None:
    """A page that is not there when the disk is full kills the process that touches it."""
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as folder:
        metrics = Metrics(MODELS, PROTOCOLS, Path(folder))
        (file,) = Path(folder).glob("*.series")
        assert file.stat().st_blocks * 512 >= file.stat().st_size > 0
        assert value(series(metrics), "vitrine_requests_total") == 0


def test_metrics_without_a_folder_count_for_themselves() -> None:
    alone, other = Metrics(MODELS, PROTOCOLS), Metrics(MODELS, PROTOCOLS)
    alone.requests[CLASSIFIED].inc()
    assert value(series(alone), "vitrine_requests_total") == 1
    assert value(series(other), "vitrine_requests_total") == 0


def test_metrics_that_are_off_count_nothing(tmp_path: Path) -> None:
    metrics = Metrics(MODELS, PROTOCOLS, tmp_path, is_on=False)
    metrics.requests[CLASSIFIED].inc()
    metrics.predictions[BAG].inc()
    metrics.queue_depth[DENOISER].set(5)
    found = observed(metrics, 1, 2)
    assert {number for (name, _), number in found.items() if "objective" not in name} == {0}


def test_versions_of_a_model_have_series_of_their_own(tmp_path: Path) -> None:
    """One that is idle must not hide how many images wait for another."""
    metrics = Metrics([*MODELS, replace(CLASSIFIER, version="2")], PROTOCOLS, tmp_path)
    metrics.queue_depth["tops", "1"].set(5)
    metrics.queue_depth["tops", "2"].set(0)
    metrics.requests["tops", "2", "v1", "200"].inc()
    metrics.predictions["tops", "2", "Bag"].inc()
    metrics.batch_size["tops", "2"].observe(1)
    metrics.stage_seconds["tops", "2", "queue"].observe(1)
    found = series(metrics)
    assert value(found, "vitrine_queue_depth", model="tops") == 5
    for name in ("requests_total", "predictions_total", "batch_size_count", "stage_seconds_count"):
        assert value(found, f"vitrine_{name}", version="2") == 1
        assert value(found, f"vitrine_{name}", version="1") == 0


def test_unobserved_histogram_is_all_zero(metrics: Metrics) -> None:
    found = series(metrics)
    assert {count for _, count in buckets(found, "vitrine_stage_seconds", **PREDICT)} == {0}
    assert value(found, "vitrine_stage_seconds_sum", **PREDICT) == 0


def test_buckets_add_up_to_the_count(metrics: Metrics) -> None:
    found = observed(metrics, 0.00001, 0.0007, 0.0007, 0.3, 100)
    below = buckets(found, "vitrine_stage_seconds", **PREDICT)
    counts = [count for _, count in below]
    assert counts == sorted(counts)
    assert below[-1] == (math.inf, 5)
    assert value(found, "vitrine_stage_seconds_count", **PREDICT) == 5
    at = dict(below)
    assert [at[bound] for bound in (0.0001, 0.0005, 0.001, 0.25, 0.5, 10)] == [1, 1, 3, 3, 4, 4]


def test_observation_on_a_bound_lies_below_it(metrics: Metrics) -> None:
    at = dict(buckets(observed(metrics, 0.001, 10), "vitrine_stage_seconds", **PREDICT))
    assert (at[0.0005], at[0.001], at[5], at[10]) == (0, 1, 1, 2)


@pytest.mark.parametrize("name", ["vitrine_request_seconds", "vitrine_stage_seconds"])
def test_time_is_resolved_from_a_tenth_of_a_millisecond_to_ten_seconds(
    metrics: Metrics, name: str
) -> None:
    metrics.request_seconds[*DENOISER, "v1"].observe(1)
    bounds = [bound for bound, _ in buckets(series(metrics), name, model="denoiser")]
    finite = sorted(set(bounds) - {math.inf})
    assert (finite[0], finite[-1]) == (0.0001, 10)
    assert all(2 <= after / before <= 2.5 for before, after in pairwise(finite))


def test_each_batch_size_up_to_the_default_has_a_bucket_of_about_its_size(metrics: Metrics) -> None:
    for size in (1, 2, 4, 8, 16, 32):
        metrics.batch_size[DENOISER].observe(size)
    at = dict(buckets(series(metrics), "vitrine_batch_size", model="denoiser"))
    assert [at[size] for size in (1, 2, 4, 8, 16, 32)] == [1, 2, 3, 4, 5, 6]


def asked(metrics: Metrics) -> Iterator[Callable[[], Any]]:
    yield lambda: metrics.requests["nope", "1", "v1", "200"]
    yield lambda: metrics.requests["tops", "99", "v1", "200"]
    yield lambda: metrics.requests["tops", "1", "/scan", "200"]
    yield lambda: metrics.requests["tops", "1", "v1", "9999"]
    yield lambda: metrics.request_seconds["nope", "1", "v1"]
    yield lambda: metrics.stage_seconds["tops", "1", "nope"]
    yield lambda: metrics.predictions["tops", "1", "nope"]
    yield lambda: metrics.queue_depth["nope", "1"]


def test_no_label_value_can_be_made_up(metrics: Metrics) -> None:
    before = set(series(metrics))
    for ask in asked(metrics):
        with pytest.raises(KeyError):
            ask()
    assert set(series(metrics)) == before


@pytest.mark.parametrize("status", ["200", "400", "404", "413", "415", "499", "500", "503", "504"])
def test_what_has_no_model_is_counted_as_unknown(metrics: Metrics, status: str) -> None:
    metrics.requests[UNKNOWN_MODEL, "", "page", status].inc()
    assert value(series(metrics), "vitrine_requests_total", model="unknown", status=status) == 1


def test_sources_are_asked_on_every_scrape(metrics: Metrics) -> None:
    numbers = iter((10, 20))
    metrics.watch(lambda: [GaugeMetricFamily("vitrine_source", "", value=next(numbers))])
    for expected in (10, 20):
        assert series(metrics)["vitrine_source", ()] == expected


def test_engine_of_any_worker_that_fails_is_told_of_by_all(opened: Open) -> None:
    first, second = opened(), opened()
    assert first.failing_engines() == []
    second.engine_failing[DENOISER].set(1)
    assert first.failing_engines() == [DENOISER[0]]
    del second
    assert first.failing_engines() == []


def test_worker_knows_of_its_own_engine_where_the_shared_files_were_deleted(
    opened: Open, tmp_path: Path
) -> None:
    metrics = opened()
    for path in tmp_path.iterdir():
        path.unlink()
    assert metrics.failing_engines() == []
    metrics.engine_failing[DENOISER].set(1)
    assert metrics.failing_engines() == [DENOISER[0]]


def test_model_is_named_once_however_many_of_its_versions_fail() -> None:
    metrics = Metrics([CLASSIFIER, replace(CLASSIFIER, version="2")], PROTOCOLS)
    for version in ("1", "2"):
        metrics.engine_failing["tops", version].set(1)
    assert metrics.failing_engines() == ["tops"]
