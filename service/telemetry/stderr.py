"""What C++ libraries and the interpreter write to file descriptor 2, turned into log records."""

import contextlib
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator

from service.telemetry.log import log_handler

MAX_READ_BYTES = 65536

_logger = logging.getLogger("stderr")
# "INFO: …" is how LiteRT begins a line, "I0000 00:00:…" is how TensorFlow and Abseil do.
_LEVEL = re.compile(r"(INFO|WARNING|ERROR|FATAL): |([IWEF])\d{4} ")
_LEVELS = {
    "I": logging.INFO,
    "W": logging.WARNING,
    "E": logging.ERROR,
    "F": logging.CRITICAL,
}


class StderrPipe:
    """A pipe that replaces a process's standard error; its reader logs each line."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._incomplete = b""

    def fileno(self) -> int:
        """The end to read from, for a selector."""
        return self._reader

    def replace_stderr(self) -> int:
        """Point file descriptor 2 of this process at the pipe; return a copy of the real one.

        Log lines still go to the real one.
        """
        real = os.dup(2)
        log_handler.real_stderr = open(  # noqa: SIM115
            real, "w", encoding=sys.stderr.encoding, errors="backslashreplace", closefd=False
        )
        os.dup2(self._writer, 2)
        return real

    def read(self, fields: dict[str, object] | None = None) -> bool:
        """Wait for lines and log them; return False once no process has the pipe open."""
        received = os.read(self._reader, MAX_READ_BYTES)
        lines = (self._incomplete + received).splitlines(keepends=True)
        ended = not received or len(self._incomplete) > MAX_READ_BYTES
        self._incomplete = b"" if ended or not lines or lines[-1].endswith(b"\n") else lines.pop()
        for line in lines:
            _log(line.decode(errors="replace").strip(), fields or {})
        return bool(received)

    def close_writer(self) -> None:
        """Close the end to write to, which only the process that is read from needs."""
        os.close(self._writer)

    def close(self) -> None:
        """Close the end to read from."""
        os.close(self._reader)


def _log(line: str, fields: dict[str, object]) -> None:
    if line:
        match = _LEVEL.match(line)
        level = _LEVELS[(match[1] or match[2])[0]] if match else logging.WARNING
        _logger.log(level, "%s", line, extra={"fields": fields})


@contextlib.contextmanager
def logged_stderr() -> Iterator[None]:
    """Log what is written to file descriptor 2 inside the block."""
    pipe = StderrPipe()
    real = pipe.replace_stderr()

    def read_all() -> None:
        while pipe.read():
            pass

    reading = threading.Thread(target=read_all, name="stderr")
    reading.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(real, 2)
        pipe.close_writer()
        reading.join()
        pipe.close()
        log_handler.real_stderr = None
        os.close(real)
