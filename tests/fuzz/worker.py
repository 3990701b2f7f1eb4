"""One process that tries inputs; another process watches it, for it may crash or hang."""

import contextlib
import json
import os
import re
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import NamedTuple

from service.telemetry.log import configure_logging
from tests.fuzz.mutations import mutated
from tests.fuzz.target import Try
from tests.fuzz.targets import SERVED, TARGETS

MAX_CPU_S = 1.0
MAX_GROWTH_BYTES = 128_000_000
"""Beyond what the seeds take: twice what one request may hold of the targets' budget."""
REPORT_S = 0.5
_PEAK = re.compile(rb"^VmHWM:\s*(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Input:
    """An input, and where it comes from."""

    target: str
    data: bytes
    seed: int = -1
    index: int = -1

    def save(self, path: Path) -> None:
        """Write a file that `load` reads: a line of JSON, then the data."""
        path.write_bytes(self.packed())

    def packed(self) -> bytes:
        """The contents of that file."""
        head = {"target": self.target, "seed": self.seed, "index": self.index}
        return json.dumps(head).encode() + b"\n" + self.data

    @staticmethod
    def load(path: Path) -> "Input":
        """Read a saved input."""
        head, _, data = path.read_bytes().partition(b"\n")
        return Input(data=data, **json.loads(head))


@dataclass(frozen=True)
class Finding:
    """What an input does that must not be."""

    kind: str
    """`error`, `slow`, `memory`, `log`; the watcher adds `crash` and `hang`."""
    text: str
    input: Input


class Corpus:
    """The seeds of all targets, and the inputs that are made from them."""

    def __init__(self, targets: Sequence[str]) -> None:
        self.seeds = {name: TARGETS[name].seeds() for name in targets}
        shares = [TARGETS[name].share for name in targets]
        self._shares = shares if any(shares) else None

    def make(self, seed: int, index: int) -> Input:
        """The input of this number: the same for the same seed, seeds and targets."""
        random = Random(f"{seed}/{index}")
        (target,) = random.choices([*self.seeds], self._shares)
        known = self.seeds[target]
        return Input(target, mutated(random.choice(known), known, random), seed, index)


class Trier:
    """Tries inputs and finds what is broken."""

    def __init__(self, targets: Sequence[str], stderr: Path) -> None:
        """`stderr` is where file descriptor 2 leads: nothing may be written there."""
        self._stack = contextlib.ExitStack()
        self._tries: dict[str, Try] = {
            name: self._stack.enter_context(TARGETS[name].open()) for name in targets
        }
        self._stderr = stderr
        self._written = 0
        self._memory_limit = 0

    def warm(self, corpus: Corpus) -> None:
        """Try all seeds as they are; from then on memory must not grow much."""
        for target, seeds in corpus.seeds.items():
            for data in seeds if target in SERVED else ():
                self._tries[target](data)
        self._memory_limit = _peak_bytes() + MAX_GROWTH_BYTES
        self._written = self._stderr.stat().st_size

    def find(self, given: Input) -> Finding | None:
        """What is broken with this input, if anything is."""
        began = time.process_time()
        try:
            self._tries[given.target](given.data)
        except Exception:
            return Finding("error", traceback.format_exc(), given)
        cpu_s = time.process_time() - began
        if cpu_s > MAX_CPU_S:
            return Finding("slow", f"{cpu_s:.2f} s of CPU", given)
        if _peak_bytes() > self._memory_limit:
            return Finding("memory", f"{_peak_bytes() // 1_000_000} MB at most so far", given)
        if self._stderr.stat().st_size > self._written:
            text = self._stderr.read_text(errors="replace")[self._written :]
            self._written = self._stderr.stat().st_size
            return Finding("log", text[:2000], given)
        return None

    def close(self) -> None:
        """End what the targets have started."""
        self._stack.close()


def _peak_bytes() -> int:
    """The most memory so far; what getrusage says may be that of the process that started this."""
    found = _PEAK.search(Path("/proc/self/status").read_bytes())
    assert found is not None
    return int(found[1]) * 1024


@dataclass(frozen=True)
class Work:
    """What one process does: the inputs first, first + step, … below end."""

    targets: tuple[str, ...]
    seed: int
    first: int
    step: int
    end: int
    folder: Path
    """Gets `input-PID`, the input that is being tried, and `stderr-PID`."""


class Progress(NamedTuple):
    """What a process tells its watcher."""

    next_index: int
    finding: Finding | None


def run(work: Work, results: Connection) -> None:
    """In a process of its own: try all inputs, and tell of it at each finding and often."""
    stderr = work.folder / f"stderr-{os.getpid()}"
    with stderr.open("wb") as file:
        os.dup2(file.fileno(), 2)
    configure_logging("text")
    corpus, trier = Corpus(work.targets), Trier(work.targets, stderr)
    trier.warm(corpus)
    results.send(Progress(work.first, None))  # from now on it may hang
    reported = time.monotonic()
    with (work.folder / f"input-{os.getpid()}").open("wb", 0) as current:
        for index in range(work.first, work.end, work.step):
            given = corpus.make(work.seed, index)
            current.seek(0)
            current.truncate()
            current.write(given.packed())
            found = trier.find(given)
            following = index + work.step
            is_due = time.monotonic() - reported > REPORT_S or following >= work.end
            if found is not None or is_due:
                results.send(Progress(following, found))
                reported = time.monotonic()
            if found is not None and found.kind == "memory":
                break  # the peak never falls: a new process goes on
    trier.close()
