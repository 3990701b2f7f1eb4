"""What was measured as a table, as JSON and as one picture."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator

from tests.bench.closed_loop import Load

JSON_FILE = "results.json"
PICTURE_FILE = "results.png"
OURS = ("Vitrine, raw body", "Vitrine, form")


@dataclass
class Results:
    """Everything that one run of the benchmark measured."""

    date: str
    machine: str
    seconds: int
    rounds: int
    connections: tuple[int, ...]
    loads: dict[str, dict[str, dict[int, list[Load]]]] = field(default_factory=dict)
    """By who was compared with, who was loaded, and connections; one a round."""
    workers: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    photos: dict[str, list[Load]] = field(default_factory=dict)
    """VGG16 at 8 connections, one Load a round."""
    photo_ms: dict[str, float] = field(default_factory=dict)
    """The median of Vitrine's latency at one connection, by the size of the photo."""
    open_loop: list[dict[str, Any]] = field(default_factory=list)
    start_s: list[float] = field(default_factory=list)
    memory_mb: dict[int, float] = field(default_factory=dict)
    """Proportional set size after load, by workers."""
    drift: dict[str, float] = field(default_factory=dict)
    inside: dict[str, float] = field(default_factory=dict)

    def add(self, other: str, system: str, connections: int, load: Load) -> None:
        """Note one run of wrk on `system` while it was compared with `other`."""
        by_system = self.loads.setdefault(other, {})
        by_system.setdefault(system, {}).setdefault(connections, []).append(load)

    def of(self, system: str, connections: int) -> list[Load]:
        """All runs on a system, whoever it was compared with."""
        return [
            load
            for by_system in self.loads.values()
            for load in by_system.get(system, {}).get(connections, [])
        ]

    def median(self, system: str, connections: int, figure: str) -> float:
        """The median of `rate` (requests/s), `p50_ms` or `p99_ms` over all runs."""
        return median(float(getattr(load, figure)) for load in self.of(system, connections))

    def ratio(self, ours: str, other: str, connections: int) -> float:
        """How many times another's requests/s ours are: the median of runs side by side."""
        by_system = self.loads[other]
        pairs = zip(by_system[ours][connections], by_system[other][connections], strict=True)
        return median(our.rate / their.rate for our, their in pairs)


def table(results: Results) -> str:
    """The whole result as Markdown."""
    return "\n\n".join(
        [
            f"{results.date}, {results.machine}; {results.rounds} rounds of {results.seconds} s, "
            "medians",
            _closed_loop(results),
            *([_photos(results)] if results.photos else []),
            _open_loop(results.open_loop),
            _rest(results),
        ]
    )


def _closed_loop(results: Results) -> str:
    counts = results.connections
    at = ", ".join(str(count) for count in counts)
    many = ", ".join(str(count) for count in counts[1:])
    rows = [
        [
            f"closed loop, {at} connections",
            "workers",
            "requests/s",
            "p50, ms",
            "p99, ms",
            f"our raw body is ({many})",
            f"our form is ({many})",
        ]
    ]
    for system in (*OURS, *results.loads):
        rates, p50s, p99s = (
            " / ".join(format(results.median(system, count, figure), spec) for count in counts)
            for figure, spec in (("rate", ",.0f"), ("p50_ms", ".2f"), ("p99_ms", ".2f"))
        )
        ratios = (
            " / ".join(f"{results.ratio(ours, system, count):.2f}x" for count in counts[1:])
            if system in results.loads
            else ""
            for ours in OURS
        )
        workers = str(results.workers.get(system, ""))
        rows.append([system, workers, rates, p50s, p99s, *ratios])
    notes = [f"{system}: skipped, {reason}" for system, reason in results.skipped.items()]
    for system in (*OURS, *results.loads):
        notes += _failures(system, [load for count in counts for load in results.of(system, count)])
    return "\n\n".join([markdown(rows), *notes])


def _failures(system: str, loads: Sequence[Load]) -> list[str]:
    errors = sum(load.errors for load in loads)
    if not errors:
        return []
    share = errors / sum(load.requests for load in loads)
    return [f"{system}: {share:.1%} of its requests failed and do not count"]


