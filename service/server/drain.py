"""Draining before a stop: `/readyz` answers 503 while requests are still answered."""

import asyncio
import mmap
import signal
from types import FrameType


class Drain:
    """A flag that a server shares with the workers that it forks."""

    def __init__(self) -> None:
        self._flag = mmap.mmap(-1, 1)

    @property
    def is_on(self) -> bool:
        """Whether the server drains or stops."""
        return self._flag[0] != 0

    def begin(self) -> None:
        """Let `/readyz` answer 503, and every answer close its connection."""
        self._flag[0] = 1


def drain_on_sigterm(drain: Drain, drain_s: float) -> None:
    """Make SIGTERM begin to drain; what handled it before is called `drain_s` later.

    For a worker of `bentoml serve`; call it on the running event loop. A second SIGTERM stops at
    once.
    """
    loop = asyncio.get_running_loop()
    stop = signal.getsignal(signal.SIGTERM)

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        assert callable(stop)
        if drain.is_on:
            stop(number, frame)
            return
        drain.begin()
        loop.call_soon_threadsafe(loop.call_later, drain_s, stop, number, None)

    if callable(stop):
        signal.signal(signal.SIGTERM, on_sigterm)
