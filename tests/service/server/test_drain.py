"""Draining before a stop: `/readyz` answers 503 while requests are still answered."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.server import STOP_TIMEOUT_S, Server, bentoml_command, command, running, serve
from tests.service.protocols.test_native import PNG, SAMPLE

MODEL = "fashion-mnist-mlp"
PREDICT = f"/v1/models/{MODEL}:predict"
DRAIN_S = 3.0
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
def test_draining_server_answers_requests_until_its_time_is_up(
    tmp_path: Path, start: Callable[[int], list[str]]
) -> None:
    # BentoML signals its workers one after the other.
    count = 2 if start is command else 1
    with running(start, tmp_path, models=MODEL, workers=count, drain_s=DRAIN_S) as server:
        asked_at = time.monotonic()
        begin_to_drain(server)
        assert httpx.get(f"{server.url}/readyz").json()["error"]
        assert status(server, "/livez") == 200
        with server.client() as client:
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
def test_second_signal_stops_a_draining_server_at_once(
    tmp_path: Path, again: signal.Signals
) -> None:
    with serve(tmp_path, models=MODEL, workers=2, drain_s=LONG_S) as server:
        begin_to_drain(server)
        assert server.stop(again) == 0


def test_ctrl_c_stops_a_server_without_draining(tmp_path: Path) -> None:
    with serve(tmp_path, models=MODEL, workers=1, drain_s=LONG_S) as server:
        assert server.stop(signal.SIGINT) == 0


def test_draining_server_takes_new_connections(tmp_path: Path) -> None:
    with serve(tmp_path, models=MODEL, workers=2, drain_s=LONG_S) as server:
        begin_to_drain(server)
        for _ in range(20):
            with server.client() as client:
                assert ask(client).status_code == 200
        assert server.stop(signal.SIGTERM) == 0
