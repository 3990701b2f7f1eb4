"""One soak: a server, Locust's clients, other callers, and somebody who kills a worker."""

import csv
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.load.run import run_locust
from tests.server import Server, serve
from tests.soak.judge import ENDED
from tests.soak.others import ask_others
from tests.soak.record import Record, Traffic, Usage

WORKERS = 2
USAGE_EVERY_S = 2.0
OTHERS_EVERY_S = 1.0
IDLE_TIMEOUT_S = 15
_ENDED = re.compile(r"Connection|connection|Broken pipe|RemoteDisconnected|closed")
_COUNT = re.compile(r"(.*) \((\d+) times\)", re.DOTALL)


@dataclass(frozen=True)
class Plan:
    """How long, how many clients, how often each asks, and how often a worker is killed."""

    seconds: float
    users: int
    think_time_s: float
    kill_every_s: float


def soak(plan: Plan, folder: Path) -> Record:
    """Load a server of all models; its log, and Locust's reports, go to the folder."""
    record = Record(plan.seconds, plan.users)
    with serve(folder, workers=WORKERS, log_format="json") as server:
        supervisor = psutil.Process(server.process.pid)
        oldest = min(supervisor.children(), key=_age)
        before = _descriptors(supervisor, oldest)
        began = time.monotonic()

        def look() -> None:
            at_s = time.monotonic() - began
            usage = Usage(at_s, _memory_bytes(supervisor), _descriptors(supervisor, oldest))
            record.usage.append(usage)

        def kill() -> None:
            others = [process for process in supervisor.children() if process != oldest]
            if others:  # else the last one is not back yet
                record.killed_at_s.append(time.monotonic() - began)
                os.kill(others[0].pid, signal.SIGKILL)

        with (
            repeated(look, USAGE_EVERY_S),
            repeated(lambda: record.failures.update(ask_others(server.url)), OTHERS_EVERY_S),
            repeated(kill, plan.kill_every_s),
        ):
            _load(plan, server, folder, record)
        record.idle_descriptors = (before, _idle_descriptors(supervisor, oldest, before))
        record.exit_status = server.stop(signal.SIGTERM)
    return record


def _load(plan: Plan, server: Server, folder: Path, record: Record) -> None:
    """Let Locust's clients send images, and 2 % mistakes, until the time is up."""
    result = run_locust(
        server.url,
        users=plan.users,
        time_s=plan.seconds,
        folder=folder,
        shape="soak",
        arguments=("--think-time", str(plan.think_time_s)),
    )
    record.requests = result.requests
    for text in result.failure_texts:
        found = _COUNT.fullmatch(text)
        assert found is not None
        record.failures[ENDED if _ENDED.search(found[1]) else found[1]] += int(found[2])
    record.traffic = list(_traffic(folder / "load_stats_history.csv"))


def _traffic(history: Path) -> Iterator[Traffic]:
    """What Locust has written every second, of all requests together."""
    with history.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["99%"] != "N/A"]
    for row in rows:
        at_s = float(row["Timestamp"]) - float(rows[0]["Timestamp"])
        rates = (float(row["Requests/s"]), float(row["Failures/s"]))
        yield Traffic(at_s, *rates, float(row["99%"]))


@contextmanager
def repeated(act: Callable[[], None], every_s: float) -> Iterator[None]:
    """Act every few seconds until the end of the block; its error is raised there."""
    is_over = threading.Event()

    def run() -> None:
        while not is_over.wait(every_s):
            act()

    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(run)
        try:
            yield
        finally:
            is_over.set()
            running.result()


def _age(process: psutil.Process) -> float:
    return float(process.create_time())


def _memory_bytes(supervisor: psutil.Process) -> int:
    """Of all processes that are there; one may just have ended."""
    memory_bytes = 0
    for process in (supervisor, *supervisor.children()):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            memory_bytes += process.memory_full_info().pss
    return memory_bytes


def _descriptors(supervisor: psutil.Process, oldest: psutil.Process) -> int:
    return int(supervisor.num_fds() + oldest.num_fds())


def _idle_descriptors(supervisor: psutil.Process, oldest: psutil.Process, before: int) -> int:
    """Once all connections are closed and all workers there, or else after a while."""
    deadline = time.monotonic() + IDLE_TIMEOUT_S
    while _descriptors(supervisor, oldest) > before and time.monotonic() < deadline:
        time.sleep(0.1)
    return _descriptors(supervisor, oldest)
