"""The closed loop as one picture: requests/s over p99."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator

from tests.bench.results import Results, figure, pooled
from tests.bench.systems import FLOOR

PICTURE_FILE = "results.png"


def draw(results: Results, folder: Path) -> None:
    """Write results.png: all other servers, the floor, and Vitrine."""
    counts = sorted({c for pair in results.others.values() for of in pair.values() for c in of})
    pairs = results.others | {n: p for n, p in results.layers.items() if n == FLOOR.name}
    loads = pooled(pairs)
    mpl.use("agg")
    canvas, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    for number, system in enumerate(sorted(loads)):
        is_ours = system not in pairs
        points = [
            (figure(loads, system, count, "p99_ms"), figure(loads, system, count, "rate"))
            for count in counts
        ]
        line = axes.plot(
            *zip(*points, strict=True),
            marker="os^Dv<>"[number % 7],
            linewidth=2.5 if is_ours else 1,
            label=system,
        )[0]
        for connections, point in zip(counts, points, strict=True):
            axes.annotate(
                str(connections),
                point,
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
        "Up and to the left is better; the numbers are connections\n"
        f"{results.machine}, {results.date}",
        fontsize=10,
    )
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize=8)
    canvas.savefig(folder / PICTURE_FILE, dpi=110)
    plt.close(canvas)
