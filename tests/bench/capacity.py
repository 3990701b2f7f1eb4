"""What a pod of two CPUs serves of every model, and how many pods, nodes and USD a load takes.

`python -m tests.bench.capacity` measures, in five minutes; `--out tests/bench/capacity.json` keeps
the figures. `--write` measures nothing and puts the kept ones into the documents.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from tests.bench.closed_loop import require_wrk
from tests.bench.documents import fill, markdown
from tests.bench.pod import (
    CONNECTIONS,
    JSON_FILE,
    POD_CPUS,
    SLOW_CONNECTIONS,
    SLOW_S,
    Measured,
    measure_pod,
    read,
)
from tests.bench.sizing import MIXES, RATES, UTILISATION, pods, size
from tests.server import CHECKOUT

DOCUMENTS = {
    CHECKOUT / "deploy" / "CAPACITY.md": ("measured", "sizes"),
    CHECKOUT / "k8s" / "README.md": ("measured",),
}


def measured_table(measured: Measured) -> str:
    """Every model and payload, with the pods for 1,000 images/s."""
    rows = [
        ["model", "payload", "images/s a pod", "CPU ms an image", "p99 ms", "pods for 1,000/s"],
        *(
            [
                figure.model,
                f"{figure.payload}, {figure.request_bytes:,} bytes",
                _three_digits(figure.images_per_s),
                _three_digits(figure.cpu_ms),
                _three_digits(figure.p99_ms),
                f"{pods(1000, figure.images_per_s):,}",
            ]
            for figure in measured.figures
        ),
    ]
    head = (
        f"{measured.date}, {POD_CPUS} CPUs of {measured.machine}, which the load generator shares; "
        f"{CONNECTIONS} connections ({SLOW_CONNECTIONS} where an image alone takes {SLOW_S} s), "
        f"medians of {measured.rounds} rounds; pods at {UTILISATION:.0%} of their CPUs; "
        f"{measured.series:,} Prometheus series a pod."
    )
    return f"{head}\n\n{markdown(rows)}"


def sizes_table(measured: Measured) -> str:
    """Every mix at every rate."""
    head = (
        "mix, images/s, pods, nodes, clusters, USD an hour, USD a million images, Gbit/s in, "
        "Gbit/s out, rollout one by one in h, conntrack a node, Prometheus series"
    )
    rows = [head.split(", ")]
    for name, mix in MIXES.items():
        for rate in RATES:
            needs = size(measured, mix, rate)
            values = (rate, *asdict(needs).values())
            rows.append([name, *(_three_digits(value) for value in values)])
    return markdown(rows)


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def write_documents(measured: Measured) -> None:
    """Put the figures into every document."""
    tables = {"measured": measured_table(measured), "sizes": sizes_table(measured)}
    for document, names in DOCUMENTS.items():
        for name in names:
            fill(document, name, tables[name])


def main() -> None:
    """Measure and print, or put what was measured into the documents."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.capacity", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--seconds", type=int, default=4, help="of each load (%(default)s)")
    parser.add_argument("--models", nargs="*", default=[], help="(all)")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    parser.add_argument("--write", action="store_true", help=f"{JSON_FILE.name} into the documents")
    arguments = parser.parse_args()
    if arguments.write:
        write_documents(read())
        return
    require_wrk()
    served = sorted(path.name for path in (CHECKOUT / "models").iterdir())
    measured = measure_pod(arguments.models or served, arguments.rounds, arguments.seconds)
    if arguments.out:
        arguments.out.write_text(json.dumps(asdict(measured), indent=1) + "\n")
    print(f"{measured_table(measured)}\n\n{sizes_table(measured)}")


if __name__ == "__main__":
    main()
