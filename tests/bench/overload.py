"""`python -m tests.bench.overload`: what is left of the capacity when far more is asked for.

Open loop, capacity measured once, the generator at a lower priority than the server. `--write` puts
the tables into tests/faults/README.md.
"""

import argparse
import contextlib
import itertools
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from tests.bench.closed_loop import measure, require_wrk
from tests.bench.documents import fill, markdown
from tests.bench.open_loop import OK, OVERLOADED, Generator, Outcome
from tests.bench.payloads import photo
from tests.bench.servers import Running, started
from tests.bench.systems import PHOTO, VITRINE, VITRINE_PHOTO, System, cores
from tests.bench.watching import watching

DOCUMENT = Path(__file__).resolve().parent.parent / "faults" / "README.md"
HEAVY = replace(
    VITRINE_PHOTO,
    name="clothing, photo",
    make_payload=lambda: photo("/v1/models/clothing:predict", *PHOTO),
)
LIGHT = replace(VITRINE, name="fashion-mnist, raw body")
SHARES = (2.0, 5.0)
NICE = 10
HEAVY_CONNECTIONS, LIGHT_CONNECTIONS = 16, 64
PROBES = ("/livez", "/readyz", "/metrics")
# A scrape of all metrics and a look at the memory of all processes take CPU time themselves.
PROBE_EVERY_S = 1.0
PROBES_A_LOOK = 5
RECOVERY_S = 2.0
BESIDE_RATE = 50.0
"""Requests/s to the model beside the flooded one."""
REFUSING = {"queue_limit": 1}


@dataclass
class Watch:
    """What an operator sees meanwhile: seconds of each probe, and memory."""

    probes_s: dict[str, list[float]] = field(default_factory=dict)
    failures: int = 0
    memory_bytes: list[int] = field(default_factory=list)

    def worst_ms(self) -> float:
        """The slowest of all probes."""
        return 1000 * max(max(seconds) for seconds in self.probes_s.values())


@contextlib.contextmanager
def watched(running: Running) -> Iterator[Watch]:
    """Ask every probe on a new connection, again and again, until the end of the block."""
    watch, turns = Watch(), itertools.count()
    # A connection for each probe, as Kubernetes does; a client for each would load certificates.
    client = httpx.Client(
        base_url=running.url, timeout=5, limits=httpx.Limits(max_keepalive_connections=0)
    )

    def ask() -> None:
        for path in PROBES:
            begun = time.perf_counter()
            try:
                watch.failures += client.get(path).status_code != httpx.codes.OK
            except httpx.TransportError:
                watch.failures += 1
            watch.probes_s.setdefault(path, []).append(time.perf_counter() - begun)
        if next(turns) % PROBES_A_LOOK == 0:
            watch.memory_bytes.append(running.memory_bytes())

    with client, watching(ask, PROBE_EVERY_S):
        yield watch


def flood(running: Running, rate: float, seconds: float, nice: int = NICE) -> Outcome:
    """An open loop in a process of its own, by default at low priority."""
    with _processes().Pool(1) as pool:
        return pool.apply(_flood, (running.system.name, running.ports, rate, seconds, nice))


def _flood(name: str, ports: list[int], rate: float, seconds: float, nice: int) -> Outcome:
    os.setpriority(os.PRIO_PROCESS, 0, nice)  # a process of the pool may have it already
    with contextlib.closing(Generator(_asking(name, ports))) as generator:
        return generator.run(rate, seconds)


def _capacity(name: str, ports: list[int], connections: int, seconds: float) -> float:
    os.setpriority(os.PRIO_PROCESS, 0, NICE)
    with contextlib.closing(Generator(_asking(name, ports))) as generator:
        return generator.capacity(connections, seconds)


def _asking(name: str, ports: list[int]) -> Running:
    system = next(system for system in (HEAVY, LIGHT) if system.name == name)
    return Running(system, ports, [], 0.0)


def _processes() -> multiprocessing.context.SpawnContext:
    return multiprocessing.get_context("spawn")  # a fork would share the sockets of the watch


def capacity(running: Running, connections: int, seconds: float) -> float:
    """Requests/s in a closed loop, asked for by a process at low priority."""
    with _processes().Pool(1) as pool:
        return pool.apply(_capacity, (running.system.name, running.ports, connections, seconds))


def overload(
    system: System, connections: int, shares: tuple[float, ...], seconds: float
) -> list[list[str]]:
    """Goodput, refusals, probes, memory and recovery at several times the capacity."""
    rows = [
        ["asked for", "requests/s", "200", "of capacity", "503", "other", "200 p99", "503 p99",
         "slowest probe", "memory", "2 s after"]
    ]  # fmt: skip
    with started(system, cores()) as running:
        capacity(running, connections, seconds / 10)
        whole = capacity(running, connections, seconds / 4)
        rows.append(["capacity", f"{whole:,.0f}", *[""] * 9])
        for share in shares:
            before = running.memory_bytes()
            with watched(running) as watch:
                outcome = flood(running, share * whole, seconds)
                time.sleep(RECOVERY_S)
            after = capacity(running, connections, seconds / 10)
            rows.append(_row(share, outcome, whole, watch, before, after))
    return rows


