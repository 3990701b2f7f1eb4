"""`python -m service` that notes every pause of the garbage collector in all its processes."""

import gc
import os
import sys
import time
from pathlib import Path

from service.__main__ import main
from tests.bench.systems import ENVIRONMENTS, vitrine

PAUSES_FILE = ENVIRONMENTS / "pauses"


def command(port: int, workers: int) -> list[str]:
    """What starts it."""
    return [sys.executable, "-m", __name__, *vitrine(port, workers)[3:]]


def note_pauses(path: Path) -> None:
    """Append one line of seconds for every collection, in this process and those it forks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    begun = 0.0

    def note(phase: str, _info: dict[str, int]) -> None:
        nonlocal begun
        if phase == "start":
            begun = time.perf_counter()
        else:
            os.write(file, f"{time.perf_counter() - begun:.6f}\n".encode())

    gc.callbacks.append(note)


def pauses_s() -> list[float]:
    """What the last watched server has noted up to now."""
    return [float(line) for line in PAUSES_FILE.read_text().split()]


if __name__ == "__main__":
    note_pauses(PAUSES_FILE)
    main()
