"""The parent of the workers: accepts connections and hands each to the worker with the fewest.

Processes that accept from one listening socket themselves share the connections out as they happen
to wake up: of 16 connections one of two workers may get 14, and half of the machine stands idle.
"""

import contextlib
import gc
import multiprocessing
import os
import selectors
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeAlias

from service.errors import SettingsError, StartError
from service.server.app import App
from service.server.drain import Drain
from service.server.worker import READY, run_worker, shared_counts
from service.settings import Settings
from service.telemetry.log import configure_logging, logger

BACKLOG = 2048
MAX_MESSAGE_BYTES = 65536
Schema: TypeAlias = Callable[[], dict[str, Any]]
"""Describes the service for BentoML's client."""

RESTART_PAUSE_S = 1.0
ACCEPT_PAUSE_S = 0.05
_FORK = multiprocessing.get_context("fork")


@dataclass(eq=False)
class _Worker:
    """A worker as its parent sees it."""

    number: int
    process: BaseProcess
    channel: socket.socket
    is_ready: bool = False
    handed: int = 0
    """Connections that it got."""
    closed_before: int = 0
    """Connections that earlier workers of this number had closed when it began."""


def serve(settings: Settings, host: str, port: int, bentoml_schema: Schema) -> None:
    """Serve until SIGTERM or SIGINT; raises StartError where it cannot start."""
    configure_logging(settings.log_format)
    listener = _bind(host, port)
    parent = settings.metrics_dir
    with tempfile.TemporaryDirectory(prefix="vitrine-metrics-", dir=parent) as folder:
        shared = settings.model_copy(update={"metrics_dir": Path(folder)})
        Supervisor(shared, listener, bentoml_schema).run()


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setblocking(False)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise _no_listening((host, port), error) from error
    return listener


def _no_listening(address: tuple[object, ...], error: OSError) -> SettingsError:
    host, port, *_ = address
    return SettingsError(f"expected to listen on {host}:{port}: {error.strerror}")


