"""Processes that try inputs, and what they find; one that crashes or hangs is replaced."""

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from multiprocessing.connection import Connection, wait
from pathlib import Path

from tests.fuzz.worker import Finding, Input, Progress, Work, run

HANG_S = 60.0
"""Without a word, however busy the machine is."""
SAVED_OF_A_KIND = 3
_SPAWN = multiprocessing.get_context("spawn")


class Process:
    """One process and what it is to do."""

    def __init__(self, work: Work, hang_s: float) -> None:
        self._work = work
        self._hang_s = hang_s
        self._next_index = work.first
        self.results: Connection
        self._start()

    def _start(self) -> None:
        self.results, theirs = _SPAWN.Pipe(duplex=False)
        work = replace(self._work, first=self._next_index)
        self._process = _SPAWN.Process(target=run, args=(work, theirs))
        self._process.start()
        theirs.close()
        self._heard: float | None = None

    @property
    def is_done(self) -> bool:
        """Whether all its inputs are tried."""
        return self._next_index >= self._work.end

    @property
    def tried(self) -> int:
        """The number of inputs that it has tried."""
        return (self._next_index - self._work.first) // self._work.step

    def receive(self) -> Finding | None:
        """What it has found, if it tells of something; one that has ended early is replaced."""
        self._heard = time.monotonic()
        try:
            progress: Progress = self.results.recv()
        except EOFError:
            self._process.join()
            if self._process.exitcode == 0:  # it has used too much memory, and said so
                self._start_again()
                return None
            return self._replace("crash", f"exit code {self._process.exitcode}")
        self._next_index = progress.next_index
        return progress.finding

    def check(self) -> Finding | None:
        """The input at which it hangs, if it does."""
        if self.is_done or self._heard is None or time.monotonic() - self._heard < self._hang_s:
            return None
        self._process.kill()
        self._process.join()
        return self._replace("hang", f"nothing for {self._hang_s:g} s")

    def _replace(self, kind: str, text: str) -> Finding:
        stderr = self._work.folder / f"stderr-{self._process.pid}"
        text = f"{text}\n{stderr.read_text(errors='replace')[-4000:]}"
        current = self._work.folder / f"input-{self._process.pid}"
        if not current.exists():
            raise RuntimeError(f"ended while it tried the seeds: {text}")
        given = Input.load(current)
        self._next_index = given.index + self._work.step
        self._start_again()
        return Finding(kind, text, given)

    def _start_again(self) -> None:
        self.close()
        if not self.is_done:
            self._start()

    def close(self) -> None:
        """End it."""
        self.results.close()
        self._process.kill()
        self._process.join()
        for name in ("input", "stderr"):
            (self._work.folder / f"{name}-{self._process.pid}").unlink(missing_ok=True)


def fuzz(
    work: Work,
    processes: int,
    seconds: float,
    on_tried: Callable[[int], object] = lambda _: None,
    hang_s: float = HANG_S,
) -> tuple[int, Counter[str], list[Path]]:
    """Share out the work; stop at its end or after that many seconds.

    Returns the number of inputs tried, the findings by what they are, and their files.
    """
    deadline = time.monotonic() + seconds
    running = [
        Process(replace(work, first=work.first + number, step=processes), hang_s)
        for number in range(processes)
    ]
    tried, kinds, files = 0, Counter[str](), list[Path]()
    try:
        while time.monotonic() < deadline and not all(each.is_done for each in running):
            by_pipe = {each.results: each for each in running if not each.is_done}
            ready = [
                by_pipe[pipe] for pipe in wait([*by_pipe], 1.0) if isinstance(pipe, Connection)
            ]
            told = [each.receive() for each in ready] + [each.check() for each in running]
            for finding in filter(None, told):
                kind = _kind(finding)
                kinds[kind] += 1
                if kinds[kind] <= SAVED_OF_A_KIND:
                    files.append(_save(finding, work.folder))
            before, tried = tried, sum(each.tried for each in running)
            on_tried(tried - before)
    finally:
        for each in running:
            each.close()
    return tried, kinds, files


def _kind(finding: Finding) -> str:
    last = finding.text.strip().splitlines()[-1] if finding.kind in ("error", "log") else ""
    return f"{finding.kind} in {finding.input.target}: {last[:100]}".removesuffix(": ")


def _save(finding: Finding, folder: Path) -> Path:
    """Write the input, and what it does beside it."""
    name = f"{finding.kind}-{finding.input.target}-{sha256(finding.input.data).hexdigest()[:12]}"
    path = folder / name
    finding.input.save(path)
    path.with_suffix(".txt").write_text(finding.text)
    return path
