"""Workers that are killed, that hang or only seem to, and workers without a supervisor."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.server.supervisor import RESTART_PAUSE_S
from tests.exposition import value
from tests.faults.figures import show
from tests.faults.load import MODEL, Load, running_load
from tests.server import Server, come_true, serve
from tests.service.server.test_supervisor import (
    ask,
    connected,
    held_connections,
    metrics,
    owner,
    runs,
    workers,
)

CLIENTS = 8


def ready_workers(server: Server) -> float:
    return value(metrics(server), "vitrine_workers_ready")


def hangs(server: Server) -> float:
    return value(metrics(server), "vitrine_worker_hangs_total")


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Stop processes; go on with those that still run at the end."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def seconds_until_ready(server: Server, since: float) -> float:
    assert come_true(lambda: ready_workers(server) == 2)
    return time.monotonic() - since


def test_killed_worker_fails_only_its_own_requests(tmp_path: Path) -> None:
    with serve(tmp_path, models=MODEL, workers=2) as server:
        with running_load(Load([server.url]), CLIENTS) as load:
            assert come_true(lambda: len(load.outcomes) > 20 * CLIENTS)
            killed = workers(server)[0]
            own = held_connections(server)[killed]
            os.kill(killed, signal.SIGKILL)
            at = time.monotonic()
            assert come_true(lambda: "worker ended with exit code -9" in server.log.read_text())
            ready = ready_workers(server)
            if time.monotonic() - at < RESTART_PAUSE_S:  # on a busy machine it may be back
                assert ready == 1
            ready_s = seconds_until_ready(server, at)
            after = len(load.outcomes)
            assert come_true(lambda: len(load.outcomes) > after + 20 * CLIENTS)
        failed = load.failures()
        show("killed: requests that failed, of those answered", (len(failed), len(load.outcomes)))
        show("killed: seconds until both workers are ready", round(ready_s, 2))
        assert 0 < own <= CLIENTS
        assert len(failed) <= own


@pytest.mark.slow
def test_hung_worker_gets_no_new_connection_and_is_replaced(tmp_path: Path) -> None:
    with serve(tmp_path, models=MODEL, workers=2) as server:
        before = workers(server)
        with connected(server, 2) as kept:
            hung = owner(server, kept[0])
            with stopped(hung):
                at = time.monotonic()
                assert come_true(lambda: ready_workers(server) == 1)
                silent_s = time.monotonic() - at
                assert [ask(server) for _ in range(20)] == [200] * 20
                held = held_connections(server)
                assert held[hung] == 1  # the one that it had
                ready_s = seconds_until_ready(server, at)
            assert kept[0].recv(1) == b""
        assert hung not in workers(server)
        assert set(before) - {hung} < set(workers(server))
        assert hangs(server) == 1
        assert [ask(server) for _ in range(4)] == [200] * 4
        assert "worker hangs, and is killed worker=" in server.log.read_text()
        show("hung: seconds until it gets no new connection", round(silent_s, 2))
        show("hung: seconds until both workers are ready", round(ready_s, 2))
        assert server.stop(signal.SIGTERM) == 0


def test_connections_wait_while_the_only_worker_hangs(tmp_path: Path) -> None:
    settings = {"models": MODEL, "workers": 1, "hang_timeout_s": 2}
    with serve(tmp_path, **settings) as server:
        (hung,) = workers(server)
        with stopped(hung):
            time.sleep(1.6 + 0.5)  # until it is known to be silent
            assert ask(server) == 200
        assert server.stop(signal.SIGTERM) == 0


@pytest.mark.slow
def test_hung_worker_does_not_keep_the_server_from_ending(tmp_path: Path) -> None:
    with (
        serve(tmp_path, models=MODEL, workers=2, hang_timeout_s=1) as server,
        stopped(workers(server)[0]),
    ):
        assert server.stop(signal.SIGTERM) == 0


@pytest.mark.slow
def test_pause_of_a_worker_or_of_the_whole_machine_is_no_hang(tmp_path: Path) -> None:
    with serve(tmp_path, models=MODEL, workers=2, hang_timeout_s=3) as server:
        before = workers(server)
        with stopped(before[0]):
            time.sleep(1.5)  # as a computation does that keeps the interpreter to itself
        time.sleep(0.5)
        with stopped(server.process.pid, *before):
            time.sleep(4)  # beyond the limit, but the supervisor could not look
        time.sleep(1)
        assert workers(server) == before
        assert hangs(server) == 0
        assert ask(server) == 200


@pytest.mark.slow
def test_worker_on_a_busy_machine_is_not_taken_for_hung(tmp_path: Path) -> None:
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(2 * (os.cpu_count() or 1))
    ]
    try:
        with serve(tmp_path, workers=2) as server:
            before = workers(server)
            with running_load(Load([server.url], pause_s=0), 16) as load:
                time.sleep(6)  # beyond the limit
            assert load.failures() == []
            assert hangs(server) == 0
            assert workers(server) == before
    finally:
        for each in busy:
            each.kill()
            each.wait()


def test_killed_supervisor_leaves_no_worker_and_a_free_port(tmp_path: Path) -> None:
    with serve(tmp_path, models=MODEL, workers=2) as server:
        left = workers(server)
        with connected(server, 4) as open_ones:
            server.process.kill()
            at = time.monotonic()
            server.process.wait()
            assert come_true(lambda: not any(map(runs, left)))
            assert [each.recv(1) for each in open_ones] == [b""] * 4
        url = httpx.URL(server.url)
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            assert url.port
            again.bind((url.host, url.port))
            again.listen()
        show("killed supervisor: seconds until the port is free", round(time.monotonic() - at, 2))
