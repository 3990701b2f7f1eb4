"""Restarts under load, behind a client that leaves out servers that are not ready."""

import contextlib
import signal
import time
from pathlib import Path

import pytest

from tests.faults.figures import show
from tests.faults.load import MODEL, PNG, Load, running_load
from tests.server import Server, come_true, free_port, serve
from tests.service.server.test_supervisor import connected, runs, workers

DRAIN_S = 1
CLIENTS = 4
BETWEEN = 40  # requests


def wait_for_more(load: Load) -> None:
    seen = len(load.outcomes)
    assert come_true(lambda: len(load.outcomes) > seen + BETWEEN)


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [10, pytest.param(50, marks=pytest.mark.long)])
def test_restarts_lose_no_request(restarts: int, tmp_path: Path) -> None:
    settings = {"models": MODEL, "workers": 1, "drain_s": DRAIN_S}
    ports = [free_port(), free_port()]
    with contextlib.ExitStack() as last:

        def start(port: int) -> tuple[Server, contextlib.ExitStack]:
            stack = contextlib.ExitStack()
            server = stack.enter_context(serve(tmp_path, port, **settings))
            last.callback(stack.close)
            return server, stack

        servers = [start(port) for port in ports]
        urls = [server.url for server, _ in servers]
        load = Load(urls, pause_s=0.02)
        # These have no connection that was there before the server began to end.
        anew = Load(urls, headers=PNG | {"Connection": "close"}, pause_s=0.02, left=load.left)
        with running_load(load, CLIENTS, polls=True), running_load(anew, CLIENTS):
            for turn in range(restarts):
                server, stack = servers[turn % 2]
                wait_for_more(load)
                assert server.stop(signal.SIGTERM) == 0
                stack.close()
                servers[turn % 2] = start(ports[turn % 2])
                assert come_true(lambda: not load.left)
            wait_for_more(load)
    outcomes, failures = load.outcomes + anew.outcomes, load.failures() + anew.failures()
    show(f"{restarts} restarts: requests, failures", (len(outcomes), len(failures)))
    assert failures == []


def test_second_sigterm_ends_at_once(tmp_path: Path) -> None:
    with (
        serve(tmp_path, models=MODEL, workers=2, drain_s=3600) as server,
        connected(server, 2) as kept,
    ):
        left = workers(server)
        server.process.send_signal(signal.SIGTERM)
        assert come_true(lambda: server.get("/readyz").status_code == 503)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        show("second SIGTERM: seconds until the end", round(time.monotonic() - began, 2))
        assert not any(map(runs, left))
        assert [connection.recv(1) for connection in kept] == [b""] * 2
