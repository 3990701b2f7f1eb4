import math
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from service.artifacts.manifest import read_manifest
from service.telemetry.metrics import STAGES, UNKNOWN_MODEL, Metrics
from tests.exposition import Series, parsed, value
from tests.server import CHECKOUT

MODELS = [read_manifest(CHECKOUT / "models" / name / "1") for name in ("fashion-mnist", "denoiser")]
FAMILIES = {
    "vitrine_requests": {"model", "version", "protocol", "status"},
    "vitrine_request_seconds": {"model", "protocol"},
    "vitrine_stage_seconds": {"model", "stage"},
    "vitrine_batch_size": {"model"},
    "vitrine_queue_depth": {"model"},
    "vitrine_progressive_jpegs": {"model"},
    "vitrine_engine_failing": {"model", "version"},
    "vitrine_predictions": {"model", "label"},
    "vitrine_model_info": {"model", "version", "engine", "device", "sha256"},
}
SHARED_MEMORY = Path("/dev/shm")
CLASSIFIED = ("fashion-mnist", "1", "v1", "200")
BAG = ("fashion-mnist", "Bag")
Open = Callable[[int], Metrics]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Opens the metrics of one worker of several that share a folder."""
    return lambda worker: Metrics(MODELS, tmp_path, worker)


@pytest.fixture
def metrics(opened: Open) -> Metrics:
    return opened(1)


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
        metrics.stage_seconds["denoiser", "predict"].observe(each)
    return series(metrics)


PREDICT = {"model": "denoiser", "stage": "predict"}


def test_text_holds_every_metric_with_its_labels(metrics: Metrics) -> None:
    metrics.announce(MODELS[0], "litert", "cpu", "0123")
    metrics.requests[CLASSIFIED].inc()
    metrics.request_seconds["fashion-mnist", "v1"].observe(0.001)
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


def test_only_requests_that_came_have_a_series(metrics: Metrics) -> None:
    metrics.requests[CLASSIFIED].inc()
    names = ("model", "version", "protocol", "status")
    requests = {
        pairs: number
        for (name, pairs), number in series(metrics).items()
        if name == "vitrine_requests_total"
    }
    assert requests == {tuple(sorted(zip(names, CLASSIFIED, strict=True))): 1}


def test_workers_are_summed(opened: Open) -> None:
    one, other = opened(1), opened(2)
    for metrics, times in ((one, 3), (other, 4)):
        for _ in range(times):
            metrics.requests[CLASSIFIED].inc()
            metrics.predictions[BAG].inc()
        metrics.queue_depth[("denoiser",)].set(times)
        metrics.batch_size[("denoiser",)].observe(times)
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


def test_worker_that_starts_again_goes_on_counting(opened: Open) -> None:
    first = opened(1)
    first.requests[CLASSIFIED].inc()
    first.queue_depth[("denoiser",)].set(5)
    observed(first, 0.001, 0.002)
    del first
    second = opened(1)
    second.requests[CLASSIFIED].inc()
    found = observed(second, 0.003)
    assert value(found, "vitrine_requests_total") == 2
    assert value(found, "vitrine_stage_seconds_count") == 3
    assert value(found, "vitrine_stage_seconds_sum") == pytest.approx(0.006)
    assert value(found, "vitrine_queue_depth") == 0


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="there is no folder in memory")
def test_room_for_all_numbers_is_taken_at_the_start() -> None:
    """A page that is not there when the disk is full kills the process that touches it."""
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as folder:
        Metrics(MODELS, Path(folder))
        (file,) = Path(folder).iterdir()
        assert file.stat().st_blocks * 512 >= file.stat().st_size > 0


def test_metrics_without_a_folder_count_for_themselves() -> None:
    alone, other = Metrics(MODELS), Metrics(MODELS)
    alone.requests[CLASSIFIED].inc()
    assert value(series(alone), "vitrine_requests_total") == 1
    assert value(series(other), "vitrine_requests_total") == 0


def test_metrics_that_are_off_count_nothing(tmp_path: Path) -> None:
    metrics = Metrics(MODELS, tmp_path, is_on=False)
    metrics.requests[CLASSIFIED].inc()
    metrics.predictions[BAG].inc()
    metrics.queue_depth[("denoiser",)].set(5)
    assert set(observed(metrics, 1, 2).values()) == {0}


def test_versions_of_a_model_have_requests_of_their_own_and_share_the_rest(tmp_path: Path) -> None:
    second = MODELS[0].model_copy(update={"version": "2"})
    metrics = Metrics([*MODELS, second], tmp_path)
    metrics.requests["fashion-mnist", "2", "v1", "200"].inc()
    metrics.predictions[BAG].inc()
    found = series(metrics)
    assert value(found, "vitrine_requests_total", version="2") == 1
    assert value(found, "vitrine_requests_total", version="1") == 0
    assert value(found, "vitrine_predictions_total", label="Bag") == 1


def test_unobserved_histogram_is_all_nought(metrics: Metrics) -> None:
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
    metrics.request_seconds["denoiser", "v1"].observe(1)
    bounds = [bound for bound, _ in buckets(series(metrics), name, model="denoiser")]
    finite = sorted(set(bounds) - {math.inf})
    assert (finite[0], finite[-1]) == (0.0001, 10)
    assert all(2 <= after / before <= 2.5 for before, after in pairwise(finite))


def test_each_batch_size_up_to_the_default_has_a_bucket_of_about_its_size(metrics: Metrics) -> None:
    for size in (1, 2, 4, 8, 16, 32):
        metrics.batch_size[("denoiser",)].observe(size)
    at = dict(buckets(series(metrics), "vitrine_batch_size", model="denoiser"))
    assert [at[size] for size in (1, 2, 4, 8, 16, 32)] == [1, 2, 3, 4, 5, 6]


def asked(metrics: Metrics) -> Iterator[Callable[[], Any]]:
    yield lambda: metrics.requests["nope", "1", "v1", "200"]
    yield lambda: metrics.requests["fashion-mnist", "99", "v1", "200"]
    yield lambda: metrics.requests["fashion-mnist", "1", "/scan", "200"]
    yield lambda: metrics.requests["fashion-mnist", "1", "v1", "9999"]
    yield lambda: metrics.request_seconds["nope", "v1"]
    yield lambda: metrics.stage_seconds["fashion-mnist", "nope"]
    yield lambda: metrics.predictions["fashion-mnist", "nope"]
    yield lambda: metrics.queue_depth[("nope",)]


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
    first, second = opened(1), opened(2)
    assert not first.is_any_engine_failing()
    second.engine_failing["denoiser", "1"].set(1)
    assert first.is_any_engine_failing()
    opened(2)  # a worker that took the other's place
    assert not first.is_any_engine_failing()
