"""`make bench`: Vitrine and its peers in turn, in one run, on this machine."""

import argparse
import datetime
import platform
from pathlib import Path
from statistics import median

from tqdm import tqdm

from tests.bench import inside
from tests.bench.closed_loop import measure, require_wrk
from tests.bench.open_loop import OK, OVERLOADED, Generator
from tests.bench.report import Results, table, write
from tests.bench.systems import (
    ENVIRONMENTS,
    SYSTEMS,
    VITRINE,
    System,
    cores,
    install,
    processor,
    started,
)

CONNECTIONS = (1, 16, 64)
WARM_UP_S = 2
TRIAL_S = 2
SHARES = (0.5, 0.8, 1.0, 1.2)
STARTS = 7
DRIFT_AFTER = 50_000


def main() -> None:
    """Install, measure, print the table, write results.json and results.png."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--seconds", type=int, default=4, help="of each load (%(default)s)")
    parser.add_argument("--only", default="", help="systems whose name contains this")
    parser.add_argument("--drift-requests", type=int, default=500_000, help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=ENVIRONMENTS, help="folder (%(default)s)")
    arguments = parser.parse_args()
    require_wrk()
    results = Results(
        datetime.datetime.now(datetime.UTC).date().isoformat(),
        f"{cores()} cores of {processor()}, Python {platform.python_version()}",
        arguments.seconds,
        arguments.rounds,
        CONNECTIONS,
    )
    systems = _installed(results, arguments.only)
    for system in tqdm(systems, desc="choosing workers"):
        results.workers[system.name] = _best_workers(system)
    for _ in tqdm(range(arguments.rounds), desc="rounds"):
        _one_round(systems, results)
    if VITRINE in systems:
        _open_loop(results)
        _process(results, arguments.drift_requests)
        results.inside = inside.measure()
    write(results, arguments.out)
    print(table(results))


def _installed(results: Results, only: str) -> list[System]:
    systems = []
    for system in SYSTEMS:
        reason = system.missing()
        if reason:
            results.skipped[system.name] = reason
        elif only in system.name:
            install(system)
            systems.append(system)
    return systems


def _best_workers(system: System) -> int:
    """The number of workers with which it answers most requests at 16 connections."""
    if len(system.workers) == 1:
        return system.workers[0]
    rates = {}
    for workers in system.workers:
        with started(system, workers) as running:
            measure(running, 16, WARM_UP_S)
            rates[workers] = measure(running, 16, TRIAL_S).rate
    return max(rates, key=lambda workers: rates[workers])


def _one_round(systems: list[System], results: Results) -> None:
    for system in systems:
        with started(system, results.workers[system.name]) as running:
            measure(running, max(CONNECTIONS), WARM_UP_S)
            for connections in CONNECTIONS:
                load = measure(running, connections, results.seconds)
                results.add(system.name, connections, load)


def _open_loop(results: Results) -> None:
    with started(VITRINE, results.workers[VITRINE.name]) as running:
        generator = Generator(running)
        generator.capacity(64, WARM_UP_S)
        capacity = median(generator.capacity(64, results.seconds) for _ in range(results.rounds))
        for share in tqdm(SHARES, desc="open loop"):
            outcome = generator.run(share * capacity, 2 * results.seconds)
            results.open_loop.append(
                {
                    "share": share,
                    "rate": outcome.rate,
                    "goodput": outcome.goodput(),
                    "p50_ms": outcome.percentile_ms(OK, 50),
                    "p99_ms": outcome.percentile_ms(OK, 99),
                    "overloaded": len(outcome.latencies_s.get(OVERLOADED, ())),
                    "overloaded_p99_ms": outcome.percentile_ms(OVERLOADED, 99),
                    "unsent": outcome.unsent,
                }
            )


def _process(results: Results, drift_requests: int) -> None:
    """Start, memory by workers, and memory over many requests."""
    for _ in tqdm(range(STARTS), desc="starts"):
        with started(VITRINE, cores()) as running:
            results.start_s.append(running.start_s)
    for workers in (1, 2, 3):
        with started(VITRINE, workers) as running:
            measure(running, 64, results.seconds)
            results.memory_mb[workers] = running.memory_bytes() / 1e6
    with (
        started(VITRINE, cores()) as running,
        tqdm(total=drift_requests, desc="memory over requests") as progress,
    ):
        first = None
        while progress.n < drift_requests:
            progress.update(measure(running, 16, 5).requests)
            if first is None and progress.n >= DRIFT_AFTER:
                first = running.memory_bytes()
        last = running.memory_bytes()
        first = first or last
        results.drift = {
            "memory after the first 50,000 requests, MB": first / 1e6,
            f"memory after {progress.n:,} requests, MB": last / 1e6,
            "drift of the memory": last / first - 1,
        }


if __name__ == "__main__":
    main()
