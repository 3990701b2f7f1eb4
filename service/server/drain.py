"""Whether a server is about to end: `/readyz` says so first, while requests are still taken."""

import asyncio
import mmap
import signal
from types import FrameType


class Drain:
    """A flag that a server and the workers that it forks share."""

    def __init__(self) -> None:
        self._flag = mmap.mmap(-1, 1)

    @property
    def is_on(self) -> bool:
        """Whether the server is about to end."""
        return self._flag[0] != 0

    def begin(self) -> None:
        """Turn `/readyz` off, and have every answer close its connection."""
        self._flag[0] = 1


def drain_on_sigterm(drain: Drain, drain_s: float) -> None:
    """Let SIGTERM begin to drain, and do what it would have done only `drain_s` later.

    For a server that forks no workers of ours; to be called on the running event loop.
    """
    loop = asyncio.get_running_loop()
    end = signal.getsignal(signal.SIGTERM)

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        assert callable(end)
        if drain.is_on:  # asked again
            end(number, frame)
            return
        drain.begin()
        loop.call_soon_threadsafe(loop.call_later, drain_s, end, number, None)

    if callable(end):
        signal.signal(signal.SIGTERM, on_sigterm)
