"""Comparing plain text with TLS."""

from dataclasses import replace
from pathlib import Path

from tests.bench.servers import started
from tests.bench.systems import MODEL
from tests.bench.tls import MEASURES, Cost, new_connections, systems, table


def test_table_shows_how_many_times_as_much_tls_is() -> None:
    measured = {"plain": (100, 0.5), "elliptic curve": (50, 1.5), "RSA 2,048": (25, 2.0)}
    rounds = {
        name: [Cost(rate, cpu_ms), Cost(2 * rate, cpu_ms)]
        for name, (rate, cpu_ms) in measured.items()
    }
    head, _, rate, cpu, *others = table([rounds for _ in MEASURES]).splitlines()
    assert head == "|  | plain text | elliptic curve | RSA 2,048 |"
    assert rate == "| new connections/s, one at a time | 150 | 75 (0.50x) | 37.5 (0.25x) |"
    assert cpu == "| CPU ms a connection | 0.5 | 1.5 (3.00x) | 2 (4.00x) |"
    assert len(others) == 2


def test_server_with_either_key_is_asked_over_tls(tmp_path: Path) -> None:
    made = systems(tmp_path)
    assert made["plain"].trust is None
    for name in made.keys() - {"plain"}:
        settings = {**made[name].settings, "models": MODEL}
        with started(replace(made[name], settings=settings), 1) as running:
            assert running.url.startswith("https://")
            assert new_connections(running, 0.1).rate > 1
