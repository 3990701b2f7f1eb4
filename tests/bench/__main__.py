"""`make bench`: Vitrine and its peers in turn, in one run, on this machine."""

import argparse
import contextlib
import datetime
import platform
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from tests.bench import inside, watched
from tests.bench.closed_loop import measure, require_wrk
from tests.bench.open_loop import OK, OVERLOADED, Generator
from tests.bench.report import OURS, Results, table, write
from tests.bench.systems import (
    BENTOML_PHOTO,
    BIG_PHOTO,
    ENVIRONMENTS,
    OTHERS,
    PHOTO,
    PHOTO_MODEL,
    VITRINE,
    VITRINE_BIG_PHOTO,
    VITRINE_FORM,
    VITRINE_PHOTO,
    System,
    cores,
    install,
    processor,
    started,
)
from tests.bench.watched import pauses_s
from tests.server import CHECKOUT

CONNECTIONS = (1, 16, 64)
WARM_UP_S = 2
TRIAL_S = 2
SHARES = (0.5, 0.8, 1.0, 1.2)
OPEN_LOOP_S = 8.0
CAPACITY_S = 4.0
STARTS = 7
DRIFT_AFTER = 50_000
PHOTO_CONNECTIONS = 8
PHOTO_S = 5


def main() -> None:
    """Install, measure, print the tables, write results.json and results.png."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=4, help="(%(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="of each load (%(default)s)")
    parser.add_argument("--only", default="", help="others whose name contains this")
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
    results.workers |= dict.fromkeys(OURS, cores())
    others = _installed(results, arguments.only)
    for other in tqdm(others, desc="choosing workers"):
        results.workers[other.name] = _best_workers(other)
    for other in tqdm(others, desc="closed loop"):
        _compare(other, results)
        write(results, arguments.out)
    if not (CHECKOUT / "models" / PHOTO_MODEL).exists():
        results.skipped[f"VGG16, {BENTOML_PHOTO.name}"] = f"models/{PHOTO_MODEL} is missing"
    elif arguments.only in BENTOML_PHOTO.name:
        _photos(results)
    _open_loop(results)
    _process(results, arguments.drift_requests)
    results.inside = inside.measure()
    write(results, arguments.out)
    print(table(results))


def _installed(results: Results, only: str) -> list[System]:
    systems = []
    for system in OTHERS:
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


def _compare(other: System, results: Results) -> None:
    """Load Vitrine and another in turn, every few seconds, so that both see the same machine."""
    with (
        started(VITRINE, cores()) as ours,
        started(other, results.workers[other.name]) as theirs,
    ):
        turns = ((ours, theirs), (replace(ours, system=VITRINE_FORM), theirs), (theirs, ours))
        for loaded, idle in turns:
            with idle.paused():
                measure(loaded, max(CONNECTIONS), WARM_UP_S)
        for _ in range(results.rounds):
            for connections in CONNECTIONS:
                for loaded, idle in turns:
                    with idle.paused():
                        load = measure(loaded, connections, results.seconds)
                    results.add(other.name, loaded.system.name, connections, load)


def _photos(results: Results) -> None:
    """VGG16 beside BentoML's; and a photo of 12 megapixels beside a small one."""
    install(BENTOML_PHOTO)
    workers = _best_workers(BENTOML_PHOTO)
    with started(VITRINE_PHOTO, cores()) as ours, started(BENTOML_PHOTO, workers) as theirs:
        turns = ((ours, theirs), (theirs, ours))
        for number in tqdm(range(results.rounds + 1), desc="photos"):
            for loaded, idle in turns:
                with idle.paused():
                    load = measure(loaded, PHOTO_CONNECTIONS, PHOTO_S)
                if number:  # the first round warms up
                    results.photos.setdefault(loaded.system.name, []).append(load)
        with theirs.paused():
            for system, size in ((VITRINE_PHOTO, PHOTO), (VITRINE_BIG_PHOTO, BIG_PHOTO)):
                load = measure(replace(ours, system=system), 1, PHOTO_S)
                results.photo_ms["{}x{}".format(*size)] = load.p50_ms


def _open_loop(results: Results) -> None:
    with (
        started(VITRINE, cores()) as running,
        contextlib.closing(Generator(running)) as generator,
    ):
        generator.capacity(64, WARM_UP_S)
        for share in tqdm(SHARES, desc="open loop"):
            capacity = generator.capacity(64, CAPACITY_S)  # anew: the machine's speed drifts
            outcome = generator.run(share * capacity, OPEN_LOOP_S)
            results.open_loop.append(
                {
                    "share": share,
                    "capacity": capacity,
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
            measure(running, 64, WARM_UP_S)
            results.memory_mb[workers] = running.memory_bytes() / 1e6
    with (
        started(replace(VITRINE, module=watched.__name__), cores()) as running,
        tqdm(total=drift_requests, desc="memory over requests") as progress,
    ):
        at_start = len(pauses_s())
        first = None
        while progress.n < drift_requests:
            progress.update(measure(running, 16, 5).requests)
            if first is None and progress.n >= DRIFT_AFTER:
                first = running.memory_bytes()
        last = running.memory_bytes()
        first = first or last
        pauses = pauses_s()[at_start:]
        results.drift = {
            "memory after the first 50,000 requests, MB": first / 1e6,
            f"memory after {progress.n:,} requests, MB": last / 1e6,
            "drift of the memory": last / first - 1,
            "garbage collections meanwhile, in all processes": len(pauses),
            "longest of them, ms": max(pauses, default=0) * 1000,
        }


if __name__ == "__main__":
    main()
