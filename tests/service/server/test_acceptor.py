"""The listening socket, its backlog, and channels of workers that are not there."""

import contextlib
import resource
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from service.machine import open_files_limit
from service.server.acceptor import FAILED_PAUSE_S, RESERVED_FILES, Acceptor
from service.server.process import WorkerProcess, shared_counts
from tests.logs import kept_log


def wait(number: int, channel: socket.socket) -> None:
    """A worker that takes no connection."""
    signal.pause()


@contextlib.contextmanager
def worker_process(number: int = 0) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(number, shared_counts(number + 1), wait)
    worker.is_ready = True
    try:
        yield worker
    finally:
        worker.kill()
        worker.join()


class Listening:
    """An acceptor of one worker, and clients that connect to it."""

    def __init__(self, worker: WorkerProcess) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)
        self.selector = selectors.DefaultSelector()
        self.acceptor = Acceptor(self.listener, self.selector, [worker])

    def connect(self, count: int) -> list[socket.socket]:
        return [socket.create_connection(self.listener.getsockname()) for _ in range(count)]

    def step(self) -> None:
        """What the supervisor does in one round."""
        self.acceptor.update()
        for key, _ in self.selector.select(0):
            key.data()


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with worker_process() as started:
        yield started


@pytest.fixture
def listening(worker: WorkerProcess) -> Iterator[Listening]:
    opened = Listening(worker)
    yield opened
    opened.acceptor.close()
    opened.selector.close()


def closing(connections: list[socket.socket]) -> contextlib.ExitStack:
    with contextlib.ExitStack() as stack:
        for connection in connections:
            stack.enter_context(connection)
        return stack.pop_all()


def test_connections_wait_while_no_worker_takes_any(
    listening: Listening, worker: WorkerProcess
) -> None:
    worker.is_ready = False
    with closing(listening.connect(3)):
        listening.step()
        assert worker.open_connections == 0
        worker.is_ready = True
        listening.step()
        assert worker.open_connections == 3


def test_connection_is_held_while_every_channel_is_full(
    listening: Listening, worker: WorkerProcess
) -> None:
    with closing(listening.connect(600)), kept_log() as log:  # more than fit into a channel
        listening.step()
        fitted = worker.open_connections
        assert 0 < fitted < 600
        assert listening.acceptor.resume_at is not None
        taken = worker.take_back()
        assert len(taken) == fitted
        with closing(taken):
            assert _comes_true(
                lambda: worker.open_connections == min(fitted, 600 - fitted), listening
            )
        assert log.records == []


def test_connections_beyond_what_a_worker_may_hold_wait(
    listening: Listening, worker: WorkerProcess
) -> None:
    assert listening.acceptor.most_per_worker == max(1, open_files_limit() - RESERVED_FILES)
    listening.acceptor.most_per_worker = 2
    with closing(listening.connect(5)):
        listening.step()
        assert worker.open_connections == 2
        with closing(worker.take_back()):
            assert _comes_true(lambda: worker.open_connections == 2, listening)


def test_connections_wait_while_no_file_descriptor_is_left(
    listening: Listening, worker: WorkerProcess
) -> None:
    with closing(listening.connect(2)), kept_log() as log:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            started = time.process_time()
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                listening.step()
                time.sleep(max(0.0, (listening.acceptor.resume_at or 0) - time.monotonic()))
            busy_s = time.process_time() - started
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert worker.open_connections == 0
        assert busy_s < 0.3
        assert 0 < len(log.records) <= 0.5 / FAILED_PAUSE_S + 1
        messages = {record.getMessage() for record in log.records}
        assert messages == {"cannot accept connections: Too many open files"}
        assert _comes_true(lambda: worker.open_connections == 2, listening)


def test_connections_that_a_worker_has_not_taken_go_to_another(worker: WorkerProcess) -> None:
    with worker_process(1) as other:
        listening = Listening(other)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert worker.hand_over(theirs)
            listening.acceptor.share_out_again(worker.take_back())
            assert (worker.open_connections, other.open_connections) == (0, 1)
        listening.acceptor.close()


def _comes_true(holds: Callable[[], bool], listening: Listening) -> bool:
    deadline = time.monotonic() + 30
    while not holds():
        if time.monotonic() > deadline:
            return False
        listening.step()
    return True
