"""A forked worker process, as the supervisor sees it."""

import json
import logging
import os
import select
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from service.server.process import WorkerProcess, shared_counts
from service.telemetry.log import JsonFormatter, log_handler


@pytest.fixture(autouse=True)
def _json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_handler, "formatter", JsonFormatter())
    monkeypatch.setattr(logging.getLogger(), "handlers", [log_handler])


def records(capfd: pytest.CaptureFixture[str]) -> Iterator[dict[str, Any]]:
    """What this process and its forks have logged."""
    return map(json.loads, capfd.readouterr().err.splitlines())


def answer_and_crash(number: int, channel: socket.socket) -> None:
    channel.sendall(b"hello")
    os.write(2, b"free(): invalid pointer\n")
    os.kill(os.getpid(), signal.SIGKILL)


def fail(number: int, channel: socket.socket) -> None:
    raise ValueError("no such luck")


def end_in_order(number: int, channel: socket.socket) -> None:
    channel.shutdown(socket.SHUT_RD)


def wait(number: int, channel: socket.socket) -> None:
    channel.recv(1)


def test_message_then_the_end_is_received() -> None:
    worker = WorkerProcess(0, shared_counts(1), answer_and_crash)
    select.select([worker.sentinel], [], [])
    assert [worker.receive(), worker.receive()] == [b"hello", b""]
    assert worker.join() == -signal.SIGKILL


def test_last_words_of_a_worker_that_crashes_are_logged(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert WorkerProcess(3, shared_counts(4), answer_and_crash).join() == -signal.SIGKILL
    (record,) = records(capfd)
    assert (record["message"], record["worker"]) == ("free(): invalid pointer", 3)


def test_exception_that_ends_a_worker_is_one_record(capfd: pytest.CaptureFixture[str]) -> None:
    assert WorkerProcess(0, shared_counts(1), fail).join() == 1
    (record,) = records(capfd)
    assert record["message"] == "worker 0 failed"
    assert record["exception"].endswith("ValueError: no such luck")


def test_worker_that_is_not_ready_is_killed_when_it_is_to_stop() -> None:
    worker = WorkerProcess(0, shared_counts(1), wait)
    worker.stop()
    assert worker.join() == -signal.SIGKILL


def test_open_connections_are_those_handed_over_less_those_closed() -> None:
    counts = shared_counts(2)
    counts.closed[1] = 7  # by an earlier worker with this number
    worker = WorkerProcess(1, counts, wait)
    with socket.socket() as connection:
        assert worker.hand_over(connection)
    assert worker.open_connections == 1
    counts.closed[1] += 1
    assert worker.open_connections == 0
    worker.join()


def test_connections_that_a_worker_has_not_taken_can_be_taken_back() -> None:
    worker = WorkerProcess(0, shared_counts(1), answer_and_crash)
    select.select([worker.sentinel], [], [])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert worker.hand_over(theirs)
        assert worker.open_connections == 1
        (back,) = worker.take_back()
        with back:
            back.sendall(b"rescued")
        assert ours.recv(7) == b"rescued"
    assert worker.open_connections == 0
    assert worker.take_back() == []
    worker.join()


def test_worker_that_reads_its_channel_no_more_takes_no_connection() -> None:
    worker = WorkerProcess(0, shared_counts(1), end_in_order)
    worker.is_ready = True
    select.select([worker.sentinel], [], [])
    assert worker.takes_connections()
    with socket.socket() as connection:
        assert not worker.hand_over(connection)
    assert not worker.takes_connections()
    assert worker.open_connections == 0
    worker.join()
