"""Numbers that the workers of one server share, in a file of the folder that they share."""

import fcntl
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

Doubles: TypeAlias = "memoryview[float]"

_DOUBLE_BYTES = 8
_KEY_BYTES = 32
_RECORD_BYTES = _KEY_BYTES + _DOUBLE_BYTES


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


def keyed_doubles(file: Path, keys: Sequence[bytes]) -> dict[bytes, Doubles]:
    """A double for each key of 32 bytes, zero at first, by one map of one file. Raises OSError.

    The file has a record, key and double, for each key that any process has named. None is used
    anew: processes that know other keys at the moment never write in one place.
    """
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as records:
        fcntl.flock(records, fcntl.LOCK_EX)
        held = records.read()
        whole = range(0, len(held) - _RECORD_BYTES + 1, _RECORD_BYTES)  # a full disk cuts the last
        places = {held[at : at + _KEY_BYTES]: at for at in whole}
        records.seek(len(whole) * _RECORD_BYTES)
        for key in keys:
            if key not in places:
                places[key] = records.tell()
                records.write(key + bytes(_DOUBLE_BYTES))
        records.flush()
        fcntl.flock(records, fcntl.LOCK_UN)  # the map keeps the file open
        doubles = memoryview(mmap.mmap(records.fileno(), records.tell())).cast("d")
    firsts = {key: (places[key] + _KEY_BYTES) // _DOUBLE_BYTES for key in keys}
    return {key: doubles[first : first + 1] for key, first in firsts.items()}
