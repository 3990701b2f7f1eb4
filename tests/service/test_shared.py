"""Numbers that processes share."""

import fcntl
import os
import resource
import struct
import time
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


def test_process_waits_while_another_adds_its_keys(tmp_path: Path) -> None:
    file = tmp_path / "keyed"
    with file.open("wb") as records:
        fcntl.flock(records, fcntl.LOCK_EX)
        child = os.fork()
        if child == 0:
            keyed_doubles(file, [TWO])[TWO][0] = 2.5
            os._exit(0)
        time.sleep(0.1)  # in which it would have written where this process does
        records.write(ONE + struct.pack("d", 1.5))
        records.flush()
        fcntl.flock(records, fcntl.LOCK_UN)
    assert os.waitpid(child, 0)[1] == 0
    found = keyed_doubles(file, [TWO, ONE])
    assert [found[key][0] for key in (ONE, TWO)] == [1.5, 2.5]


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
