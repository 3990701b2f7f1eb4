"""What a server may use and uses, over all of its processes."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from service.machine import cpu_quota
from service.telemetry.usage import usage_metrics
from tests.exposition import value
from tests.server import Server, bentoml_command, come_true, command, running
from tests.service.server.test_supervisor import MODEL, metrics, runs, workers

WORKERS = 2


@pytest.fixture(scope="module", params=[command, bentoml_command])
def either(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("usage")
    with running(request.param, folder, models=MODEL, workers=WORKERS, queue_limit=7) as server:
        yield server


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Server]:
    with running(command, tmp_path, models=MODEL, workers=WORKERS) as server:
        yield server


def metric(server: Server, name: str) -> float:
    return value(metrics(server), name)


def test_limits_are_told(either: Server) -> None:
    found = metrics(either)
    assert value(found, "vitrine_workers") == WORKERS
    assert value(found, "vitrine_cpus") == cpu_quota()
    assert value(found, "vitrine_queue_limit", model=MODEL) == WORKERS * 7


def test_every_worker_is_counted_once(either: Server) -> None:
    assert come_true(lambda: metric(either, "vitrine_workers_ready") == WORKERS)
    assert metric(either, "vitrine_worker_starts_total") == WORKERS


@pytest.mark.skipif(not psutil.LINUX, reason="shared memory is told apart on Linux alone")
def test_memory_is_that_of_all_processes(either: Server) -> None:
    server = psutil.Process(either.process.pid)
    memory = [process.memory_full_info().pss for process in (server, *server.children())]
    assert metric(either, "vitrine_memory_bytes") == pytest.approx(sum(memory), rel=0.1)


def test_memory_that_another_process_does_not_show_is_told_with_what_is_shared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def denied(_: psutil.Process) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "memory_full_info", denied)
    families = {family.name: family for family in usage_metrics(os.getpid())}
    (sample,) = families["vitrine_memory_bytes"].samples
    assert sample.value >= psutil.Process().memory_info().rss * 0.9


def test_cpu_time_grows_with_work(either: Server) -> None:
    before = metric(either, "vitrine_cpu_seconds_total")
    with either.client() as client:
        for _ in range(200):
            client.get("/livez")
    assert metric(either, "vitrine_cpu_seconds_total") > before > 0


def test_start_is_when_the_server_was_started(either: Server) -> None:
    created = psutil.Process(either.process.pid).create_time()
    started = {metric(either, "vitrine_start_time_seconds") for _ in range(8)}
    assert len(started) == 1  # whichever worker tells
    assert created - 1 < started.pop() < time.time()


def test_worker_that_is_replaced_counts_as_another_start(ours: Server) -> None:
    cpu_s = metric(ours, "vitrine_cpu_seconds_total")
    killed = workers(ours)[0]
    os.kill(killed, signal.SIGKILL)
    assert come_true(lambda: not runs(killed) and len(workers(ours)) == WORKERS)
    assert come_true(lambda: metric(ours, "vitrine_worker_starts_total") == WORKERS + 1)
    assert come_true(lambda: metric(ours, "vitrine_workers_ready") == WORKERS)
    assert metric(ours, "vitrine_cpu_seconds_total") >= cpu_s


@pytest.mark.parametrize("file", ["model.tflite", "manifest.json"])
def test_worker_that_cannot_start_is_missing(tmp_path: Path, models_dir: Path, file: str) -> None:
    with running(command, tmp_path, models_dir=models_dir, workers=WORKERS) as server:
        (models_dir / "fashion-mnist" / "1" / file).write_bytes(b"altered")
        os.kill(workers(server)[0], signal.SIGKILL)
        assert come_true(lambda: metric(server, "vitrine_workers_ready") == WORKERS - 1)
        assert come_true(lambda: metric(server, "vitrine_worker_starts_total") > WORKERS + 1)
