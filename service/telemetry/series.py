"""Series that the processes of a server share: one mapped file per process, totals over all files.

A file holds the length of its header (8 bytes, little-endian), its header (JSON: the table of its
series) and its numbers (doubles). Its process alone writes it, and holds a lock on it until the
process ends, however it ends. So every reader sees which files belong to processes that have ended:
their counters still count, their gauges do not. Whoever opens a new file folds those into one.

A fold replaces the one file in a single step, and the new content names the files that are in it.
If the folding process dies before that, nothing has happened; if it dies before it has deleted the
folded files, readers skip them and the next fold deletes them. So nothing is lost or counted twice.
"""

import contextlib
import fcntl
import json
import mmap
import os
import secrets
import sys
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

Labels: TypeAlias = tuple[str, ...]
Values: TypeAlias = "memoryview[float]"
Doubles: TypeAlias = npt.NDArray[np.float64]
Totals: TypeAlias = dict[str, dict[Labels, Doubles]]
"""A row of numbers by name and labels, of the series that are shown."""

_DOUBLE_BYTES = 8
_ENDED = "ended"
_LOCK = "lock"
_SUFFIX = ".series"


@dataclass(frozen=True)
class Table:
    """Series of one name: a row of `width` doubles for each of `labels`, in this order."""

    name: str
    labels: tuple[Labels, ...]
    width: int = 1
    is_gauge: bool = False
    show_zero: bool = True
    """Whether rows of zeros are shown; those of improbable labels are not."""

    @property
    def size(self) -> int:
        """Doubles of all rows."""
        return self.width * len(self.labels)


def open_values(folder: Path | None, tables: Sequence[Table]) -> Values:
    """New numbers of this process, all zero; a folder of None keeps them to this process.

    They count as those of a living process for as long as the result is referenced.
    """
    zeros = bytes(_DOUBLE_BYTES * sum(table.size for table in tables))
    if folder is None:
        return memoryview(bytearray(zeros)).cast("d")
    (folder / _ENDED).touch()
    _fold(folder)
    header = _header(tables)
    unfinished = folder / f"{secrets.token_hex(16)}.new"
    with unfinished.open("x+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the mapping keeps it: it duplicates the file descriptor
        # Zeros are written: where the disk is full, a page that exists only as a longer file size
        # would kill the process when it is first touched.
        file.write(header + zeros)
        file.flush()
        mapped = memoryview(mmap.mmap(file.fileno(), 0))
    unfinished.rename(unfinished.with_suffix(_SUFFIX))  # nobody reads a file that is half written
    return mapped[len(header) :].cast("d")


def read_totals(folder: Path, names: Container[str]) -> Totals:
    """The sums of the series of these names over all processes that share the folder."""

    def is_wanted(table: Table) -> bool:
        return table.name in names

    def is_wanted_counter(table: Table) -> bool:
        return is_wanted(table) and not table.is_gauge

    while True:
        totals: Totals = {}
        with (folder / _ENDED).open("rb") as ended:
            folded = _add_file(totals, ended, is_wanted_counter)
            for path in _files(folder):
                # One that is missing by now has been folded; the comparison below finds that.
                with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                    if path.name not in folded:
                        wanted = is_wanted_counter if _has_ended(file) else is_wanted
                        _add_file(totals, file, wanted)
            if os.path.samestat(os.fstat(ended.fileno()), (folder / _ENDED).stat()):
                return totals


def slots(tables: Iterable[Table]) -> dict[str, dict[Labels, int]]:
    """Where the row of every series begins, by name and labels."""
    found: dict[str, dict[Labels, int]] = {}
    slot = 0
    for table in tables:
        by_labels = found.setdefault(table.name, {})
        for labels in table.labels:
            by_labels[labels] = slot
            slot += table.width
    return found


def add_rows(
    totals: Totals, tables: Iterable[Table], values: Doubles, is_wanted: Callable[[Table], bool]
) -> None:
    """Add the numbers of those tables that are wanted, as far as they are shown."""
    start = 0
    for table in tables:
        rows = values[start : start + table.size].reshape(-1, table.width)
        start += table.size
        if not is_wanted(table):
            continue
        found = totals.setdefault(table.name, {})
        shown = range(len(rows)) if table.show_zero else np.flatnonzero(rows.any(axis=1)).tolist()
        for index in shown:
            labels = table.labels[index]
            found[labels] = found[labels] + rows[index] if labels in found else rows[index]


def _fold(folder: Path) -> None:
    """Move the counters of processes that ended into one file; drop their gauges.

    Does nothing where another process is doing it: nobody waits for one that may hang.
    """
    with (folder / _LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        totals: Totals = {}
        with (folder / _ENDED).open("rb") as ended:
            folded = _add_file(totals, ended, _is_counter)
        done = []
        for path in _files(folder):
            with path.open("rb") as file:
                if path.name not in folded:
                    if not _has_ended(file):
                        continue
                    _add_file(totals, file, _is_counter)
            done.append(path)
        if done:
            unfinished = folder / f"{_ENDED}.new"
            unfinished.write_bytes(_ended_content(totals, [path.name for path in done]))
            unfinished.rename(folder / _ENDED)
            for path in done:
                path.unlink()


def _ended_content(totals: Totals, folded: Sequence[str]) -> bytes:
    """All rows that are not zero, and the names of the files that were the last to be folded."""
    tables = []
    rows: list[Doubles] = []
    for name, by_labels in totals.items():
        counted = {labels: row for labels, row in by_labels.items() if row.any()}
        if counted:
            rows += counted.values()
            tables.append(Table(name, tuple(counted), width=len(rows[-1])))
    return _header(tables, folded) + b"".join(row.tobytes() for row in rows)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{_SUFFIX}"))


def _has_ended(file: BinaryIO) -> bool:
    """Whether the process of a file no longer holds its lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_counter(table: Table) -> bool:
    return not table.is_gauge


def _add_file(totals: Totals, file: BinaryIO, is_wanted: Callable[[Table], bool]) -> frozenset[str]:
    """Add the numbers of a file; returns the names of the files that were folded into it."""
    content = file.read()
    start = _DOUBLE_BYTES + int.from_bytes(content[:_DOUBLE_BYTES], "little")
    folded, tables = _parsed(content[_DOUBLE_BYTES:start])
    add_rows(totals, tables, np.frombuffer(content[start:], dtype=np.float64), is_wanted)
    return folded


def _header(tables: Iterable[Table], folded: Sequence[str] = ()) -> bytes:
    """The beginning of a file; its length is a multiple of a double's."""
    text = json.dumps([folded, [list(vars(table).values()) for table in tables]]).encode()
    text += b" " * (-len(text) % _DOUBLE_BYTES)
    return len(text).to_bytes(_DOUBLE_BYTES, "little") + text


@lru_cache(maxsize=8)  # the workers of a server begin with the same
def _parsed(header: bytes) -> tuple[frozenset[str], tuple[Table, ...]]:
    """The names of the files that were folded into a file, and its tables."""
    folded, tables = json.loads(header) if header else ((), ())
    return frozenset(folded), tuple(
        Table(name, tuple(tuple(map(sys.intern, row)) for row in labels), *rest)
        for name, labels, *rest in tables
    )
