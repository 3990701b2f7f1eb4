"""The parent of the workers: accepts connections and hands each to the worker with the fewest.

Workers that accept from one listening socket themselves get connections unevenly: of 16 connections
one of two workers may get 14, and half of the machine is idle.
"""

import contextlib
import gc
import select
import selectors
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from service.errors import StartError
from service.server.app import App
from service.server.drain import Drain
from service.server.listener import bind, listen
from service.server.process import WorkerProcess, shared_counts
from service.server.tls import make_context
from service.server.worker import READY, run_worker
from service.settings import Settings
from service.telemetry.log import configure_logging, logger
from service.telemetry.stderr import StderrPipe

Schema: TypeAlias = Callable[[], dict[str, Any]]
"""Describes the service for BentoML's client."""

RESTART_PAUSE_S = 1.0
ACCEPT_PAUSE_S = 0.05
FULL_CHANNELS_PAUSE_S = 1.0


def serve(settings: Settings, host: str, port: int, bentoml_schema: Schema) -> None:
    """Serve until SIGTERM or SIGINT; raises StartError where it cannot start."""
    configure_logging(settings.log_format)
    make_context(settings)  # unusable files stop the start before any worker does
    listener = bind(host, port)
    try:
        folder = tempfile.TemporaryDirectory(prefix="vitrine-metrics-", dir=settings.metrics_dir)
        shared = settings.model_copy(update={"metrics_dir": Path(folder.name)})
        supervisor = Supervisor(shared, listener, bentoml_schema)
    except OSError as error:  # no memory to share, or no usable temporary folder
        raise StartError(f"cannot start: {error}") from error
    with folder:
        supervisor.run()


