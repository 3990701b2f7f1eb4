"""One process at a time for a folder of checkpoints."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import CHECKOUT
from training.errors import TrainingError
from training.lock import locked

HOLDER = """
import sys, time
from pathlib import Path
from training.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def start_holder(path: Path) -> "subprocess.Popen[str]":
    """A process that holds the lock for a minute."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_second_process_is_told_which_one_runs(tmp_path: Path) -> None:
    with start_holder(tmp_path / "lock") as process:
        message = rf"another run with the same arguments is in progress \(process {process.pid}\)"
        with pytest.raises(TrainingError, match=message), locked(tmp_path / "lock"):
            pytest.fail("two hold the lock")
        process.kill()


def test_kernel_releases_the_lock_of_a_process_that_was_killed(tmp_path: Path) -> None:
    with start_holder(tmp_path / "lock") as process:
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / "lock").exists()
    with locked(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_lock_leaves_no_file_and_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path / "lock"):
            assert (tmp_path / "lock").exists()
        assert not list(tmp_path.iterdir())


def test_lock_is_released_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), locked(tmp_path / "lock"):
        raise ValueError("broken")
    with locked(tmp_path / "lock"):
        pass


def test_second_attempt_does_not_release_the_lock(tmp_path: Path) -> None:
    with locked(tmp_path / "lock"):
        for _ in range(2):
            with pytest.raises(TrainingError), locked(tmp_path / "lock"):
                pass
