"""Files that processes share: what counts while they live, after they end, and during a fold."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from service.telemetry import series
from service.telemetry.series import Table, Values, open_values, read_totals
from tests.server import CHECKOUT

COUNTED = Table("counted", (("a",), ("b",)))
WAITING = Table("waiting", ((),), is_gauge=True)
RARE = Table("rare", (("x",), ("y",)), width=2, show_zero=False)
TABLES = (COUNTED, WAITING, RARE)
NAMES = ("counted", "waiting", "rare")
Rows = dict[str, dict[tuple[str, ...], list[float]]]


def totals(folder: Path) -> Rows:
    return {
        name: {labels: row.tolist() for labels, row in rows.items()}
        for name, rows in read_totals(folder, NAMES).items()
    }


def opened(folder: Path, *numbers: float) -> Values:
    """A process's numbers: a, b, waiting, x (two), y (two); it lives while they are referenced."""
    values = open_values(folder, TABLES)
    for slot, number in enumerate(numbers):
        values[slot] = number
    return values


def test_numbers_of_all_processes_are_added_up(tmp_path: Path) -> None:
    one, other = opened(tmp_path, 1, 2, 3, 0, 0, 4, 5), opened(tmp_path, 10, 20, 30, 0, 0, 40, 50)
    assert len(one) == len(other)
    assert totals(tmp_path) == {
        "counted": {("a",): [11], ("b",): [22]},
        "waiting": {(): [33]},
        "rare": {("y",): [44, 55]},
    }


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    values = opened(tmp_path, 1)
    assert read_totals(tmp_path, ("waiting",)).keys() == {"waiting"}
    assert values[0] == 1


def test_processes_with_other_series_are_added_up_by_series(tmp_path: Path) -> None:
    old = opened(tmp_path, 1, 2)
    new = open_values(tmp_path, (WAITING, Table("counted", (("c",), ("b",)))))
    new[0], new[1], new[2] = 5, 10, 20
    assert totals(tmp_path)["counted"] == {("a",): [1], ("b",): [22], ("c",): [10]}
    assert totals(tmp_path)["waiting"] == {(): [5]}
    del old
    later = opened(tmp_path)
    assert totals(tmp_path)["counted"] == {("a",): [1], ("b",): [22], ("c",): [10]}
    assert len(later) == 7


def test_folder_of_none_is_shared_with_nobody() -> None:
    one, other = open_values(None, TABLES), open_values(None, TABLES)
    one[0] = 1
    assert other[0] == 0


def test_counters_of_a_process_that_ended_stay_and_its_gauges_do_not(tmp_path: Path) -> None:
    ended, living = opened(tmp_path, 1, 2, 3, 4, 5), opened(tmp_path, 10, 0, 30)
    del ended
    expected = {
        "counted": {("a",): [11], ("b",): [2]},
        "waiting": {(): [30]},
        "rare": {("x",): [4, 5]},
    }
    assert totals(tmp_path) == expected
    third = opened(tmp_path)  # now they are in another file
    assert totals(tmp_path) == expected
    assert len(living) == len(third)


def test_files_do_not_become_more_with_every_process_that_ends(tmp_path: Path) -> None:
    for _ in range(20):
        opened(tmp_path, 1)
    assert totals(tmp_path)["counted"]["a",] == [20]
    assert len(list(tmp_path.glob("*.series"))) == 1


def test_numbers_of_a_process_that_is_killed_are_kept(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path;"
        "from tests.service.telemetry.test_series import opened;"
        "values = opened(Path(sys.argv[1]), 7, 0, 9);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(command, cwd=CHECKOUT, check=False).returncode == -9
    assert totals(tmp_path)["counted"]["a",] == [7]
    living = opened(tmp_path, 1, 0, 2)
    assert totals(tmp_path)["counted"]["a",] == [8]
    assert totals(tmp_path)["waiting"][()] == [2]
    assert len(living) == 7


@pytest.mark.parametrize("step", ["write_bytes", "rename", "unlink"])
def test_fold_that_ends_halfway_loses_nothing_and_counts_nothing_twice(
    tmp_path: Path, step: str
) -> None:
    opened(tmp_path, 1, 2)
    opened(tmp_path, 10, 20)  # folds the first
    expected = {("a",): [11], ("b",): [22]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, step, _die)
        with pytest.raises(_EndedHereError):
            opened(tmp_path)
    assert totals(tmp_path)["counted"] == expected
    for _ in range(3):
        opened(tmp_path)
        assert totals(tmp_path)["counted"] == expected


class _EndedHereError(Exception):
    pass


def _die(*_: object) -> None:
    raise _EndedHereError


def test_fold_during_a_read_changes_no_total(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path, 1)
    listed = series._files
    living = []

    def fold_between(folder: Path) -> list[Path]:
        monkeypatch.setattr(series, "_files", listed)
        paths = listed(folder)
        living.append(opened(folder, 10))
        return paths

    monkeypatch.setattr(series, "_files", fold_between)
    assert totals(tmp_path)["counted"]["a",] == [11]


def test_process_that_hangs_in_a_fold_holds_up_nobody(tmp_path: Path) -> None:
    opened(tmp_path, 1)
    with (tmp_path / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        living = opened(tmp_path, 10)
        assert totals(tmp_path)["counted"]["a",] == [11]
    assert len(living) == 7


def test_file_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    living = opened(tmp_path, 1)
    (file,) = tmp_path.glob("*.series")
    (tmp_path / "0123.new").write_bytes(file.read_bytes()[:20])
    assert totals(tmp_path)["counted"]["a",] == [1]
    assert len(living) == 7
