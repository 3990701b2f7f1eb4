"""Everything that one run of the benchmark measures, and its JSON file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from pydantic import TypeAdapter

from tests.bench.closed_loop import Load

JSON_FILE = "results.json"

Pair = dict[str, dict[int, list[Load]]]
"""Two systems that were loaded in turn, by name: one Load a round, by connections."""


@dataclass
class Rate:
    """One rate of the open loop."""

    payload: str
    share: float
    """Of the capacity that was measured before."""
    asked: float
    """Requests/s, as are the next."""
    goodput: float
    p50_ms: float | None
    p99_ms: float | None
    refused: int
    """Requests that were answered with 503."""
    refused_p99_ms: float | None
    unsent: int
    """Requests beyond the most connections, or never answered."""


@dataclass
class Results:
    """One run."""

    date: str
    machine: str
    seconds: int
    """Of each load in the closed loop."""
    rounds: int
    others: dict[str, Pair] = field(default_factory=dict)
    layers: dict[str, Pair] = field(default_factory=dict)
    photos: dict[str, Pair] = field(default_factory=dict)
    """VGG16."""
    photo_ms: dict[str, float] = field(default_factory=dict)
    """The median of Vitrine's latency at one connection, by the size of the photo."""
    workers: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    """Why a system was not measured."""
    capacity: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Requests/s before the rates of the open loop and after them, by payload."""
    rates: list[Rate] = field(default_factory=list)
    start_s: list[float] = field(default_factory=list)
    memory_mb: dict[int, float] = field(default_factory=dict)
    """Proportional set size after load, by workers."""
    drift: dict[str, float] = field(default_factory=dict)
    handover_us: dict[int, tuple[float, float, float]] = field(default_factory=dict)
    """Tenth, half and nine tenths of the hand-overs, by microseconds of the loop's turns."""


def pooled(pairs: Mapping[str, Pair]) -> Pair:
    """All loads of each system, whatever it was compared with."""
    loads: Pair = {}
    for pair in pairs.values():
        for system, of_system in pair.items():
            for connections, of_count in of_system.items():
                loads.setdefault(system, {}).setdefault(connections, []).extend(of_count)
    return loads


def figure(pair: Pair, system: str, connections: int, name: str) -> float:
    """The median of `rate` (requests/s), `p50_ms`, `p99_ms` or `cpu_ms` over the rounds."""
    return median(float(getattr(load, name)) for load in pair[system][connections])


def ratio(pair: Pair, other: str, connections: int, name: str) -> float:
    """How many times the other's figure ours is: the median of loads side by side."""
    (ours,) = (system for system in pair if system != other)
    loads = zip(pair[ours][connections], pair[other][connections], strict=True)
    return median(float(getattr(our, name) / getattr(their, name)) for our, their in loads)


def read(folder: Path) -> Results:
    """What `write` has written into a folder."""
    return TypeAdapter(Results).validate_json((folder / JSON_FILE).read_bytes())


def write(results: Results, folder: Path) -> None:
    """Write results.json into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON_FILE).write_bytes(TypeAdapter(Results).dump_json(results, indent=1) + b"\n")
