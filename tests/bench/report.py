"""What was measured as tables, in the documents that show them.

`python -m tests.bench.report` measures nothing and writes what results.json has once more.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.closed_loop import Load
from tests.bench.documents import fill, markdown
from tests.bench.picture import draw
from tests.bench.results import Pair, Results, figure, pooled, ratio, read
from tests.server import CHECKOUT

FOLDER = Path(__file__).parent
README = FOLDER / "README.md"
# The summary may stand in the front page, too.
DOCUMENTS = (README, CHECKOUT / "README.md")
MANY = 16
ENOUGH_ROUNDS = 3
# Other servers and the number of connections that stand for each.
SUMMARY = {
    "BentoML + LiteRT, batched": "the same 8-bit file; small PNGs in forms",
    "FastAPI + LiteRT, raw body": "the same 8-bit file; small PNGs",
    "LitServe + LiteRT, raw body": "the same 8-bit file; small PNGs",
    "Triton (PyTriton) + LiteRT, tensor": "the same 8-bit file; decoded tensors for Triton",
    "BentoML + Keras, batched, photo": "VGG16; Vitrine in 8 bits, Keras in float32",
}


def tables(results: Results) -> dict[str, str]:
    """Every table as Markdown, by the name of its markers."""
    return {
        "bench summary": _summary(results),
        "bench others": _others(results),
        "bench layers": _layers(results),
        "bench photos": _photos(results),
        "bench open loop": _open_loop(results),
        "bench process": _process(results),
        "bench hand-over": _handover(results),
    }


def write_documents(results: Results, documents: Sequence[Path] = DOCUMENTS) -> None:
    """Put each table into every document that has its markers; all of them into README here."""
    for document in documents:
        text = document.read_text()
        for name, table in tables(results).items():
            if document == README or f"<!-- {name}: begin -->" in text:
                fill(document, name, table)


def _summary(results: Results) -> str:
    titles = ("what is served", "connections", "Vitrine's requests/s", "its p99")
    rows = [["compared with", *titles]]
    for name, what in SUMMARY.items():
        pair = (results.others | results.photos).get(name)
        if pair is None:
            continue
        connections = max(count for count in pair[name] if count <= MANY)
        compared = [_times(ratio(pair, name, connections, of)) for of in ("rate", "p99_ms")]
        rows.append([name, what, str(connections), *compared])
    head = (
        f"{results.date}, {results.machine}, "
        f"{results.rounds} round{'s' * (results.rounds > 1)} of {results.seconds} s"
    )
    quick = ". A quick look: too short for the figures to hold" * (results.rounds < ENOUGH_ROUNDS)
    return f"{head}{quick}.\n\n{markdown(rows)}"


def _times(value: float) -> str:
    return f"{value:.1f}x" if value >= 10 else f"{value:.2f}x"


def _others(results: Results) -> str:
    return _side_by_side(
        results, results.others, {"rate": ",.0f", "p50_ms": ".2f", "p99_ms": ".2f"}
    )


def _photos(results: Results) -> str:
    sizes = [f"{size}: {ms:.1f} ms" for size, ms in results.photo_ms.items()]
    at_one = f"Vitrine's median at one connection, {', '.join(sizes)}."
    formats = {"rate": ".1f", "p50_ms": ".0f", "p99_ms": ".0f"}
    return f"{_side_by_side(results, results.photos, formats)}\n\n{at_one}"


def _side_by_side(results: Results, pairs: Mapping[str, Pair], formats: Mapping[str, str]) -> str:
    """Each other server below what of ours it was compared with, which stands there once."""
    titles = ("workers", "requests/s", "p50, ms", "p99, ms", "Vitrine's requests/s", "its p99")
    rows: dict[str, list[str]] = {}
    counts: list[int] = []
    loads = pooled(pairs)
    for other, pair in pairs.items():
        counts = list(pair[other])
        for system in sorted(pair, key=lambda name: name == other):
            if system in rows:
                continue
            cells = [
                " / ".join(format(figure(loads, system, count, name), spec) for count in counts)
                for name, spec in formats.items()
            ]
            compared = [
                " / ".join(_times(ratio(pair, other, count, name)) for count in counts)
                if system == other
                else ""
                for name in ("rate", "p99_ms")
            ]
            rows[system] = [system, str(results.workers.get(system, "")), *cells, *compared]
    at = ", ".join(str(count) for count in counts)
    return "\n\n".join(
        [markdown([[f"{at} connections", *titles], *rows.values()]), *_notes(results, pairs)]
    )


def _layers(results: Results) -> str:
    pairs = results.layers
    loads = pooled(pairs)
    tables = []
    for title, name, spec in (
        ("requests/s", "rate", ",.0f"),
        ("p99, ms", "p99_ms", ".2f"),
        ("CPU ms a request", "cpu_ms", ".3f"),
    ):
        rows: dict[str, list[str]] = {}
        counts: list[int] = []
        for other, pair in pairs.items():
            counts = list(pair[other])
            for system in sorted(pair, key=lambda name: name == other):
                cells = [format(figure(loads, system, count, name), spec) for count in counts]
                if system == other:
                    times = [_times(ratio(pair, other, count, name)) for count in counts]
                    cells = [f"{cell} ({of})" for cell, of in zip(cells, times, strict=True)]
                rows.setdefault(system, [system, *cells])
        head = [f"{count} connection{'s' * (count > 1)}" for count in counts]
        tables.append(markdown([[title, *head], *rows.values()]))
    return "\n\n".join([*tables, *_notes(results, pairs)])


def _notes(results: Results, pairs: Mapping[str, Pair]) -> list[str]:
    """What was skipped, and whose requests failed."""
    notes = []
    if pairs is results.others:
        notes = [f"{system}: skipped, {reason}." for system, reason in results.skipped.items()]
    for other, pair in pairs.items():
        loads: list[Load] = [load for of_count in pair[other].values() for load in of_count]
        errors = sum(load.errors for load in loads)
        if errors:
            share = errors / sum(load.requests for load in loads)
            notes.append(f"{other}: {share:.1%} of its requests failed and do not count.")
    return notes


def _open_loop(results: Results) -> str:
    head = "asked, asked/s, answered/s, of capacity, p50, p99, 503, p99 of 503, unsent"
    rows = [head.split(", ")]
    for rate in results.rates:
        before, _ = results.capacity[rate.payload]
        latencies = (rate.p50_ms, rate.p99_ms, rate.refused_p99_ms)
        p50, p99, refused_p99 = ("" if ms is None else f"{ms:.1f} ms" for ms in latencies)
        rows.append(
            [
                f"{rate.payload}, {rate.share:.0%} of capacity",
                f"{rate.asked:,.0f}",
                f"{rate.goodput:,.0f}",
                f"{rate.goodput / before:.0%}",
                p50,
                p99,
                f"{rate.refused:,}",
                refused_p99,
                f"{rate.unsent:,}",
            ]
        )
    capacities = [
        f"{payload}: {before:,.0f}/s before, {after:,.0f}/s after"
        for payload, (before, after) in results.capacity.items()
    ]
    return (
        f"{markdown(rows)}\n\nCapacity, measured with the same generator: {'; '.join(capacities)}."
    )


def _process(results: Results) -> str:
    starts = ", ".join(f"{seconds:.2f}" for seconds in sorted(results.start_s))
    rows = [
        ["", ""],
        ["start to ready, s", starts],
        *(
            [f"memory with {workers} worker{'s' * (workers > 1)}, MB", f"{mb:.0f}"]
            for workers, mb in results.memory_mb.items()
        ),
        *([name, f"{value:,.4g}"] for name, value in results.drift.items()),
    ]
    return markdown(rows)


def _handover(results: Results) -> str:
    rows = [["a turn of the loop, µs", "10 % below, µs", "half below, µs", "90 % below, µs"]]
    for turn_us, values in results.handover_us.items():
        rows.append([str(turn_us), *(f"{value:.0f}" for value in values)])
    return markdown(rows)


def main() -> None:
    """Write the tables and the picture again."""
    results = read(FOLDER)
    write_documents(results)
    draw(results, FOLDER)


if __name__ == "__main__":
    main()
