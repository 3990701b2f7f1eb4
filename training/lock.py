"""One run at a time for a folder of checkpoints."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from training.errors import TrainingError


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file during the block; raises TrainingError if another process holds it.

    The kernel releases the lock when the process ends, however it ends. The file holds the
    process's id.
    """
    descriptor = _acquire(path)
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        path.unlink()
        os.close(descriptor)


def _acquire(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, descriptor):
                return descriptor
        except BlockingIOError:
            process = os.pread(descriptor, 20, 0).decode() or "unknown"
            os.close(descriptor)
            raise TrainingError(
                f"another run with the same arguments is in progress (process {process}): wait "
                "until it ends, or change an argument such as --seed"
            ) from None
        os.close(descriptor)  # its holder removed the file between our open and our lock


def _is_still(path: Path, descriptor: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False
