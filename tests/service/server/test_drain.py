"""A server that is told to end: first `/readyz` says so, while requests are still taken."""

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.server import STOP_TIMEOUT_S, Server, bentoml_command, command, running, serve
from tests.service.protocols.test_native import PNG, SAMPLE

MODEL = "fashion-mnist-mlp"
PREDICT = f"/v1/models/{MODEL}:predict"
DRAIN_S = 2.0
LONG_S = 3600


def ask(client: httpx.Client) -> httpx.Response:
    return client.post(PREDICT, content=SAMPLE, headers=PNG)


def status(server: Server, path: str) -> int:
    return httpx.get(server.url + path).status_code


def begin_to_drain(server: Server) -> None:
    """Send SIGTERM and return once the server says that it is no longer ready."""
    server.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while status(server, "/readyz") == 200:
        assert time.monotonic() < deadline


@pytest.mark.parametrize("start", [command, bentoml_command])
def test_draining_server_takes_requests_until_its_time_is_up(
    tmp_path: Path, start: Callable[[int], list[str]]
) -> None:
    # Under BentoML each worker gets a signal of its own, one after the other.
    count = 2 if start is command else 1
    with running(start, tmp_path, models=MODEL, workers=count, drain_s=DRAIN_S) as server:
        asked_at = time.monotonic()
        begin_to_drain(server)
        assert httpx.get(f"{server.url}/readyz").json()["error"]
        assert status(server, "/livez") == 200
        with server.client() as client:
            while time.monotonic() < asked_at + DRAIN_S - 1:
                assert ask(client).status_code == 200
        assert server.process.wait(STOP_TIMEOUT_S) == 0
        assert time.monotonic() >= asked_at + DRAIN_S


def test_answers_of_a_draining_server_close_their_connection(tmp_path: Path) -> None:
    with serve(tmp_path, models=MODEL, workers=1, drain_s=LONG_S) as server:
        with server.client() as client:
            assert "connection" not in ask(client).headers
            begin_to_drain(server)
            for answer in (
                ask(client),  # in one piece
                client.post(PREDICT, content=iter([SAMPLE[:9], SAMPLE[9:]]), headers=PNG),
                client.get("/v1/models"),
            ):
                assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert server.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_draining_server_that_is_asked_again_ends(tmp_path: Path, again: signal.Signals) -> None:
    with serve(tmp_path, models=MODEL, workers=2, drain_s=LONG_S) as server:
        begin_to_drain(server)
        assert server.stop(again) == 0


def test_ctrl_c_ends_a_server_without_draining(tmp_path: Path) -> None:
    with serve(tmp_path, models=MODEL, workers=1, drain_s=LONG_S) as server:
        assert server.stop(signal.SIGINT) == 0


def test_new_connections_are_taken_while_a_server_drains(tmp_path: Path) -> None:
    statuses: list[int] = []
    with serve(tmp_path, models=MODEL, workers=2, drain_s=DRAIN_S) as server:
        asked_at = time.monotonic()

        def go_on_asking() -> None:
            while time.monotonic() < asked_at + DRAIN_S - 1:
                with server.client() as client:
                    statuses.append(ask(client).status_code)

        clients = [threading.Thread(target=go_on_asking) for _ in range(4)]
        for client in clients:
            client.start()
        assert server.stop(signal.SIGTERM) == 0
        for client in clients:
            client.join(STOP_TIMEOUT_S)
    assert len(statuses) > 20
    assert set(statuses) == {200}
