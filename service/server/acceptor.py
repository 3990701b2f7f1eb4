"""Accepts connections and hands each to the worker with the fewest.

Where no worker takes any, and where file descriptors are short, connections wait in the backlog.
"""

import contextlib
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterable, Sequence

from service.machine import open_files_limit
from service.server.process import WorkerProcess
from service.telemetry.log import logger

FULL_CHANNELS_PAUSE_S = 0.005
FAILED_PAUSE_S = 0.05
FINISH_TIMEOUT_S = 1.0
RESERVED_FILES = 128
"""File descriptors of a worker that are not for connections."""


class Acceptor:
    """The listening socket of a server, while it listens."""

    def __init__(
        self,
        listener: socket.socket,
        selector: selectors.BaseSelector,
        workers: Sequence[WorkerProcess],
    ) -> None:
        """Accept on events of the selector; `workers` are those of the moment."""
        self._listener = listener
        self._selector = selector
        self._workers = workers
        self.most_per_worker = max(1, open_files_limit() - RESERVED_FILES)
        """Connections that a worker may hold by its limit of open files."""
        self._is_watching = False
        self._resume_at = 0.0
        self._held: deque[socket.socket] = deque()
        """Connections that no worker has taken yet."""

    @property
    def resume_at(self) -> float | None:
        """When to call `update` again, in seconds of time.monotonic; None if no pause runs."""
        return self._resume_at if self._resume_at > time.monotonic() else None

    def update(self) -> None:
        """Accept while a worker takes connections, but for a pause."""
        wanted = self.resume_at is None and bool(self._takers())
        if wanted and not self._is_watching:
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
            self._is_watching = True
            self._accept()
        elif self._is_watching and not wanted:
            self._selector.unregister(self._listener)
            self._is_watching = False

    def share_out_again(self, connections: Iterable[socket.socket]) -> None:
        """Hand over connections that a worker has not taken."""
        self._held.extend(connections)
        self._share_out()

    def finish(self) -> None:
        """Hand over what has arrived meanwhile, then listen no more."""
        deadline = time.monotonic() + FINISH_TIMEOUT_S
        self._accept()
        while self._held and self._takers() and time.monotonic() < deadline:
            time.sleep(FULL_CHANNELS_PAUSE_S)
            self._accept()
        if self._held:
            logger.error("no worker takes the last %d connections", len(self._held))
        if self._is_watching:
            self._selector.unregister(self._listener)
        self.close()

    def close(self) -> None:
        """Close this process's sockets."""
        self._listener.close()
        for connection in self._held:
            connection.close()

    def _takers(self) -> list[WorkerProcess]:
        """The workers that take connections and have room, those with the fewest first."""
        takers = [worker for worker in self._workers if worker.takes_connections()]
        by_load = sorted(takers, key=lambda worker: worker.open_connections)
        return by_load if by_load and by_load[0].open_connections < self.most_per_worker else []

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while self._share_out() and self._take_next():
                pass

    def _share_out(self) -> bool:
        """Hand over what is held; return whether a worker may take more."""
        while takers := self._takers():
            if not self._held:
                return True
            if not any(worker.hand_over(self._held[0]) for worker in takers):
                self._pause(FULL_CHANNELS_PAUSE_S)
                return False
            self._held.popleft().close()
        return False

    def _take_next(self) -> bool:
        """Take a connection from the backlog; raises BlockingIOError or ConnectionError."""
        try:
            self._held.append(self._listener.accept()[0])
            return True
        except (BlockingIOError, ConnectionError):
            raise
        except OSError as error:  # out of file descriptors or memory, perhaps not for long
            logger.error("cannot accept connections: %s", error.strerror)
            self._pause(FAILED_PAUSE_S)
            return False

    def _pause(self, pause_s: float) -> None:
        self._resume_at = time.monotonic() + pause_s
