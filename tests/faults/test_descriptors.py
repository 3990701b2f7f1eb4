"""A worker or the supervisor without file descriptors to spare."""

import contextlib
import itertools
import os
import resource
import shlex
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from service.server.acceptor import RESERVED_FILES
from tests.faults.figures import show
from tests.server import Server, come_true, command, running, serve
from tests.service.protocols.test_native import PNG, SAMPLE
from tests.service.server.test_supervisor import MODEL, PATIENCE_S, PREDICT, ask, connect, workers

pytestmark = pytest.mark.slow

SPARE = 10
MAX_LOG_LINES = 20
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


@contextlib.contextmanager
def limited(pid: int, spare: int) -> Iterator[None]:
    """Let a process open only a few more files."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = (number for number in itertools.count() if number not in used)
    limit = next(itertools.islice(free, spare, None))  # of the numbers, not of how many there are
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def unanswered(server: Server) -> socket.socket:
    """A connection on which a request was sent."""
    url = httpx.URL(server.url)
    connection = socket.create_connection((url.host, url.port), timeout=PATIENCE_S)
    connection.sendall(LIVEZ)
    return connection


def is_answered(connection: socket.socket) -> bool:
    """Whether a connection gets an answer, rather than its end."""
    answer = b""
    while not answer.endswith(b"}"):
        part = connection.recv(65536)
        if not part:
            return False
        answer += part
    return answer.startswith(b"HTTP/1.1 200 ")


def is_refused(connection: socket.socket) -> bool:
    """Whether a connection ends without an answer."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def is_answered_again(connection: socket.socket) -> bool:
    connection.sendall(LIVEZ)
    return is_answered(connection)


def busy_share(pids: list[int]) -> float:
    """The share of a CPU that processes use over a second."""

    def used_s() -> float:
        times = [psutil.Process(pid).cpu_times() for pid in pids]
        return sum(float(each.user + each.system) for each in times)

    before = used_s()
    time.sleep(1)
    return used_s() - before


def log_lines(server: Server, text: str) -> int:
    return sum(text in line for line in server.log.read_text().splitlines())


def test_connections_beyond_the_limit_wait_until_others_end(tmp_path: Path) -> None:
    def start(port: int) -> list[str]:
        return ["sh", "-c", f"ulimit -n {RESERVED_FILES + SPARE}; exec {shlex.join(command(port))}"]

    with running(start, tmp_path, models=MODEL, workers=1) as server:
        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(unanswered(server)) for _ in range(SPARE)]
            assert all(map(is_answered, held))
            waiting = [stack.enter_context(unanswered(server)) for _ in range(RESERVED_FILES)]
            assert all(map(is_answered_again, held))
            share = busy_share([server.process.pid, *workers(server)])
            show("connections beyond the limit: CPU share", share)
            assert share < 0.5
            for connection in held:
                connection.close()
            for connection in waiting:
                assert is_answered(connection)
                connection.close()
        assert " ERROR " not in server.log.read_text()
        assert server.stop(signal.SIGTERM) == 0


def test_worker_without_descriptors_serves_what_it_has_and_refuses_more(tmp_path: Path) -> None:
    with serve(tmp_path, models=MODEL, workers=1) as server, server.client() as client:
        (only,) = workers(server)
        assert client.get("/metrics").status_code == 200
        with limited(only, SPARE), contextlib.ExitStack() as more:
            opened = [more.enter_context(unanswered(server)) for _ in range(60)]
            refused = sum(map(is_refused, opened))
            assert 60 - SPARE <= refused < 60
            assert client.post(PREDICT, content=SAMPLE, headers=PNG).status_code == 200
            for path in ("/metrics", "/livez", "/readyz"):
                answer = client.get(path)
                assert answer.json() == {"error": "cannot read the metrics: Too many open files"}
                assert answer.status_code == 503
            share = busy_share([server.process.pid, only])
            show("no descriptors in the worker: CPU share", share)
            assert share < 0.5
        assert come_true(lambda: ask(server) == 200)
        assert client.get("/livez").status_code == 200
        assert 0 < log_lines(server, "no file descriptor is left") <= MAX_LOG_LINES
        assert "Traceback" not in server.log.read_text()
        assert workers(server) == [only]
        assert server.stop(signal.SIGTERM) == 0


def test_connections_wait_while_the_supervisor_has_no_descriptors(tmp_path: Path) -> None:
    with serve(tmp_path, models=MODEL, workers=1) as server, connect(server) as kept:
        with limited(server.process.pid, 0):
            waiting = unanswered(server)
            assert is_answered_again(kept)
            share = busy_share([server.process.pid])
            show("no descriptors in the supervisor: CPU share", share)
            assert share < 0.5
            waiting.settimeout(0.05)
            with pytest.raises(TimeoutError):
                waiting.recv(1)
            waiting.settimeout(PATIENCE_S)
            os.kill(workers(server)[0], signal.SIGKILL)  # noticed although it cannot accept
            assert come_true(lambda: log_lines(server, "worker ended") == 1)
            assert come_true(lambda: log_lines(server, "cannot start worker 0") >= 1)
        with waiting:
            assert is_answered(waiting)
        assert 0 < log_lines(server, "cannot accept connections") <= MAX_LOG_LINES
        assert server.stop(signal.SIGTERM) == 0
