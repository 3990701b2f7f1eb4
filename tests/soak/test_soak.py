"""What a soak finds fault with, and a short run of it."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.server import CHECKOUT, environment
from tests.soak.judge import ENDED, judge
from tests.soak.record import Record, Usage

SECONDS = 12
MIB = 2**20


def record(**changes: object) -> Record:
    """A run of 40 s in which nothing was amiss, but for the changes."""
    usage = [Usage(float(at_s), 300 * MIB, 50) for at_s in range(0, 40, 2)]
    fine = Record(40, users=8, requests=1000, killed_at_s=[20.0], usage=usage)
    for name, changed in changes.items():
        setattr(fine, name, changed)
    return fine


def broken(came: Record) -> list[str]:
    return [verdict.what for verdict in judge(came, max_growth=0.1) if not verdict.is_kept]


def test_nothing_amiss_is_found_where_nothing_is() -> None:
    assert broken(record()) == []


def test_killed_worker_explains_a_failure_of_each_of_its_clients_and_no_more() -> None:
    assert broken(record(failures=Counter({ENDED: 9}))) == []
    assert broken(record(failures=Counter({ENDED: 10}))) == [
        "failures that 1 killed workers explain"
    ]
    assert broken(record(failures=Counter({ENDED: 1}), killed_at_s=[])) == [
        "failures that 0 killed workers explain"
    ]


def test_any_other_failure_is_found() -> None:
    assert broken(record(failures=Counter({"expected 200, got 500": 1}))) == ["other failures"]


def test_memory_that_grows_is_found() -> None:
    growing = [Usage(float(at_s), (300 + at_s) * MIB, 50) for at_s in range(0, 80, 2)]
    assert broken(record(seconds=80, usage=growing)) == ["growth of memory"]


def test_descriptors_that_are_left_open_are_found() -> None:
    assert broken(record(idle_descriptors=(40, 45))) == ["file descriptors before and after"]


def test_server_that_does_not_end_well_is_found() -> None:
    assert broken(record(exit_status=1)) == ["exit status"]


def test_record_is_written_as_json(tmp_path: Path) -> None:
    came = record(failures=Counter({ENDED: 2}))
    came.write(tmp_path / "soak.json", judge(came, max_growth=0.1))
    found = json.loads((tmp_path / "soak.json").read_text())
    assert found["failures"] == {ENDED: 2}
    assert found["usage"][1] == {"at_s": 2.0, "memory_bytes": 300 * MIB, "descriptors": 50}
    assert {"what": "exit status", "came": "0", "is_kept": True} in found["verdicts"]


@pytest.mark.slow
def test_short_soak_is_drawn_and_finds_nothing_amiss(tmp_path: Path) -> None:
    options = ["--seconds", str(SECONDS), "--kill-every-s", "5", "--max-growth", "1"]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.soak", *options, "--out", str(tmp_path)],
        cwd=CHECKOUT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads((tmp_path / "soak.json").read_text())
    assert found["requests"] > 50
    assert len(found["killed_at_s"]) >= 1
    assert found["usage"]
    assert found["traffic"]
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
