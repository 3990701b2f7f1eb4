"""Comparing this checkout with another commit."""

import subprocess

import pytest

from tests.bench.closed_loop import Load
from tests.bench.compare import LOADS, Runs, checked_out, revision, table
from tests.server import CHECKOUT


def runs(rate: int, p99_ms: float, start_s: float, memory_mb: float) -> Runs:
    """Two rounds, the second twice as quick."""
    loads = [
        Load(rate * times, 1.0, 1.0, p99_ms / times, errors=0, cpu_ms=100 / rate / times)
        for times in (1, 2)
    ]
    return Runs([loads for _ in LOADS], [start_s], [memory_mb])


def test_table_shows_the_ratio_to_the_base_of_each_figure() -> None:
    lines = table(runs(300, 4.0, 1.5, 300.0), runs(200, 5.0, 1.0, 400.0)).splitlines()
    assert "| raw, 1 connections, requests/s | 450 | 300 | 1.50 (1.50 to 1.50) |" in lines
    assert "| raw, 1 connections, CPU ms a request | 0.25 | 0.375 | 0.67 (0.67 to 0.67) |" in lines
    assert "| VGG16, photo, 8 connections, p99, ms | 3 | 3.75 | 0.80 (0.80 to 0.80) |" in lines
    assert "| start to ready, s | 1.5 | 1 | 1.50 (1.50 to 1.50) |" in lines
    assert "| memory (PSS) after load, MB | 300 | 400 | 0.75 (0.75 to 0.75) |" in lines


def test_base_is_checked_out_into_a_folder_that_goes_away() -> None:
    with checked_out("HEAD") as folder:
        assert (folder / "service" / "__main__.py").exists()
        assert (folder / "models" / "fashion-mnist" / "1" / "model.tflite").exists()
    assert not folder.exists()
    command = ["git", "worktree", "list"]
    known = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert str(folder) not in known.stdout


def test_unknown_base_is_said_in_one_line() -> None:
    with pytest.raises(SystemExit, match=r"^error: no-such-commit: fatal: "):
        revision("no-such-commit")
