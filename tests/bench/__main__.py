"""`make bench`: Vitrine and other servers in turn, in one run, on this machine.

`--write` puts the tables into tests/bench/README.md, and the figures and the picture beside it.
"""

import argparse
import contextlib
import datetime
import platform
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from tests.bench import handover, watched
from tests.bench.closed_loop import measure, require_wrk
from tests.bench.open_loop import OK, OVERLOADED, Generator
from tests.bench.picture import draw
from tests.bench.report import FOLDER, tables, write_documents
from tests.bench.results import Pair, Rate, Results, write
from tests.bench.servers import Running, started
from tests.bench.systems import (
    BIG_PHOTO,
    ENVIRONMENTS,
    LAYERS,
    OTHERS,
    PHOTO,
    PHOTO_OTHERS,
    VITRINE,
    VITRINE_BIG_PHOTO,
    VITRINE_PHOTO,
    System,
    cores,
    install,
    processor,
)

CONNECTIONS = (1, 16, 64)
LAYER_CONNECTIONS = (1, 2, 4, 16, 64)
PHOTO_CONNECTIONS = 8
# How many times as long as a load of the closed loop with drawings, which is also how long a system
# is warmed up: of photos far fewer are answered, and an overload takes its time to fill a queue.
PHOTO_TIMES = 3
CAPACITY_TIMES = 4
STARTS = 7
DRIFT_AFTER = 50_000
# Payload, system, connections that capacity is measured with, shares of it, and how many times as
# long as a load of the closed loop. With drawings the generator itself is the limit near capacity,
# so only photos overload. Few of these may wait; with the default of 256 it would take a long time
# until the first is refused.
OPEN_LOOP: tuple[tuple[str, System, int, tuple[float, ...], int], ...] = (
    ("drawing", VITRINE, 64, (0.5, 0.8), 4),
    (
        "photo",
        replace(VITRINE_PHOTO, settings={"queue_limit": 32}),
        16,
        (0.5, 0.8, 1.0, 1.2, 2.0),
        10,
    ),
)