def _photos(results: Results) -> str:
    rows = [["VGG16, a JPEG of 500x375, 8 connections", "requests/s", "p50, ms", "p99, ms"]]
    for system, loads in results.photos.items():
        figures = ("rate", ".1f"), ("p50_ms", ".0f"), ("p99_ms", ".0f")
        cells = (format(median(getattr(load, name) for load in loads), f) for name, f in figures)
        rows.append([system, *cells])
    ours, theirs = results.photos.values()
    pairs = list(zip(ours, theirs, strict=True))
    rate = median(our.rate / their.rate for our, their in pairs)
    p99 = median(our.p99_ms / their.p99_ms for our, their in pairs)
    rows.append(["ratio, side by side", f"{rate:.2f}x", "", f"{p99:.2f}x"])
    sizes = [f"{size}: {ms:.1f} ms" for size, ms in results.photo_ms.items()]
    notes = [note for system, loads in results.photos.items() for note in _failures(system, loads)]
    at_one = f"Median at one connection, {', '.join(sizes)}."
    return "\n\n".join([markdown(rows), at_one, *notes])


def _open_loop(runs: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            "open loop",
            "asked/s",
            "200/s",
            "of capacity",
            "p50",
            "p99",
            "503",
            "p99 of 503",
            "unsent",
        ]
    ]
    for run in runs:
        latencies = (run["p50_ms"], run["p99_ms"], run["overloaded_p99_ms"])
        p50, p99, overloaded = ("" if ms is None else f"{ms:.1f} ms" for ms in latencies)
        share = f"{run['share']:.0%} of capacity"
        rates = f"{run['rate']:,.0f}", f"{run['goodput']:,.0f}"
        refused, unsent = f"{run['overloaded']:,}", f"{run['unsent']:,}"
        goodput = f"{run['goodput'] / run['capacity']:.0%}"
        rows.append([share, *rates, goodput, p50, p99, refused, overloaded, unsent])
    return markdown(rows)


def _rest(results: Results) -> str:
    memory = results.memory_mb
    starts = ", ".join(f"{seconds:.2f}" for seconds in sorted(results.start_s))
    rows = [
        ["otherwise", ""],
        ["start to ready, s", starts],
        *(
            [f"memory with {workers} worker{'s' * (workers > 1)}, MB", f"{mb:.0f}"]
            for workers, mb in memory.items()
        ),
        *([name, f"{value:,.4g}"] for name, value in results.drift.items()),
        *([name, f"{value:,.4g}"] for name, value in results.inside.items()),
    ]
    return markdown(rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table; the first row is its head."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    rule = "|---" * len(rows[0]) + "|"
    return "\n".join([head, rule, *body])


def read(folder: Path) -> Results:
    """What `write` has written into a folder."""
    content = json.loads((folder / JSON_FILE).read_text())
    content["connections"] = tuple(content["connections"])
    content["memory_mb"] = {int(workers): mb for workers, mb in content["memory_mb"].items()}
    content["photos"] = {
        system: [Load(**load) for load in loads]
        for system, loads in content.get("photos", {}).items()
    }
    content["loads"] = {
        other: {
            system: {
                int(connections): [Load(**load) for load in loads]
                for connections, loads in by_connections.items()
            }
            for system, by_connections in by_system.items()
        }
        for other, by_system in content["loads"].items()
    }
    return Results(**content)


def write(results: Results, folder: Path) -> None:
    """Write results.json and results.png into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON_FILE).write_text(json.dumps(asdict(results), indent=1) + "\n")
    mpl.use("agg")
    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    for number, system in enumerate((*OURS, *results.loads)):
        points = [
            (results.median(system, count, "p99_ms"), results.median(system, count, "rate"))
            for count in results.connections
        ]
        ours = system in OURS
        line = axes.plot(
            *zip(*points, strict=True),
            marker="os^"[number % 3],
            linewidth=2.5 if ours else 1,
            label=system,
        )[0]
        for (x, y), connections in zip(points, results.connections, strict=True):
            axes.annotate(
                str(connections),
                (x, y),
                textcoords="offset points",
                xytext=(5, 4),
                fontsize=8,
                color=line.get_color(),
            )
    axes.set(xscale="log", yscale="log", xlabel="p99, ms", ylabel="requests/s")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(LogLocator(subs=(2, 5)))
        axis.set_major_formatter("{x:,g}")
        axis.set_minor_formatter("{x:,g}")
    axes.set_title(
        "Up and to the left is better; 1, 16 and 64 connections\n"
        f"{results.machine}, {results.date}",
        fontsize=10,
    )
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize=8)
    figure.savefig(folder / PICTURE_FILE, dpi=110)
    plt.close(figure)