class Supervisor:
    """Forks workers, shares out connections, replaces a worker that ends."""

    def __init__(self, settings: Settings, listener: socket.socket, bentoml_schema: Schema) -> None:
        """Prepare; raises OSError without memory for what the processes share."""
        self._settings = settings
        self._bentoml_schema = bentoml_schema
        self._listener = listener
        self._closed = shared_counts(settings.workers)
        self._drain = Drain()
        self._selector = selectors.DefaultSelector()
        self._signal_reader, self._signal_writer = socket.socketpair()
        self._workers: list[WorkerProcess] = []
        self._start_at = dict.fromkeys(range(settings.workers), 0.0)
        """For each worker number without a process, when to start one."""
        self._stop_at: float | None = None
        """When to stop, once it is draining."""
        self._is_serving = False
        self._is_accepting = False
        self._is_stopping = False

    def run(self) -> None:
        """Serve until a signal; raises StartError if a worker cannot start at all."""
        self._signal_writer.setblocking(False)
        signal.set_wakeup_fd(self._signal_writer.fileno())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _ignore)
        self._watch(self._signal_reader, self._on_signal)
        gc.collect()
        gc.freeze()  # so that a collection in a worker does not copy the pages that all share
        try:
            while self._workers or not self._is_stopping:
                self._start_missing()
                self._stop_when_drained()
                for key, _ in self._selector.select(self._timeout_s()):
                    key.data()
        finally:
            for worker in self._workers:
                worker.kill()

    def _watch(self, source: socket.socket | StderrPipe, act: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, act)

    def _timeout_s(self) -> float | None:
        """Seconds until the next thing to do; None if only an event brings one."""
        if self._is_stopping:
            return None
        due = [*self._start_at.values()]
        if self._stop_at is not None:
            due.append(self._stop_at)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _start_missing(self) -> None:
        now = time.monotonic()
        due = [number for number, start_at in self._start_at.items() if start_at <= now]
        for number in due if not self._is_stopping else ():
            try:
                worker = WorkerProcess(number, self._closed, self._run_child)
            except OSError as error:  # no more processes, file descriptors or memory
                self._on_failed_start(number, error)
                continue
            del self._start_at[number]
            self._workers.append(worker)
            self._watch(worker.channel, partial(self._on_worker_message, worker))
            self._watch(worker.stderr, partial(self._on_worker_stderr, worker))

    def _on_failed_start(self, number: int, error: OSError) -> None:
        message = f"cannot start worker {number}: {error.strerror}"
        if not self._is_serving:
            raise StartError(message) from error
        logger.error(message)
        self._start_at[number] = time.monotonic() + RESTART_PAUSE_S

    def _run_child(self, number: int, channel: socket.socket) -> None:
        """In the new process: close everything of the supervisor's, then serve.

        The signal handlers stay, which do nothing: uvicorn raises a signal again once it has ended,
        and the worker still has something to do then.
        """
        signal.set_wakeup_fd(-1)
        self._selector.close()
        for opened in (self._listener, self._signal_reader, self._signal_writer):
            opened.close()
        for worker in self._workers:
            worker.close()
        load = partial(App, self._settings, number, self._drain, self._bentoml_schema)
        run_worker(load, number, channel, self._closed)

    def _on_worker_message(self, worker: WorkerProcess) -> None:
        """A worker is ready, cannot start, or has ended."""
        message = worker.receive()
        if message == READY:
            worker.is_ready = True
            self._listen_when_ready()
        elif not message:
            self._on_worker_exit(worker)
        elif not self._is_serving:
            raise StartError(message.decode())
        else:
            logger.error("worker %d cannot start: %s", worker.number, message.decode())

    def _on_worker_stderr(self, worker: WorkerProcess) -> None:
        if worker in self._workers and not worker.log_stderr():
            self._selector.unregister(worker.stderr)

    def _on_worker_exit(self, worker: WorkerProcess) -> None:
        self._selector.unregister(worker.channel)
        with contextlib.suppress(KeyError):  # its standard error has ended before
            self._selector.unregister(worker.stderr)
        exit_code = worker.join()
        self._workers.remove(worker)
        self._update_accepting()
        if self._is_stopping:
            return
        if not self._is_serving:
            raise StartError(f"worker {worker.number} ended with exit code {exit_code}")
        fields = {"worker": worker.number}
        logger.error("worker ended with exit code %s", exit_code, extra={"fields": fields})
        self._start_at[worker.number] = time.monotonic() + RESTART_PAUSE_S

    def _listen_when_ready(self) -> None:
        """Listen as soon as every worker is ready: before that, connections are refused."""
        if not self._is_serving and not self._start_at and all(w.is_ready for w in self._workers):
            url = listen(self._listener, "https" if self._settings.tls_cert_file else "http")
            self._is_serving = True
            logger.info("Listening on %s", url, extra={"fields": {"workers": len(self._workers)}})
        self._update_accepting()

    def _update_accepting(self) -> None:
        """Accept while a worker is ready; without one, connections wait in the backlog."""
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
        except OSError as error:  # out of file descriptors or memory, perhaps not for long
            logger.error("cannot accept a connection: %s", error.strerror)
            time.sleep(ACCEPT_PAUSE_S)

    def _hand_over(self, connection: socket.socket) -> None:
        ready = [worker for worker in self._workers if worker.is_ready]
        by_load = sorted(ready, key=lambda worker: worker.open_connections)
        taken = any(worker.hand_over(connection) for worker in by_load)
        if not taken and _wait_for_room(ready):  # a burst has filled the channels
            taken = any(worker.hand_over(connection) for worker in by_load)
        if not taken:
            why = "every worker's channel is full" if ready else "no worker is ready"
            logger.error("%s: connection refused", why)

    def _on_signal(self) -> None:
        """Drain first if that is configured, then stop; stop at once on a second signal."""
        (number,) = self._signal_reader.recv(1)
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
        """Accept nothing more and stop the workers; kill them if they are stopping already."""
        was_stopping, self._is_stopping = self._is_stopping, True
        if not was_stopping:
            logger.info("shutting down")
            if self._is_accepting:
                self._accept()  # what has arrived meanwhile
            self._update_accepting()
            self._listener.close()
            self._drain.begin()
        for worker in self._workers:
            if was_stopping:
                worker.kill()
            else:
                worker.stop()


def _ignore(_number: int, _frame: object) -> None:
    """Do nothing: `_on_signal` reads the signal's number from the wake-up socket."""


def _wait_for_room(workers: list[WorkerProcess]) -> bool:
    """Wait until the channel of some worker has room; return False if none has in time."""
    poll = select.poll()
    for worker in workers:
        poll.register(worker.channel, select.POLLOUT)
    return bool(poll.poll(1000 * FULL_CHANNELS_PAUSE_S))
