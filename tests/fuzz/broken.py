"""A target that is broken in every way, by which the tests prove that all is found."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.fuzz.target import Try

KINDS = (b"error", b"slow", b"memory", b"log", b"crash", b"hang", b"fine")


@contextmanager
def broken() -> Iterator[Try]:
    """What is wrong is in the input."""

    def attempt(data: bytes) -> None:
        if b"error" in data:
            raise ValueError("no such luck")
        if b"slow" in data:
            end = time.process_time() + 1.2
            while time.process_time() < end:
                pass
        if b"memory" in data:
            len(bytearray(os.urandom(1000)) * 200_000)
        if b"log" in data:
            os.write(2, b"TIFFReadDirectory: no such luck\n")
        if b"crash" in data:
            os.abort()
        if b"hang" in data:
            signal.pause()

    yield attempt
