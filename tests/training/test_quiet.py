"""C++ libraries write to file descriptor 2; Python's stderr stays on the terminal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import CHECKOUT
from training.errors import TrainingError
from training.quiet import native_messages_to

PROGRAM = """
import os, sys
from pathlib import Path
from training.errors import TrainingError
from training.quiet import native_messages_to

print("before", file=sys.stderr)
with native_messages_to(Path(sys.argv[1])):
    os.write(2, b"I0000 noise\\n")
    print("progress", file=sys.stderr)
    {ending}
os.write(2, b"after\\n")
print("last", file=sys.stderr)
"""


IMPORT = "import tensorflow as tf; tf.function(lambda: tf.ones(2))(); tf.get_logger().warning('w')"


def run(log: Path, ending: str = "pass") -> "subprocess.CompletedProcess[str]":
    program = PROGRAM.format(ending=ending)
    command = [sys.executable, "-c", program, str(log)]
    return subprocess.run(command, check=False, cwd=CHECKOUT, capture_output=True, text=True)


def test_native_messages_are_hidden_and_pythons_are_not(tmp_path: Path) -> None:
    assert run(tmp_path / "log").stderr == "before\nprogress\nafter\nlast\n"
    assert not (tmp_path / "log").exists()


def test_bug_leaves_the_messages_and_says_where(tmp_path: Path) -> None:
    ran = run(tmp_path / "log", 'raise ValueError("bug")')
    assert f"TensorFlow's own messages are in {tmp_path / 'log'}\n" in ran.stderr
    assert "ValueError: bug" in ran.stderr
    assert (tmp_path / "log").read_text() == "I0000 noise\n"


def test_abort_leaves_the_messages(tmp_path: Path) -> None:
    ran = run(tmp_path / "log", "os.abort()")
    assert ran.returncode < 0
    assert (tmp_path / "log").read_text() == "I0000 noise\n"


@pytest.mark.parametrize("error", [TrainingError, FileExistsError, KeyboardInterrupt])
def test_error_that_explains_itself_leaves_none(
    error: type[BaseException], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def explain() -> None:
        with native_messages_to(tmp_path / "log"):
            os.write(2, b"I0000 noise\n")
            raise error("explained")

    with pytest.raises(error):
        explain()
    assert capfd.readouterr().err == ""
    assert not (tmp_path / "log").exists()


def test_tensorflow_is_silent(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="asks TensorFlow itself")
    assert run(tmp_path / "log", IMPORT).stderr == "before\nprogress\nafter\nlast\n"
