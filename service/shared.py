"""Numbers that the workers of one server share, in a file of the folder that they share."""

import fcntl
import mmap
import os
from pathlib import Path
from typing import TypeAlias

Doubles: TypeAlias = "memoryview[float]"

_DOUBLE_BYTES = 8


def shared_doubles(folder: Path | None, name: str, count: int) -> Doubles:
    """`count` doubles by that name, zero at first; a folder of None keeps them to this process.

    A write of one double is atomic, an addition is not. Raises OSError.
    """
    size = count * _DOUBLE_BYTES
    if folder is None:
        return memoryview(mmap.mmap(-1, size)).cast("d")
    handle = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # until it is closed: one process alone makes the zeros
        if not os.fstat(handle).st_size:
            os.pwrite(handle, bytes(size), 0)
        fcntl.flock(handle, fcntl.LOCK_UN)  # the map keeps the file open
        return memoryview(mmap.mmap(handle, size)).cast("d")
    finally:
        os.close(handle)
