"""The heap of glibc, which by default keeps much of what was freed; other C libraries are left."""

import asyncio
import ctypes

TRIM_PERIOD_S = 0.5
_TRIMS = 8
# Under a load that goes on, what was freed is used again at once.
_MOST_BUSY_PERIODS = 60
_MMAP_BYTES = 4 * 2**20
_TRIM_BYTES = 8 * 2**20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def return_large_blocks() -> None:
    """Let blocks of 4 MiB and more go back to the system as soon as they are freed.

    By default the limit rises to 32 MiB with what is freed. A lower one than 4 MiB slows requests
    with photos: their pages are made anew each time.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)


class Trimmer:
    """Gives back what was freed in small blocks, too: in the seconds after a load.

    A trim takes less than a millisecond, but pages that are used again have to be made anew: while
    something is given back in each period there is one each half a minute.
    """

    def __init__(self) -> None:
        self._libc = _glibc()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._left = 0
        self._is_busy = False
        self._busy_periods = 0

    def start(self) -> None:
        """Trim for some seconds from now on, on the running event loop."""
        loop = asyncio.get_running_loop()
        if self._libc is not None and (not self._left or self._loop is not loop):
            self._loop = loop
            loop.call_later(TRIM_PERIOD_S, self._tick, loop)
        self._left = _TRIMS
        self._is_busy = True

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._libc is not None
        if self._is_busy and self._busy_periods < _MOST_BUSY_PERIODS:
            self._is_busy = False
            self._busy_periods += 1
        else:
            self._libc.malloc_trim(0)
            self._is_busy, self._busy_periods = False, 0
            self._left -= 1
        if self._left:
            loop.call_later(TRIM_PERIOD_S, self._tick, loop)


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
