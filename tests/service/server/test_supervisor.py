"""The launcher and its workers, as processes."""

import contextlib
import json
import os
import re
import resource
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import httpx
import psutil
import pytest

from service.machine import MAX_OPEN_FILES
from tests.exposition import Series, parsed, value
from tests.server import (
    CHECKOUT,
    Server,
    come_true,
    command,
    environment,
    free_port,
    running,
    serve,
)
from tests.service.protocols.test_native import PNG, SAMPLE

MODEL = "fashion-mnist-mlp"
PREDICT = f"/v1/models/{MODEL}:predict"
FEW_FILES = 256
PATIENCE_S = 30  # reached only where a test fails


def workers(server: Server) -> list[int]:
    """The process ids of a server's workers."""
    return [child.pid for child in psutil.Process(server.process.pid).children()]


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended may be a zombie."""
    try:
        ended: bool = psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    return not ended


def held_connections(server: Server) -> dict[int, int]:
    """How many connections every worker holds."""
    return {
        pid: sum(
            connection.status == psutil.CONN_ESTABLISHED
            for connection in psutil.Process(pid).net_connections("tcp")
        )
        for pid in workers(server)
    }


def metrics(server: Server) -> Series:
    return parsed(httpx.get(f"{server.url}/metrics").text)


def ask(server: Server) -> int:
    """The status of an image, sent on a connection of its own."""
    return httpx.post(f"{server.url}{PREDICT}", content=SAMPLE, headers=PNG).status_code


@contextlib.contextmanager
def connected(server: Server, count: int) -> Iterator[list[socket.socket]]:
    """Connections that stay open after a request each was answered on them."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(server)) for _ in range(count)]
        yield connections


def connect(server: Server) -> socket.socket:
    """A connection on which one request was answered."""
    url = httpx.URL(server.url)
    connection = socket.create_connection((url.host, url.port), timeout=PATIENCE_S)
    connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = b""
    while not answer.endswith(b"}"):
        part = connection.recv(65536)
        assert part, "closed"
        answer += part
    assert answer.startswith(b"HTTP/1.1 200 ")
    return connection


