"""Numbers that processes share."""

import os
from pathlib import Path

import pytest

from service.shared import shared_doubles


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