class Supervisor:
    """Forks workers, shares out connections, replaces a worker that dies."""

    def __init__(self, settings: Settings, listener: socket.socket, bentoml_schema: Schema) -> None:
        self._settings = settings
        self._bentoml_schema = bentoml_schema
        self._listener = listener
        self._closed = shared_counts(settings.workers)
        self._selector = selectors.DefaultSelector()
        self._workers: list[_Worker] = []
        self._to_start = dict.fromkeys(range(settings.workers), 0.0)
        """Numbers of the workers that are missing, and from when on they may be started."""
        self._signals, self._signals_end = socket.socketpair()
        self._is_serving = False
        self._is_accepting = False
        self._is_stopping = False
        self._drain = Drain()
        self._stop_at: float | None = None
        """When to end, once it is draining."""

    def run(self) -> None:
        """Serve until a signal; raises StartError if a worker cannot start at all."""
        self._signals_end.setblocking(False)
        signal.set_wakeup_fd(self._signals_end.fileno())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _wake_up)
        self._watch(self._signals, self._heed)
        gc.collect()
        gc.freeze()  # so that no worker's collector writes on the pages that all share
        try:
            while self._workers or not self._is_stopping:
                self._start_missing()
                self._stop_when_drained()
                for key, _ in self._selector.select(self._pause_s()):
                    key.data()
        finally:
            for worker in self._workers:
                worker.process.kill()

    def _watch(self, source: socket.socket | int, act: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, act)

    def _pause_s(self) -> float | None:
        if self._is_stopping:
            return None
        due = [*self._to_start.values()]
        if self._stop_at is not None:
            due.append(self._stop_at)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _start_missing(self) -> None:
        now = time.monotonic()
        due = [number for number, start_at in self._to_start.items() if start_at <= now]
        for number in due if not self._is_stopping else ():
            del self._to_start[number]
            channel, its_end = socket.socketpair()
            process = _FORK.Process(target=self._run_child, args=(number, channel, its_end))
            process.start()
            its_end.close()
            channel.setblocking(False)  # a worker that hangs must not hold up the others
            worker = _Worker(number, process, channel, closed_before=self._closed[number])
            self._workers.append(worker)
            self._watch(channel, partial(self._hear, worker))

    def _run_child(self, number: int, parents_end: socket.socket, channel: socket.socket) -> None:
        """In the new process: keep nothing of the parent's open but its own channel.

        The signal handlers stay, which do nothing: uvicorn raises a signal again once it has ended,
        and there is still something to do then.
        """
        signal.set_wakeup_fd(-1)
        os.setpgrp()  # Ctrl-C is for the parent alone, which then asks its workers to end
        self._selector.close()
        for theirs in (self._listener, self._signals, self._signals_end, parents_end):
            theirs.close()
        for worker in self._workers:
            worker.channel.close()
        load = partial(App, self._settings, number, self._drain, self._bentoml_schema)
        run_worker(load, number, channel, self._closed)

    def _hear(self, worker: _Worker) -> None:
        """A worker is ready, cannot start, or has ended."""
        with contextlib.suppress(ConnectionError):
            message = worker.channel.recv(MAX_MESSAGE_BYTES)
            if message == READY:
                worker.is_ready = True
                self._open_when_ready()
                return
            if message and not self._is_serving:
                raise StartError(message.decode())
            if message:
                logger.error("worker %d cannot start: %s", worker.number, message.decode())
                return
        self._bury(worker)

    def _open_when_ready(self) -> None:
        """Listen as soon as every worker is ready: before that, connections are refused."""
        if not self._is_serving and not self._to_start and all(w.is_ready for w in self._workers):
            self._is_serving = True
            try:
                self._listener.listen(BACKLOG)
            except OSError as error:  # another has begun to listen there meanwhile
                raise _no_listening(self._listener.getsockname(), error) from error
            logger.info("ready", extra={"fields": {"workers": len(self._workers)}})
        self._accept_or_not()

    def _accept_or_not(self) -> None:
        """Accept while there is a worker to hand to; else connections wait in the backlog."""
        wanted = (
            self._is_serving
            and not self._is_stopping
            and any(worker.is_ready for worker in self._workers)
        )
        if wanted and not self._is_accepting:
            self._watch(self._listener, self._accept)
        elif self._is_accepting and not wanted:
            self._selector.unregister(self._listener)
        self._is_accepting = wanted

    def _accept(self) -> None:
        try:
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    self._hand_over(connection)
        except (BlockingIOError, ConnectionError):
            pass
        except OSError as error:  # out of file descriptors or memory: some may come free
            logger.error("no connection can be accepted: %s", error.strerror)
            time.sleep(ACCEPT_PAUSE_S)

    def _hand_over(self, connection: socket.socket) -> None:
        ready = [worker for worker in self._workers if worker.is_ready]
        for worker in sorted(ready, key=self._open_connections):
            try:
                socket.send_fds(worker.channel, [b"c"], [connection.fileno()])
            except OSError:  # it is about to end
                continue
            worker.handed += 1
            return
        logger.error("a connection was refused: no worker is ready")

    def _open_connections(self, worker: _Worker) -> int:
        return worker.handed - (self._closed[worker.number] - worker.closed_before)

    def _bury(self, worker: _Worker) -> None:
        self._selector.unregister(worker.channel)
        worker.channel.close()
        worker.process.join()
        self._workers.remove(worker)
        self._accept_or_not()
        if self._is_stopping:
            return
        if not self._is_serving:
            raise StartError(f"worker {worker.number} ended with {worker.process.exitcode}")
        logger.error("worker %d ended with %s", worker.number, worker.process.exitcode)
        self._to_start[worker.number] = time.monotonic() + RESTART_PAUSE_S

    def _heed(self) -> None:
        """A signal: drain first where that is asked for, and end; at once if asked again."""
        (number,) = self._signals.recv(1)
        drain_s = self._settings.drain_s
        if number == signal.SIGTERM and drain_s and self._is_serving and not self._drain.is_on:
            logger.info("draining", extra={"fields": {"drain_s": drain_s}})
            self._drain.begin()
            self._stop_at = time.monotonic() + drain_s
        else:
            self._stop()

    def _stop_when_drained(self) -> None:
        due = self._stop_at is not None and self._stop_at <= time.monotonic()
        if due and not self._is_stopping:
            self._stop()

    def _stop(self) -> None:
        """Accept nothing more and ask the workers to end; at once if they have been asked."""
        was_stopping, self._is_stopping = self._is_stopping, True
        if not was_stopping:
            if self._is_accepting:
                self._accept()  # what has come meanwhile
            self._accept_or_not()
            self._listener.close()
            self._drain.begin()
        for worker in self._workers:
            if was_stopping or not worker.is_ready:
                worker.process.kill()
            else:
                worker.process.terminate()


def _wake_up(_number: int, _frame: object) -> None:
    """What is to be done is done where the wake-up is read."""
