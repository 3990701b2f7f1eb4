"""The benchmark itself: what it posts, what its load generator counts, what it says without wrk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.open_loop import OK, OVERLOADED, Generator
from tests.bench.payloads import raw
from tests.bench.report import Results, read, table, write
from tests.bench.systems import SYSTEMS, VITRINE, System, started
from tests.server import CHECKOUT


def test_drawing_is_as_large_as_a_typical_test_image() -> None:
    assert 410 <= len(raw("/").body) <= 415


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_every_peer_has_a_server_and_a_lock_file_with_hashes(system: System) -> None:
    if system.folder:
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
    with started(VITRINE, 1, models="fashion-mnist", queue_limit=1) as running:
        generator = Generator(running)
        assert generator.capacity(4, 0.2) > 0
        outcome = generator.run(rate=500, seconds=1)
    counts = {status: len(latencies) for status, latencies in outcome.latencies_s.items()}
    assert sum(counts.values()) + outcome.unsent == 500
    assert counts[OK] > 0
    assert counts.keys() <= {OK, OVERLOADED}


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    recorded = read(CHECKOUT / "tests/bench")
    write(recorded, tmp_path)
    assert isinstance(recorded, Results)
    assert table(read(tmp_path)) == table(recorded)
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