def owner(server: Server, connection: socket.socket) -> int:
    """The worker that holds the other end of a connection."""
    here = connection.getsockname()
    for pid in workers(server):
        for found in psutil.Process(pid).net_connections("tcp"):
            if found.raddr == here:
                return pid
    raise LookupError(f"no worker holds {here}")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of two workers, for tests that leave them alive and without connections.

    It may open few files, unless it asks for more.
    """

    def start(port: int) -> list[str]:
        return ["sh", "-c", f"ulimit -S -n {FEW_FILES}; exec {shlex.join(command(port))}"]

    with running(start, tmp_path_factory.mktemp("pair"), models=MODEL, workers=2) as server:
        yield server


@pytest.fixture
def idle_pair(pair: Server) -> Server:
    assert come_true(lambda: set(held_connections(pair).values()) == {0})
    return pair


def test_workers_may_open_as_many_files_as_the_system_allows(pair: Server) -> None:
    for pid in (pair.process.pid, *workers(pair)):
        limit, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        assert limit == (
            MAX_OPEN_FILES if most == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, most)
        )
        assert limit > FEW_FILES


def test_connections_are_spread_evenly(idle_pair: Server) -> None:
    with connected(idle_pair, 16):
        assert list(held_connections(idle_pair).values()) == [8, 8]


def test_connections_are_spread_evenly_where_they_are_few(idle_pair: Server) -> None:
    with connected(idle_pair, 2):
        assert list(held_connections(idle_pair).values()) == [1, 1]


def test_new_connections_go_to_the_worker_with_the_fewest(idle_pair: Server) -> None:
    with connected(idle_pair, 16) as first:
        emptied = owner(idle_pair, first[0])
        for connection in first:
            if owner(idle_pair, connection) == emptied:
                connection.close()
        assert come_true(lambda: held_connections(idle_pair)[emptied] == 0)
        with connected(idle_pair, 4) as later:
            assert {owner(idle_pair, connection) for connection in later} == {emptied}


def test_connection_without_a_request_goes_to_a_worker_too(idle_pair: Server) -> None:
    url = httpx.URL(idle_pair.url)
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(socket.create_connection((url.host, url.port)))
        assert come_true(lambda: list(held_connections(idle_pair).values()) == [2, 2])


def test_worker_that_is_killed_is_replaced_and_its_counts_are_kept(tmp_path: Path) -> None:
    with serve(tmp_path, models=MODEL, workers=2) as server:
        assert [ask(server) for _ in range(10)] == [200] * 10
        before = workers(server)
        os.kill(before[0], signal.SIGKILL)
        assert come_true(lambda: len(set(workers(server)) - set(before)) == 1)
        # One worker answers alone until the other is ready.
        assert [ask(server) for _ in range(10)] == [200] * 10

        def new_worker_answers() -> bool:
            with connected(server, 2):
                return list(held_connections(server).values()) == [1, 1]

        assert come_true(new_worker_answers)
        assert [ask(server) for _ in range(10)] == [200] * 10
        after = metrics(server)
        assert server.stop(signal.SIGTERM) == 0
    assert value(after, "vitrine_requests_total", model=MODEL, status="200") == 30
    assert value(after, "vitrine_requests_total", model=MODEL) == 30
    assert value(after, "vitrine_predictions_total", label="Trouser") == 30
    assert value(after, "vitrine_batch_size_sum") == 30
    assert value(after, "vitrine_queue_depth") == 0


def test_death_of_a_worker_is_logged(tmp_path: Path) -> None:
    with serve(tmp_path, models=MODEL, workers=1, log_format="json") as server:
        (killed,) = workers(server)
        os.kill(killed, signal.SIGKILL)
        assert come_true(lambda: workers(server) not in ([], [killed]))
        assert come_true(
            lambda: '"worker ended with exit code -9", "worker": 0' in server.log.read_text()
        )
        assert server.stop() == 0


@dataclass
class Start:
    """A server that may not be ready yet."""

    process: subprocess.Popen[bytes]
    log: Path


@contextlib.contextmanager
def started(folder: Path, port: int, **settings: object) -> Iterator[Start]:
    handle, name = tempfile.mkstemp(dir=folder)
    with open(handle, "wb") as output:
        process = subprocess.Popen(
            command(port), cwd=CHECKOUT, env=environment(**settings), stdout=output, stderr=output
        )
    try:
        yield Start(process, Path(name))
    finally:
        process.terminate()
        process.wait()


def failed_start(
    *arguments: str,
    limits: str = "true",
    **settings: object,
) -> str:
    """What a server writes that cannot start; `limits` is a shell command to run before."""
    server = shlex.join([sys.executable, "-m", "service", "--port", "0", *arguments])
    ran = subprocess.run(
        ["sh", "-c", f"{limits}; exec {server}"],
        cwd=CHECKOUT,
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ran.returncode == 1
    output: str = ran.stdout
    return output


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_port_in_use_stops_the_start_with_one_line(host: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port: int = other.getsockname()[1]
        output = failed_start("--host", host, "--port", str(port))
    assert output == f"error: cannot listen on {host}:{port}: Address already in use\n"


def test_port_that_another_process_takes_during_the_start_stops_it_with_one_line(
    tmp_path: Path,
) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        port: int = other.getsockname()[1]
        with started(tmp_path, port, workers=1) as start:
            process = psutil.Process(start.process.pid)
            assert come_true(lambda: process.children() != [])
            other.listen()  # the worker has yet to load its models
            assert start.process.wait(PATIENCE_S) == 1
            *_, last = start.log.read_text().splitlines()
    assert last == f"error: cannot listen on 0.0.0.0:{port}: Address already in use"


def test_unknown_host_stops_the_start_with_one_line() -> None:
    (line,) = failed_start("--host", "no host").splitlines()
    assert line.startswith("error: cannot listen on no host:0: ")


def test_models_folder_that_is_missing_stops_the_start_with_one_line(tmp_path: Path) -> None:
    (line,) = failed_start(models_dir=tmp_path / "models", workers=1).splitlines()
    assert line.startswith("error: VITRINE_MODELS_DIR")
    assert str(tmp_path / "models") in line


def test_unusable_setting_stops_the_start_with_one_line() -> None:
    (line,) = failed_start(workers="many").splitlines()
    assert line.startswith("error: VITRINE_WORKERS: ")


def test_start_without_a_usable_temporary_folder_ends_with_one_line() -> None:
    # Nothing can be written anywhere: Python finds no temporary folder that it could use.
    (line,) = failed_start(limits="ulimit -f 0").splitlines()
    assert line.startswith("error: cannot start: ")
    assert "No usable temporary directory found" in line


def test_metrics_folder_that_is_missing_stops_the_start_with_one_line(tmp_path: Path) -> None:
    (line,) = failed_start(metrics_dir=tmp_path / "missing").splitlines()
    assert line.startswith("error: cannot start: ")
    assert str(tmp_path / "missing") in line


def test_metrics_files_that_cannot_be_written_stop_the_start_with_one_line(tmp_path: Path) -> None:
    output = failed_start(limits="ulimit -f 0", metrics_dir=tmp_path, workers=1)
    (line,) = output.splitlines()
    assert line == "error: cannot start: [Errno 27] File too large"


def test_too_few_file_descriptors_for_all_workers_stop_the_start_with_one_line() -> None:
    # The workers that were started before may have loaded models by then.
    *loaded, line = failed_start(limits="ulimit -n 64", workers=64).splitlines()
    assert all(" INFO loaded " in each for each in loaded)
    assert re.fullmatch(r"error: cannot start worker \d+: Too many open files", line)


def test_bad_setting_is_one_object_of_json_where_lines_are_json() -> None:
    line = json.loads(failed_start(log_format="json", workers=0))
    assert (line["level"], "VITRINE_WORKERS" in line["message"]) == ("critical", True)


def test_bad_start_is_one_object_of_json_where_lines_are_json(tmp_path: Path) -> None:
    output = failed_start(models_dir=tmp_path / "models", workers=1, log_format="json")
    line = json.loads(output)
    assert line["level"] == "critical"
    assert line["message"].startswith("VITRINE_MODELS_DIR")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_server_that_is_stopped_leaves_nothing_behind(
    tmp_path: Path, how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with serve(tmp_path, models=MODEL, workers=2) as server:
        left = workers(server)
        assert len(left) == 2
        (folder,) = tmp_path.glob("vitrine-metrics-*")
        assert server.stop(how) == 0
        assert not any(map(runs, left))
        assert not folder.exists()
        assert "Traceback" not in server.log.read_text()


def test_server_stops_while_connections_are_open(tmp_path: Path) -> None:
    with serve(tmp_path, models=MODEL, workers=2) as server, connected(server, 4) as connections:
        assert server.stop(signal.SIGTERM) == 0
        assert [connection.recv(1) for connection in connections] == [b""] * 4


def test_server_that_is_killed_leaves_no_worker_behind(tmp_path: Path) -> None:
    with serve(tmp_path, models=MODEL, workers=2) as server:
        left = workers(server)
        assert len(left) == 2
        server.process.kill()
        server.process.wait()
        try:
            assert come_true(lambda: not any(map(runs, left)))
        finally:
            for pid in filter(runs, left):
                os.kill(pid, signal.SIGKILL)


def test_server_that_is_stopped_before_it_is_ready_ends(tmp_path: Path) -> None:
    with started(tmp_path, free_port(), workers=2) as start:
        process = psutil.Process(start.process.pid)
        assert come_true(lambda: len(process.children()) == 2)
        start.process.send_signal(signal.SIGTERM)
        assert start.process.wait(PATIENCE_S) == 0
        assert "Traceback" not in start.log.read_text()


def test_address_is_logged_once_when_all_workers_are_ready(pair: Server) -> None:
    port = httpx.URL(pair.url).port
    lines = pair.log.read_text().splitlines()
    (listening,) = (index for index, line in enumerate(lines) if "Listening on" in line)
    assert lines[listening].endswith(f" INFO Listening on http://0.0.0.0:{port} workers=2")
    assert sum(" loaded " in line for line in lines[:listening]) == 2


def test_two_servers_do_not_share_metrics(tmp_path: Path) -> None:
    settings = {"models": MODEL, "workers": 1, "metrics_dir": tmp_path}
    with serve(tmp_path, **settings) as one, serve(tmp_path, **settings) as other:
        assert ask(one) == 200
        assert value(metrics(one), "vitrine_requests_total", model=MODEL) == 1
        assert value(metrics(other), "vitrine_requests_total", model=MODEL) == 0


def test_port_0_takes_a_free_port(tmp_path: Path) -> None:
    with started(tmp_path, 0, models=MODEL, workers=1) as start:
        assert come_true(lambda: "Listening on" in start.log.read_text())
        address = re.search(r"Listening on (\S+)", start.log.read_text())
        assert address is not None
        assert httpx.get(f"{address[1]}/readyz").status_code == 200


def test_worker_that_hangs_blocks_only_its_own_connections(tmp_path: Path) -> None:
    with (
        serve(tmp_path, models=MODEL, workers=2) as server,
        contextlib.ExitStack() as stack,
    ):
        hung, _ = workers(server)
        os.kill(hung, signal.SIGSTOP)
        try:
            url = httpx.URL(server.url)
            assert url.port is not None
            for _ in range(1000):  # many more than fit into the channel of the one that hangs
                connection = socket.create_connection((url.host, url.port), PATIENCE_S)
                stack.enter_context(connection)
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        finally:
            os.kill(hung, signal.SIGCONT)


def test_worker_that_is_stopped_loses_no_request(tmp_path: Path) -> None:
    with serve(tmp_path, models=MODEL, workers=2) as server:
        ending = workers(server)[0]
        os.kill(ending, signal.SIGTERM)
        while runs(ending):
            assert ask(server) == 200
        assert come_true(lambda: len(workers(server)) == 2)
        assert server.stop(signal.SIGTERM) == 0


def tokens_of(*tokens: str) -> str:
    return "".join(f"{sha256(token.encode()).hexdigest()}\n" for token in tokens)


def statuses(server: Server, token: str) -> set[int]:
    """What every worker answers to a token: connections in pairs go to both."""
    headers = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    with connected(server, 4) as connections:
        for connection in connections:
            connection.sendall(headers.encode())
        return {int(connection.recv(65536).split()[1]) for connection in connections}


def test_sighup_lets_every_worker_read_its_tokens_again(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(tokens_of("old"))
    with serve(tmp_path, models=MODEL, workers=2, api_tokens_file=file) as server:
        before = workers(server)
        assert (statuses(server, "old"), statuses(server, "new")) == ({200}, {401})
        file.write_text(tokens_of("new"))
        server.process.send_signal(signal.SIGHUP)
        assert come_true(lambda: statuses(server, "old") == {401})
        assert statuses(server, "new") == {200}
        file.write_text("not a digest\n")
        server.process.send_signal(signal.SIGHUP)
        assert come_true(lambda: server.log.read_text().count(f"{file}, line 1") == 2)
        assert statuses(server, "new") == {200}
        assert workers(server) == before
        assert server.stop(signal.SIGTERM) == 0


def test_sighup_while_a_worker_loads_is_heeded_once_it_serves(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(tokens_of("old"))
    port = free_port()
    with started(tmp_path, port, workers=1, api_tokens_file=file) as start:  # with all models
        assert come_true(lambda: " loaded " in start.log.read_text())
        file.write_text(tokens_of("new"))
        start.process.send_signal(signal.SIGHUP)
        assert come_true(lambda: "Listening on" in start.log.read_text())
        server = Server(f"http://127.0.0.1:{port}", start.process, start.log)
        assert come_true(lambda: statuses(server, "new") == {200})


def test_connections_wait_while_the_only_worker_is_replaced(tmp_path: Path) -> None:
    with serve(tmp_path, models=MODEL, workers=1) as server:
        (only,) = workers(server)
        os.kill(only, signal.SIGKILL)
        assert come_true(lambda: not runs(only))
        assert ask(server) == 200
