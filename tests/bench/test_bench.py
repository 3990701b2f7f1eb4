"""The benchmark itself: what it posts, what its load generator counts, what it says without wrk."""

import contextlib
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from tests.bench.closed_loop import Load, measure, require_wrk
from tests.bench.open_loop import OK, OVERLOADED, Generator
from tests.bench.payloads import raw
from tests.bench.picture import draw
from tests.bench.report import DOCUMENTS, FOLDER, README, SUMMARY, tables, write_documents
from tests.bench.results import Rate, Results, read, write
from tests.bench.servers import Running, started
from tests.bench.systems import (
    FASTAPI,
    FLOOR,
    LITSERVE,
    OTHERS,
    PEERS,
    PHOTO_OTHERS,
    VITRINE,
    System,
)
from tests.programs import program


def test_drawing_is_as_large_as_a_typical_test_image() -> None:
    assert 410 <= len(raw("/").body) <= 415


@pytest.mark.parametrize("system", [FLOOR, *(other for other, _ in OTHERS)], ids=lambda s: s.name)
def test_every_peer_has_a_server_and_if_installed_a_lock_file_with_hashes(system: System) -> None:
    server = Path(system.command(1, 1)[1])
    assert server.parent.parent == PEERS
    assert server.exists()
    if system.environment:
        assert "--hash=sha256:" in (PEERS / system.environment / "requirements.lock").read_text()


def test_missing_wrk_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"^error: wrk is missing: .* apt install wrk\)$"):
        require_wrk()


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


def results() -> Results:
    """Three of theirs for every one of ours, with one failure."""
    ours = {count: [Load(100 * count, 1.0, 0.5, 2.0, errors=0, cpu_ms=0.2)] for count in (1, 16)}
    theirs = {
        count: [Load(300 * count, 1.0, 1.5, 8.0, errors=count == 1, cpu_ms=0.1)]
        for count in (1, 16)
    }
    drifted = {count: [replace(load, p99_ms=6.0) for load in ours[count]] for count in ours}
    pair = {VITRINE.name: ours, FASTAPI.name: theirs}
    return Results(
        "2026-01-01",
        "a machine",
        1,
        1,
        others={FASTAPI.name: pair, LITSERVE.name: {VITRINE.name: drifted, LITSERVE.name: theirs}},
        layers={FLOOR.name: {VITRINE.name: ours, FLOOR.name: theirs}},
        photos={"them": {"us": {8: ours[1]}, "them": {8: theirs[1]}}},
        photo_ms={"500x375": 20.0, "4000x3000": 35.0},
        workers={VITRINE.name: 2, FASTAPI.name: 2},
        skipped={"that": "it is missing"},
        capacity={"photo": (100.0, 90.0)},
        rates=[Rate("photo", 1.2, 120.0, 101.0, 20.0, 400.0, 380, 3.0, 0)],
        memory_mb={2: 200.0},
        handover_us={100: (60.0, 200.0, 300.0)},
    )


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    write(results(), tmp_path)
    assert read(tmp_path) == results()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("bench summary", "| FastAPI + LiteRT, raw body | {what} | 16 | 0.33x | 0.25x |"),
        (
            "bench others",
            "| {other} | 2 | 299 / 4,800 | 1.50 / 1.50 | 8.00 / 8.00 "
            "| 0.33x / 0.33x | 0.25x / 0.25x |",
        ),
        (
            "bench others",
            "| Vitrine, raw body | 2 | 100 / 1,600 | 0.50 / 0.50 | 4.00 / 4.00 |  |  |",
        ),
        ("bench others", "that: skipped, it is missing."),
        ("bench others", "{other}: 0.0% of its requests failed and do not count."),
        ("bench layers", "| Vitrine, raw body | 100 | 1,600 |"),
        ("bench layers", "| bare ASGI (the floor) | 299 (0.33x) | 4,800 (0.33x) |"),
        ("bench layers", "| bare ASGI (the floor) | 8.00 (0.25x) | 8.00 (0.25x) |"),
        ("bench layers", "| bare ASGI (the floor) | 0.100 (2.00x) | 0.100 (2.00x) |"),
        ("bench photos", "| them |  | 299.0 | 2 | 8 | 0.33x | 0.25x |"),
        ("bench photos", "500x375: 20.0 ms, 4000x3000: 35.0 ms"),
        ("bench open loop", "| photo, 120% of capacity | 120 | 101 | 101% |"),
        ("bench open loop", "photo: 100/s before, 90/s after"),
        ("bench process", "| memory with 2 workers, MB | 200 |"),
        ("bench hand-over", "| 100 | 60 | 200 | 300 |"),
    ],
)
def test_tables_show_what_was_measured(name: str, line: str) -> None:
    other = FASTAPI.name
    assert line.format(other=other, what=SUMMARY[other]) in tables(results())[name]


def test_picture_is_drawn(tmp_path: Path) -> None:
    draw(results(), tmp_path)
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_readme_has_a_place_for_every_table() -> None:
    text = README.read_text()
    assert all(f"<!-- {name}: begin -->" in text for name in tables(results()))


def test_summary_compares_with_systems_that_are_measured() -> None:
    measured = {other.name for other, _ in OTHERS} | {other.name for other in PHOTO_OTHERS}
    assert set(SUMMARY) <= measured


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.parent.name))
def test_documents_show_the_results_that_are_committed(document: Path, tmp_path: Path) -> None:
    written = tmp_path / "README.md"
    written.write_text(document.read_text())
    write_documents(read(FOLDER), [written])
    assert written.read_text() == document.read_text()


class _Counter(BaseHTTPRequestHandler):
    """Answers 200 to every POST, and notes which client posted to which port."""

    protocol_version = "HTTP/1.1"
    clients: ClassVar[set[tuple[int, int]]] = set()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.clients.add((self.connection.getsockname()[1], self.client_address[1]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_load_is_split_evenly_over_the_ports() -> None:
    program("wrk")
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), _Counter) for _ in range(2)]
    for server in servers:
        Thread(target=server.serve_forever, daemon=True).start()
    ports = [server.server_port for server in servers]
    load = measure(Running(VITRINE, ports, [], 0.0), connections=6, seconds=1)
    for server in servers:
        server.shutdown()
        server.server_close()
    assert load.errors == 0
    assert Counter(port for port, _ in _Counter.clients) == dict.fromkeys(ports, 3)
