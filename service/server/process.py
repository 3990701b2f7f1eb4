"""One worker process, as the supervisor sees it: its channel, its log, its connections."""

import contextlib
import mmap
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from typing import NamedTuple

from service.server.heartbeat import Counts, Pulse
from service.telemetry.log import logger
from service.telemetry.stderr import StderrPipe

MAX_MESSAGE_BYTES = 65536
SILENT_S = 1.0
"""Silence after which a worker gets no new connections, and gives back those it has not taken."""
_FORK = multiprocessing.get_context("fork")


class SharedCounts(NamedTuple):
    """What workers count for the supervisor."""

    closed: Counts
    """Connections that were closed so far."""
    beats: Counts
    """Heartbeats so far."""
    ending: Counts
    """1 from when a worker begins to end."""


def shared_counts(workers: int) -> SharedCounts:
    """Counts that forked processes share; raises OSError without memory for them."""
    return SharedCounts(*(memoryview(mmap.mmap(-1, workers * 8)).cast("Q") for _ in range(3)))


class WorkerProcess:
    """A forked worker. Connections go to it over a channel, messages come back over the same."""

    def __init__(
        self, number: int, counts: SharedCounts, run: Callable[[int, socket.socket], None]
    ) -> None:
        """Fork, and let the new process `run` with its end of the channel; raises OSError."""
        self.number = number
        self.is_ready = False
        self.pulse = Pulse(counts.beats, number)
        self.channel, self._worker_end = socket.socketpair()
        self.stderr = StderrPipe()
        self._run = run
        self._counts = counts
        counts.ending[number] = 0
        self._handed_over = 0
        self._closed_before = counts.closed[number]
        """Connections that earlier workers with this number have closed."""
        self._process = _FORK.Process(target=self._run_child, args=(self._worker_end,))
        try:
            self._process.start()
        except OSError:
            self.close()
            raise
        finally:
            self.stderr.close_writer()
        # A worker that hangs must not block the supervisor.
        self.channel.setblocking(False)
        os.set_blocking(self.stderr.fileno(), False)

    def _run_child(self, channel: socket.socket) -> None:
        os.setpgrp()  # Ctrl-C reaches only the supervisor, which then stops its workers
        self.stderr.replace_stderr()
        self.stderr.close_writer()
        self.stderr.close()
        self.channel.close()
        try:
            self._run(self.number, channel)
        except Exception as error:
            logger.exception("worker %d failed", self.number)
            raise SystemExit(1) from error

    def receive(self) -> bytes:
        """The next message; empty if there is none."""
        try:
            return self.channel.recv(MAX_MESSAGE_BYTES)
        except (BlockingIOError, ConnectionError):
            return b""

    def serves(self) -> bool:
        """Whether it is ready, and has not begun to end."""
        return self.is_ready and not self._counts.ending[self.number]

    def takes_connections(self) -> bool:
        """Whether it serves and shows signs of life."""
        return self.serves() and self.pulse.silent_s < SILENT_S

    def hand_over(self, connection: socket.socket) -> bool:
        """Give the process a connection; return False where it takes none."""
        try:
            socket.send_fds(self.channel, [b"c"], [connection.fileno()])
        except ConnectionError:
            self._counts.ending[self.number] = 1
            return False
        except OSError:  # its channel is full
            return False
        self._handed_over += 1
        return True

    def take_back(self) -> list[socket.socket]:
        """The connections that were given to the process, and that it has not taken."""
        self._worker_end.setblocking(False)  # as it is in a worker that serves
        handles: list[int] = []
        with contextlib.suppress(OSError):  # nothing is left, or no file descriptor is
            while received := socket.recv_fds(self._worker_end, 1, 1)[1]:
                handles += received
        self._handed_over -= len(handles)
        return [socket.socket(fileno=handle) for handle in handles]

    @property
    def sentinel(self) -> int:
        """A handle that becomes readable when the process ends."""
        return self._process.sentinel

    @property
    def open_connections(self) -> int:
        """Connections that the process holds."""
        return self._handed_over - (self._counts.closed[self.number] - self._closed_before)

    def log_stderr(self) -> bool:
        """Log what has arrived on the process's standard error; return False at its end."""
        return self.stderr.read({"worker": self.number})

    def stop(self) -> None:
        """Ask the process to answer what it has and to end; one that is not ready is killed."""
        if self.is_ready:
            self._process.terminate()
        else:
            self.kill()

    def reload(self) -> None:
        """Ask the process to read again what may change while it serves."""
        if self._process.is_alive() and (pid := self._process.pid):
            os.kill(pid, signal.SIGHUP)

    def kill(self) -> None:
        """End the process at once."""
        self._counts.ending[self.number] = 1
        self._process.kill()

    def join(self) -> int | None:
        """Wait until the process has ended, log the rest of its standard error; the exit code."""
        self._process.join()
        with contextlib.suppress(BlockingIOError):  # a child of the process holds the pipe open
            while self.log_stderr():
                pass
        self.close()
        return self._process.exitcode

    def close(self) -> None:
        """Close the channel and the pipe in this process."""
        self.channel.close()
        self._worker_end.close()
        self.stderr.close()
