"""A rolling update with real processes: no request is lost while every server is replaced.

haproxy stands for the Service: it asks `/readyz`, sends requests in turn to whoever is ready, and
never tries one again. As in a cluster, the next server is there before the last one is told to end.
"""

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.exposition import value
from tests.load.run import run_locust
from tests.programs import program
from tests.server import STOP_TIMEOUT_S, Server, free_port, serve
from tests.service.server.test_supervisor import metrics

pytestmark = pytest.mark.slow

MODELS = "fashion-mnist,hand-signs,denoiser"
DRAIN_S = 2.0
LOAD_S = 300  # at most
USERS = 8
PATIENCE_S = 60
HARD = ("--think-time", "0")

CONFIGURATION = """
global
    maxconn 200
defaults
    mode http
    retries 0
    timeout check 5s
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend vitrine
    bind 127.0.0.1:{port}
    default_backend servers
backend servers
    balance roundrobin
    option httpchk GET /readyz
    default-server check inter 100ms fall 1 rise 1
{servers}
"""


@contextlib.contextmanager
def proxy(folder: Path, ports: list[int]) -> Iterator[str]:
    """haproxy before servers on these ports, whether they are there yet or not."""
    port = free_port()
    servers = [f"    server s{number} 127.0.0.1:{at}" for number, at in enumerate(ports)]
    file = folder / "haproxy.cfg"
    file.write_text(CONFIGURATION.format(port=port, servers="\n".join(servers)))
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen(
            [program("haproxy"), "-db", "-f", str(file)], stdout=log, stderr=log
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)


def served_images(server: Server) -> float:
    return value(metrics(server), "vitrine_requests_total", protocol="v1", status="200")


def wait_until_it_serves(server: Server) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not served_images(server):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def end_locust() -> None:
    """Let it write its reports and end before its time is up."""
    for child in psutil.Process().children():
        if "locust" in child.cmdline():
            child.terminate()


def test_rolling_update_loses_no_request(tmp_path: Path) -> None:
    program("haproxy")
    ports = [free_port() for _ in range(4)]
    settings = {"models": MODELS, "workers": 1, "drain_s": DRAIN_S}
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as background:

        def started(port: int) -> Server:
            return stack.enter_context(serve(tmp_path, port, **settings))

        old = [started(port) for port in ports[:2]]
        url = stack.enter_context(proxy(tmp_path, ports))
        load = background.submit(
            run_locust, url, users=USERS, time_s=LOAD_S, folder=tmp_path, arguments=HARD
        )
        stack.callback(end_locust)
        for leaving, port in zip(old, ports[2:], strict=True):
            wait_until_it_serves(leaving)
            wait_until_it_serves(started(port))
            assert leaving.stop(signal.SIGTERM) == 0
        assert not load.done()  # all of it happened under load
        end_locust()
        result = load.result()
    assert result.failure_texts == []
    assert result.requests > 1000
