"""The benchmark itself: what it posts, what its load generator counts, what it says without wrk."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.closed_loop import Load
from tests.bench.open_loop import OK, OVERLOADED, Generator
from tests.bench.payloads import raw
from tests.bench.report import OURS, Results, read, table, write
from tests.bench.systems import OTHERS, VITRINE, System, started
from tests.server import CHECKOUT


def test_drawing_is_as_large_as_a_typical_test_image() -> None:
    assert 410 <= len(raw("/").body) <= 415


@pytest.mark.parametrize("system", OTHERS, ids=lambda system: system.name)
def test_every_peer_has_a_server_and_a_lock_file_with_hashes(system: System) -> None:
    peer = CHECKOUT / "tests/bench/peers" / system.folder
    assert (peer / "server.py").exists()
    assert "--hash=sha256:" in (peer / "requirements.lock").read_text()


def test_missing_wrk_is_said_in_one_line(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.bench"],
        cwd=CHECKOUT,
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: wrk is missing")


def test_open_loop_counts_every_request_once() -> None:
    with (
        started(VITRINE, 1, models="fashion-mnist", queue_limit=1) as running,
        contextlib.closing(Generator(running)) as generator,
    ):
        assert generator.capacity(4, 0.2) > 0
        outcome = generator.run(rate=500, seconds=1)
    counts = {status: len(latencies) for status, latencies in outcome.latencies_s.items()}
    assert sum(counts.values()) + outcome.unsent == 500
    assert counts[OK] > 0
    assert counts.keys() <= {OK, OVERLOADED}


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    results = Results("2026-01-01", "a machine", 1, 1, (1, 16, 64), skipped={"that": "missing"})
    for system in (*OURS, "other"):
        results.workers[system] = 2
        for connections in results.connections:
            results.add("other", system, connections, Load(100 * connections, 1.0, 0.5, 2.0, 0))
    results.memory_mb[2] = 200.0
    results.photos = {"us": [Load(30, 1.0, 0.5, 2.0, 0)], "them": [Load(10, 1.0, 1.5, 8.0, 0)]}
    results.photo_ms = {"500x375": 20.0, "4000x3000": 35.0}
    write(results, tmp_path)
    assert read(tmp_path) == results
    assert "| other | 2 | 100 / 1,600 / 6,400 |" in table(read(tmp_path))
    assert "| ratio, side by side | 3.00x |  | 0.25x |" in table(read(tmp_path))
    assert "500x375: 20.0 ms, 4000x3000: 35.0 ms" in table(read(tmp_path))
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_readme_shows_the_results_that_are_committed() -> None:
    folder = CHECKOUT / "tests/bench"
    assert table(read(folder)) in (folder / "README.md").read_text()
