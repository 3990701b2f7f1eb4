"""A soak as one picture: requests, p99, memory and file descriptors over time."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from tests.soak.record import Record

MIB = 2**20


def draw(record: Record, file: Path) -> None:
    """Write a PNG of four panels; grey lines are killed workers."""
    mpl.use("agg")
    canvas, panels = plt.subplots(4, 1, figsize=(9, 10), sharex=True, layout="constrained")
    requests, p99, memory, descriptors = panels
    at_s = [each.at_s for each in record.traffic]
    requests.plot(at_s, [each.requests_per_s for each in record.traffic], label="requests/s")
    requests.plot(at_s, [each.failures_per_s for each in record.traffic], label="failures/s")
    requests.legend(fontsize=8)
    p99.plot(at_s, [each.p99_ms for each in record.traffic])
    at_s = [each.at_s for each in record.usage]
    memory.plot(at_s, [each.memory_bytes / MIB for each in record.usage])
    descriptors.plot(at_s, [each.descriptors for each in record.usage])
    named = zip(panels, ("1/s", "p99, ms", "memory, MiB", "file descriptors"), strict=True)
    for panel, name in named:
        panel.set_ylabel(name)
        panel.set_ylim(bottom=0)
        panel.grid(visible=True, alpha=0.2)
        for killed_s in record.killed_at_s:
            panel.axvline(killed_s, color="grey", linewidth=0.5)
    panels[-1].set_xlabel("s")
    causes = ", ".join(f"{count} x {cause}" for cause, count in record.failures.items())
    title = f"{record.requests} requests, {len(record.killed_at_s)} workers killed; {causes}"
    requests.set_title(title, fontsize=9, wrap=True)
    canvas.savefig(file, dpi=110)
    plt.close(canvas)