def _row(  # noqa: PLR0917
    share: float, outcome: Outcome, whole: float, watch: Watch, before: int, after: float
) -> list[str]:
    by_status = {status: len(times) for status, times in outcome.latencies_s.items()}
    other = sum(by_status.values()) - by_status.get(OK, 0) - by_status.get(OVERLOADED, 0)
    return [
        f"{share:g} times",
        f"{outcome.rate:,.0f}",
        f"{by_status.get(OK, 0):,}",
        f"{outcome.goodput() / whole:.0%}",
        f"{by_status.get(OVERLOADED, 0):,}",
        f"{other + outcome.unsent + watch.failures:,}",
        _ms(outcome.percentile_ms(OK, 99)),
        _ms(outcome.percentile_ms(OVERLOADED, 99)),
        _ms(watch.worst_ms()),
        f"{before / 1e6:.0f} to {max(watch.memory_bytes) / 1e6:.0f} MB",
        f"{after / whole:.0%}",
    ]


def refusal(seconds: float) -> list[list[str]]:
    """CPU time of an answer and of a refusal of the smallest model."""
    rows = [["", "requests/s", "CPU time a request"]]
    with started(LIGHT, cores()) as running:
        measure(running, LIGHT_CONNECTIONS, seconds)
        answered = measure(running, LIGHT_CONNECTIONS, seconds)
    rows.append(["answered", f"{answered.rate:,.0f}", f"{answered.cpu_ms * 1000:.0f} µs"])
    with started(replace(LIGHT, settings=REFUSING), cores()) as running:
        measure(running, LIGHT_CONNECTIONS, seconds)
        mixed = measure(running, LIGHT_CONNECTIONS, seconds)
    refused = mixed.errors / mixed.requests
    cost_ms = (mixed.cpu_ms - (1 - refused) * answered.cpu_ms) / refused
    rows.append(["refused", f"{mixed.errors / mixed.seconds:,.0f}", f"{cost_ms * 1000:.0f} µs"])
    rows.append(["ratio", "", f"{cost_ms / answered.cpu_ms:.2f}"])
    return rows


def fairness(seconds: float) -> list[list[str]]:
    """Another model beside a flood, compared with the same beside one closed-loop client.

    The client of the other model has the server's priority: at a lower one its latency would be the
    time that it waits for a core itself.
    """
    rows = [["beside clothing asked", "503", "p50", "p99"]]
    with started(HEAVY, cores()) as running:
        whole = capacity(running, HEAVY_CONNECTIONS, seconds / 4)
        beside = replace(running, system=LIGHT)
        alone = flood(beside, BESIDE_RATE, seconds, nice=0)
        rows.append(["not at all", *_quality(alone)])
        with _processes().Pool(1) as pool:
            asking = pool.apply_async(_capacity, (HEAVY.name, running.ports, 1, seconds))
            by_one = flood(beside, BESIDE_RATE, seconds, nice=0)
            asking.get()
            rows.append(["by one client, closed loop", *_quality(by_one)])
            flooding = pool.apply_async(
                _flood, (HEAVY.name, running.ports, 2 * whole, seconds, NICE)
            )
            flooded = flood(beside, BESIDE_RATE, seconds, nice=0)
            flooding.get()
            rows.append(["for 2 times the capacity", *_quality(flooded)])
    ratio = (flooded.percentile_ms(OK, 99) or 0.0) / (by_one.percentile_ms(OK, 99) or 1.0)
    rows.append(["ratio to one client", "", "", f"{ratio:.2f}"])
    return rows


def _quality(outcome: Outcome) -> list[str]:
    refused = sum(len(times) for status, times in outcome.latencies_s.items() if status != OK)
    latencies = outcome.latencies_s[OK]
    p50_ms = 1000 * statistics.median(latencies)
    return [str(refused), _ms(p50_ms), _ms(outcome.percentile_ms(OK, 99))]


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3g} ms"


def main() -> None:
    """Measure all, print the tables, write them where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each load (%(default)s)")
    parser.add_argument("--only", choices=("heavy", "light", "refusal", "fairness"))
    parser.add_argument("--write", action="store_true", help=f"write the tables into {DOCUMENT}")
    arguments = parser.parse_args()
    require_wrk()
    seconds = arguments.seconds
    parts: dict[str, Callable[[], list[list[str]]]] = {
        "heavy": lambda: overload(HEAVY, HEAVY_CONNECTIONS, SHARES, seconds),
        "light": lambda: overload(LIGHT, LIGHT_CONNECTIONS, SHARES[:1], seconds),
        "refusal": lambda: refusal(seconds / 4),
        "fairness": lambda: fairness(seconds),
    }
    for name, part in parts.items():
        if arguments.only in (None, name):
            table = markdown(part())
            print(f"## {name}\n{table}", flush=True)
            if arguments.write:
                fill(DOCUMENT, f"overload-{name}", table)


if __name__ == "__main__":
    main()
