"""Send TensorFlow's log messages to a file; the terminal shows the recipe's own output."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from training.errors import TrainingError

EXPECTED = (TrainingError, OSError, KeyboardInterrupt)  # explained by their message alone


@contextlib.contextmanager
def native_messages_to(path: Path) -> Iterator[None]:
    """Write what C++ libraries print to stderr into a file; Python's own stderr stays as it is.

    TensorFlow's libraries log before TF_CPP_MIN_LOG_LEVEL or absl's settings apply, so that only
    the file descriptor can be redirected. The file is removed unless the block ends with a bug.
    """
    _hide_python_loggers()
    sys.stderr.flush()
    terminal, python_stderr = os.dup(2), sys.stderr
    if _uses_descriptor_2(python_stderr):
        sys.stderr = os.fdopen(
            os.dup(2), "w", 1, encoding=python_stderr.encoding, errors=python_stderr.errors
        )
    with path.open("wb") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    except EXPECTED:
        path.unlink()
        raise
    except BaseException:
        print(f"TensorFlow's own messages are in {path}", file=sys.stderr)
        raise
    else:
        path.unlink()
    finally:
        if sys.stderr is not python_stderr:
            sys.stderr.close()
            sys.stderr = python_stderr
        os.dup2(terminal, 2)
        os.close(terminal)


def _hide_python_loggers() -> None:
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with contextlib.suppress(ImportError):
        from absl import logging as absl_logging

        absl_logging.set_verbosity(absl_logging.ERROR)


def _uses_descriptor_2(stream: object) -> bool:
    with contextlib.suppress(OSError, AttributeError):  # pytest's capture has no descriptor
        return bool(stream.fileno() == 2)
    return False
