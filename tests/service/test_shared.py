"""Numbers that processes share."""

import os
import resource
from pathlib import Path

import pytest

from service.shared import keyed_doubles, shared_doubles

ONE, TWO, THREE = (bytes([number]) * 32 for number in (1, 2, 3))


def test_what_one_process_writes_the_others_read(tmp_path: Path) -> None:
    ours = shared_doubles(tmp_path, "numbers", 3)
    child = os.fork()
    if child == 0:
        shared_doubles(tmp_path, "numbers", 3)[1] = 2.5
        os._exit(0)
    os.waitpid(child, 0)
    assert list(ours) == [0.0, 2.5, 0.0]


def test_without_a_folder_the_numbers_are_one_process_s_own() -> None:
    ours, others = shared_doubles(None, "numbers", 1), shared_doubles(None, "numbers", 1)
    ours[0] = 1.0
    assert list(others) == [0.0]


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        shared_doubles(tmp_path / "missing", "numbers", 1)


def test_processes_that_name_keys_at_once_agree_on_their_doubles(tmp_path: Path) -> None:
    keys = [os.urandom(32) for _ in range(300)]
    children = []
    for turn in range(4):
        children.append(os.fork())
        if children[-1] == 0:
            for key, double in keyed_doubles(tmp_path / "keyed", keys[turn * 60 :]).items():
                double[0] = keys.index(key) + 1.0
            os._exit(0)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0, 0]
    found = keyed_doubles(tmp_path / "keyed", keys)
    assert [double[0] for double in found.values()] == [place + 1.0 for place in range(300)]
    assert (tmp_path / "keyed").stat().st_size == 300 * 40


def test_record_that_a_full_disk_has_cut_is_an_error_and_written_anew(tmp_path: Path) -> None:
    file = tmp_path / "keyed"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (79, before[1]))  # as a full disk, but another name
    try:
        with pytest.raises(OSError, match="File too large"):
            keyed_doubles(file, [ONE, TWO])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert file.stat().st_size == 79
    keyed_doubles(file, [ONE])[ONE][0] = 1.5
    found = keyed_doubles(file, [THREE, TWO, ONE])
    assert [found[key][0] for key in (ONE, TWO, THREE)] == [1.5, 0, 0]
    assert file.stat().st_size == 3 * 40
