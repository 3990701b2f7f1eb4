"""A wall clock that jumps: durations are measured by a clock that does not."""

import ast
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.exposition import value
from tests.faults.load import MODEL, Load, running_load
from tests.programs import program
from tests.server import CHECKOUT, Server, come_true, command, running
from tests.service.server.test_supervisor import ask, metrics, workers

CLIENTS = 4
DAY = 86_400
WALL_CLOCKS = {"time", "time_ns", "now", "utcnow", "today"}
MAY_SHOW_THE_TIME = {"service/telemetry/tracing.py"}  # spans bear the time of day


def wall_clock_calls(tree: ast.AST) -> Iterator[str]:
    """Where a module asks for the time of day: `time.time()`, `datetime.now()` and the like."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="time" | "datetime" | "date"), attr=name):
                if name in WALL_CLOCKS:
                    yield f"line {node.lineno}: {name}"
            case ast.ImportFrom(module="time" | "datetime"):
                yield f"line {node.lineno}: import of names"


def test_no_duration_is_measured_by_the_time_of_day() -> None:
    found = {
        str(path.relative_to(CHECKOUT)): list(wall_clock_calls(ast.parse(path.read_text())))
        for path in (CHECKOUT / "service").rglob("*.py")
    }
    assert {path for path, calls in found.items() if calls} == MAY_SHOW_THE_TIME


def on_a_clock(file: Path) -> list[str]:
    """What lets a command see the time of day that a file says, such as +86400."""
    program("faketime")
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    settings = {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": file,
        "FAKETIME_NO_CACHE": 1,
        "FAKETIME_DONT_FAKE_MONOTONIC": 1,
    }
    return ["env", *(f"{name}={setting}" for name, setting in settings.items())]


def dates(server: Server) -> set[str]:
    """The days on which the server has logged."""
    lines = server.log.read_text().splitlines()
    return {line[:10] for line in lines if " INFO " in line}


def wait_for_more(load: Load) -> None:
    seen = len(load.outcomes)
    assert come_true(lambda: len(load.outcomes) > seen + 50)


@pytest.mark.slow
def test_clock_that_jumps_a_day_changes_no_answer_and_replaces_no_worker(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    faked = on_a_clock(clock)
    settings = {"models": MODEL, "workers": 2, "log_requests": True}
    with running(lambda port: [*faked, *command(port)], tmp_path, **settings) as server:
        before = workers(server)
        with running_load(Load([server.url]), CLIENTS) as load:
            for offset in (DAY, -DAY, 0):
                clock.write_text(f"{offset:+d}")
                wait_for_more(load)
                time.sleep(0.5)
        assert load.failures() == []
        assert len(dates(server)) == 3  # it did see the jumps
        assert workers(server) == before
        assert value(metrics(server), "vitrine_worker_hangs_total") == 0
        assert ask(server) == 200
        assert server.stop(signal.SIGTERM) == 0
