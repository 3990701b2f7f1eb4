"""The heap of glibc, which by default keeps much of what was freed; other C libraries are left."""

import asyncio
import ctypes

TRIM_PERIOD_S = 1.0
_TRIMS = 5
_MMAP_BYTES = 2**20
_TRIM_BYTES = 8 * 2**20
_ARENAS = 2
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of malloc.h


def return_large_blocks() -> None:
    """Let blocks of 1 MiB and more go back to the system as soon as they are freed.

    By default the limit rises to 32 MiB with what is freed, in each thread's own arena.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
        libc.mallopt(_M_ARENA_MAX, _ARENAS)


class Trimmer:
    """Gives back what was freed in small blocks, too: each second for some seconds after a load.

    A trim of a worker takes less than a millisecond.
    """

    def __init__(self) -> None:
        self._libc = _glibc()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._left = 0

    def start(self) -> None:
        """Trim for some seconds from now on, on the running event loop."""
        loop = asyncio.get_running_loop()
        if self._libc is not None and (not self._left or self._loop is not loop):
            self._loop = loop
            loop.call_later(TRIM_PERIOD_S, self._trim, loop)
        self._left = _TRIMS

    def _trim(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._libc is not None
        self._libc.malloc_trim(0)
        self._left -= 1
        if self._left:
            loop.call_later(TRIM_PERIOD_S, self._trim, loop)


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