def main() -> None:
    """Install, measure, print the tables, write results.json and results.png."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=4, help="(%(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="of each load (%(default)s)")
    parser.add_argument("--only", nargs="+", default=[""], help="others whose name contains one")
    parser.add_argument("--drift-requests", type=int, default=500_000, help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=ENVIRONMENTS, help="folder (%(default)s)")
    parser.add_argument("--write", action="store_true", help=f"into {FOLDER} and its README.md")
    arguments = parser.parse_args()
    require_wrk()
    results = Results(
        datetime.datetime.now(datetime.UTC).date().isoformat(),
        f"{cores()} cores of {processor()}, Python {platform.python_version()}",
        arguments.seconds,
        arguments.rounds,
    )

    def chosen(pairs: Iterable[tuple[System, System]]) -> list[tuple[System, System]]:
        return [pair for pair in pairs if any(part in pair[0].name for part in arguments.only)]

    out = FOLDER if arguments.write else arguments.out
    layers = chosen((layer, VITRINE) for layer in LAYERS)
    photos = chosen((other, VITRINE_PHOTO) for other in PHOTO_OTHERS)
    for measured, pairs, connections, times in (
        (results.others, chosen(OTHERS), CONNECTIONS, 1),
        (results.layers, layers, LAYER_CONNECTIONS, 1),
        (results.photos, photos, (PHOTO_CONNECTIONS,), PHOTO_TIMES),
    ):
        for other, ours in tqdm(pairs, desc="closed loop"):
            reason = other.missing()
            if reason:
                results.skipped[other.name] = reason
                continue
            install(other)
            try:
                measured[other.name] = _compare(other, ours, results, connections, times)
            except RuntimeError as error:  # the rest is worth measuring, and this is said
                results.skipped[other.name] = str(error)
            write(results, out)
    _photo_sizes(results)
    _open_loop(results)
    _process(results, arguments.drift_requests)
    results.handover_us = handover.measure()
    write(results, out)
    draw(results, out)
    if arguments.write:
        write_documents(results)
    print("\n\n".join(f"{name}\n\n{table}" for name, table in tables(results).items()))


def _compare(
    other: System, ours: System, results: Results, connections: Sequence[int], times: int
) -> Pair:
    """Load ours and another in turn, every few seconds, so that both see the same machine."""
    results.workers[ours.name] = cores()
    seconds = results.seconds * times
    if other.name not in results.workers:
        some = min(count for count in connections if count >= PHOTO_CONNECTIONS)
        results.workers[other.name] = _best_workers(other, some, seconds)
    pair: Pair = {system.name: {count: [] for count in connections} for system in (ours, other)}
    with (
        started(ours, cores()) as our_server,
        started(other, results.workers[other.name]) as their_server,
    ):
        turns = [(our_server, their_server), (their_server, our_server)]
        for loaded, idle in turns:
            with idle.paused():
                measure(loaded, max(connections), seconds)
        for _ in range(results.rounds):
            for count in connections:
                for loaded, idle in turns:
                    with idle.paused():
                        load = measure(loaded, count, seconds)
                    pair[loaded.system.name][count].append(load)
            turns.reverse()  # the first of two has no advantage over all rounds
    return pair


def _best_workers(system: System, connections: int, seconds: int) -> int:
    """The number of workers with which it answers most requests."""
    if len(system.workers) == 1:
        return system.workers[0]
    rates = {}
    for workers in system.workers:
        with started(system, workers) as running:
            measure(running, connections, seconds)
            rates[workers] = measure(running, connections, seconds).rate
    return max(rates, key=lambda workers: rates[workers])


def _photo_sizes(results: Results) -> None:
    """A photo of 12 megapixels beside a small one."""
    with started(VITRINE_PHOTO, cores()) as running:
        for system, size in ((VITRINE_PHOTO, PHOTO), (VITRINE_BIG_PHOTO, BIG_PHOTO)):
            seconds = results.seconds * PHOTO_TIMES
            load = measure(replace(running, system=system), 1, seconds)
            results.photo_ms["{}x{}".format(*size)] = load.p50_ms


def _open_loop(results: Results) -> None:
    for payload, system, connections, shares, times in OPEN_LOOP:
        with (
            started(system, cores()) as running,
            contextlib.closing(Generator(running)) as generator,
        ):
            generator.capacity(connections, results.seconds)
            capacity = generator.capacity(connections, results.seconds * CAPACITY_TIMES)
            for share in tqdm(shares, desc=f"open loop, {payload}"):
                outcome = generator.run(share * capacity, results.seconds * times)
                results.rates.append(
                    Rate(
                        payload,
                        share,
                        outcome.rate,
                        outcome.goodput(),
                        outcome.percentile_ms(OK, 50),
                        outcome.percentile_ms(OK, 99),
                        len(outcome.latencies_s.get(OVERLOADED, ())),
                        outcome.percentile_ms(OVERLOADED, 99),
                        outcome.unsent,
                    )
                )
            after = generator.capacity(connections, results.seconds * CAPACITY_TIMES)
            results.capacity[payload] = capacity, after


def _process(results: Results, drift_requests: int) -> None:
    """Start, memory by workers, and memory over many requests."""
    for _ in tqdm(range(STARTS), desc="starts"):
        with started(VITRINE, cores()) as running:
            results.start_s.append(running.start_s)
    for workers in (1, 2, 3):
        with started(VITRINE, workers) as running:
            measure(running, 64, results.seconds)
            results.memory_mb[workers] = running.memory_bytes() / 1e6
    with started(replace(VITRINE, command=watched.command), cores()) as running:
        results.drift = _drift(running, drift_requests)


def _drift(running: Running, requests: int) -> dict[str, float]:
    """How memory grows over many requests, and whether the garbage collector runs meanwhile."""
    at_start = len(watched.pauses_s())
    first = None
    with tqdm(total=requests, desc="memory over requests") as progress:
        while progress.n < requests:
            progress.update(measure(running, 16, 5).requests)
            if first is None and progress.n >= DRIFT_AFTER:
                first = running.memory_bytes()
        last = running.memory_bytes()
        first = first or last
        pauses = watched.pauses_s()[at_start:]
        return {
            f"memory after the first {DRIFT_AFTER:,} requests, MB": first / 1e6,
            f"memory after {progress.n:,} requests, MB": last / 1e6,
            "garbage collections meanwhile, in all processes": len(pauses),
            "longest of them, ms": max(pauses, default=0) * 1000,
        }


if __name__ == "__main__":
    main()
