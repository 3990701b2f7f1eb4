"""The parent of the workers: accepts connections and hands each to the worker with the fewest.

Workers that accept from one listening socket themselves get connections unevenly: of 16 connections
one of two workers may get 14, and half of the machine is idle.
"""

import contextlib
import gc
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
from service.machine import raise_open_files_limit
from service.server.acceptor import Acceptor
from service.server.app import App
from service.server.drain import Drain
from service.server.heartbeat import LOOK_S
from service.server.listener import bind, listen
from service.server.process import WorkerProcess, shared_counts
from service.server.tls import make_context
from service.server.worker import READY, run_worker
from service.settings import Settings
from service.telemetry.log import configure_logging, logger
from service.telemetry.stderr import StderrPipe
from service.telemetry.usage import SupervisorState

Schema: TypeAlias = Callable[[], dict[str, Any]]
"""Describes the service for BentoML's client."""

RESTART_PAUSE_S = 1.0
MAX_RESTART_PAUSE_S = 30.0


def serve(settings: Settings, host: str, port: int, bentoml_schema: Schema) -> None:
    """Serve until SIGTERM or SIGINT; raises StartError where it cannot start."""
    configure_logging(settings.log_format)
    make_context(settings)  # unusable files stop the start before any worker does
    raise_open_files_limit()
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
        self._counts = shared_counts(settings.workers)
        self._state = SupervisorState(settings.metrics_dir)
        self._drain = Drain()
        self._selector = selectors.DefaultSelector()
        self._signal_reader, self._signal_writer = socket.socketpair()
        self._workers: list[WorkerProcess] = []
        self._start_at = dict.fromkeys(range(settings.workers), 0.0)
        """For each worker number without a process, when to start one."""
        self._failed_starts = dict.fromkeys(range(settings.workers), 0)
        """For each worker number, how many starts have failed since one was ready."""
        self._stop_at: float | None = None
        """When to stop, once it is draining."""
        self._look_at = 0.0
        """When to look at the workers' heartbeats."""
        self._acceptor: Acceptor | None = None
        """Accepts connections, once every worker was ready."""
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
                self._look_at_pulses()
                if self._acceptor is not None and not self._is_stopping:
                    self._acceptor.update()
                for key, _ in self._selector.select(self._timeout_s()):
                    key.data()
        finally:
            for worker in self._workers:
                worker.kill()

    def _watch(self, source: socket.socket | StderrPipe | int, act: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, act)

    def _timeout_s(self) -> float:
        """Seconds until the next thing to do."""
        due = [self._look_at]
        if not self._is_stopping:
            due += self._start_at.values()
            resume_at = self._acceptor.resume_at if self._acceptor is not None else None
            due += [at for at in (self._stop_at, resume_at) if at is not None]
        return max(0.0, min(due) - time.monotonic())

    def _start_missing(self) -> None:
        now = time.monotonic()
        due = [number for number, start_at in self._start_at.items() if start_at <= now]
        for number in due if not self._is_stopping else ():
            try:
                worker = WorkerProcess(number, self._counts, self._run_child)
            except OSError as error:  # no more processes, file descriptors or memory
                self._on_failed_start(number, error)
                continue
            del self._start_at[number]
            self._workers.append(worker)
            self._watch(worker.channel, partial(self._on_worker_message, worker))
            self._watch(worker.stderr, partial(self._on_worker_stderr, worker))
            self._watch(worker.sentinel, partial(self._on_worker_exit, worker))

    def _on_failed_start(self, number: int, error: OSError) -> None:
        message = f"cannot start worker {number}: {error.strerror}"
        if self._acceptor is None:
            raise StartError(message) from error
        logger.error(message)
        self._failed_starts[number] += 1
        self._start_later(number)

    def _start_later(self, number: int) -> None:
        """Start a worker after a pause, which doubles with every start that fails."""
        pause_s = RESTART_PAUSE_S * 2 ** min(self._failed_starts[number], 10)
        self._start_at[number] = time.monotonic() + min(pause_s, MAX_RESTART_PAUSE_S)

    def _run_child(self, number: int, channel: socket.socket) -> None:
        """In the new process: close everything of the supervisor's, then serve.

        The signal handlers stay, which do nothing: uvicorn raises a signal again once it has ended,
        and the worker still has something to do then.
        """
        signal.set_wakeup_fd(-1)
        self._selector.close()
        if self._acceptor is not None:
            self._acceptor.close()
        for opened in (self._listener, self._signal_reader, self._signal_writer):
            opened.close()
        for worker in self._workers:
            worker.close()
        load = partial(App, self._settings, number, self._drain, self._bentoml_schema)
        run_worker(load, number, channel, self._counts)

    def _on_worker_message(self, worker: WorkerProcess) -> None:
        """A worker is ready, or cannot start."""
        message = worker.receive()
        if not message:
            return
        if message == READY:
            worker.is_ready = True
            self._failed_starts[worker.number] = 0
            self._listen_when_ready()
        elif self._acceptor is None:
            raise StartError(message.decode())
        else:
            logger.error("worker %d cannot start: %s", worker.number, message.decode())

    def _on_worker_stderr(self, worker: WorkerProcess) -> None:
        if worker in self._workers and not worker.log_stderr():
            self._selector.unregister(worker.stderr)

    def _on_worker_exit(self, worker: WorkerProcess) -> None:
        self._on_worker_message(worker)  # its last words
        self._selector.unregister(worker.sentinel)
        self._selector.unregister(worker.channel)
        with contextlib.suppress(KeyError):  # its standard error has ended before
            self._selector.unregister(worker.stderr)
        self._workers.remove(worker)
        self._rescue_connections(worker)
        self._count()
        exit_code = worker.join()
        if self._is_stopping:
            return
        if self._acceptor is None:
            raise StartError(f"worker {worker.number} ended with exit code {exit_code}")
        fields = {"worker": worker.number}
        logger.error("worker ended with exit code %s", exit_code, extra={"fields": fields})
        self._failed_starts[worker.number] += not worker.is_ready
        self._start_later(worker.number)

    def _listen_when_ready(self) -> None:
        """Listen as soon as every worker is ready: before that, connections are refused."""
        if self._acceptor is None and not self._start_at and all(w.is_ready for w in self._workers):
            url = listen(self._listener, "https" if self._settings.tls_cert_file else "http")
            self._acceptor = Acceptor(self._listener, self._selector, self._workers)
            limit = self._acceptor.most_per_worker * self._settings.workers
            self._state.connections_limit.set(limit)
            logger.info("Listening on %s", url, extra={"fields": {"workers": len(self._workers)}})

    def _look_at_pulses(self) -> None:
        """Kill workers that hang; whoever waits for an answer of theirs gets none."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_S
        timeout_s = self._settings.hang_timeout_s
        for worker in filter(WorkerProcess.serves, self._workers):
            worker.pulse.look()
            if not worker.takes_connections():
                self._rescue_connections(worker)
            if 0 < timeout_s <= worker.pulse.silent_s:
                fields = {"worker": worker.number}
                logger.error("worker hangs, and is killed", extra={"fields": fields})
                worker.kill()
                self._state.hangs.inc()
        self._count()

    def _count(self) -> None:
        """Tell how many of those that were ready take no connections now, and what all hold."""
        unavailable = [w for w in self._workers if w.is_ready and not w.takes_connections()]
        self._state.unavailable.set(len(unavailable))
        self._state.connections.set(sum(worker.open_connections for worker in self._workers))

    def _rescue_connections(self, worker: WorkerProcess) -> None:
        """Give to others what a worker has not taken, and will not for now."""
        if self._acceptor is not None:
            self._acceptor.share_out_again(worker.take_back())

    def _on_signal(self) -> None:
        """Pass SIGHUP on; else drain first if that is configured, then stop.

        A second signal to end stops at once.
        """
        (number,) = self._signal_reader.recv(1)
        if number == signal.SIGHUP:
            for worker in self._workers:
                worker.reload()
            return
        drain_s = self._settings.drain_s
        if (
            number == signal.SIGTERM
            and drain_s
            and self._acceptor is not None
            and not self._drain.is_on
        ):
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
            if self._acceptor is not None:
                self._acceptor.finish()
            self._listener.close()
            self._drain.begin()
        for worker in self._workers:
            if was_stopping:
                worker.kill()
            else:
                worker.stop()


def _ignore(_number: int, _frame: object) -> None:
    """Do nothing: `_on_signal` reads the signal's number from the wake-up socket."""
