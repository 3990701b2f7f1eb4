"""A budget of bytes for all workers of a server: what does not fit waits, or is refused."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from service.errors import ClientGone, TooLarge
from service.shared import Doubles

SMALL_BYTES = 64 * 1024
"""What takes no more than this is not counted: the queues bound how much of it there can be."""
POLL_S = 0.01
PATIENCE_S = 0.5
"""Who waits for longer comes before all others, in every worker."""
_FEW_DIVISOR = 64


class Budget:
    """At most `limit` bytes in all workers. There is no lock: a worker writes its own numbers only.

    A worker adds first and compares the sum afterwards, so that two at once may both have to wait,
    but never both get the last bytes. One that starts sets its numbers to zero: the bytes of a
    worker that was killed are free once its successor starts. Not safe across threads.
    """

    def __init__(self, limit: int, origin: str, numbers: Doubles, worker: int) -> None:
        """`origin` is where the limit comes from; `numbers` has two for each worker."""
        workers = len(numbers) // 2
        self.limit = limit
        self.origin = origin
        self._held, self._wishes = numbers[:workers], numbers[workers:]
        self._worker = worker
        self._impatient: list[float] = []
        self.on_given_back: Callable[[], None] = _nothing
        self._held[worker] = self._wishes[worker] = 0.0

    def used(self) -> int:
        """The bytes that all workers hold."""
        return int(sum(self._held))

    def take(self, count: int, since: float) -> bool:
        """Hold that many bytes more if they fit now.

        Not where somebody has waited in vain for longer than since then, except for few bytes:
        many who take part of a budget would never leave room for one who needs most of it.
        """
        if count > self.limit // _FEW_DIVISOR and any(0 < wish < since for wish in self._wishes):
            return False
        self._held[self._worker] += count
        if self.used() <= self.limit:
            return True
        self._held[self._worker] -= count
        return False

    def give_back(self, count: int) -> None:
        """Hold that many bytes less."""
        self._held[self._worker] -= count
        self.on_given_back()

    def wish(self, since: float) -> None:
        """Tell all workers that somebody has waited for too long."""
        self._impatient.append(since)
        self._wishes[self._worker] = min(self._impatient)

    def end_wish(self, since: float) -> None:
        """Take back a wish."""
        self._impatient.remove(since)
        self._wishes[self._worker] = min(self._impatient, default=0.0)


class Share:
    """What one model, or all request bodies, hold of a budget in this worker.

    First come, first served. At most `limit` bytes, so that a flood on one model leaves memory to
    the others; but whoever comes when nothing is held may take more, up to the whole budget.
    """

    def __init__(self, budget: Budget, limit: int) -> None:
        self.budget = budget
        self._limit = limit
        self._held = 0
        self._line: deque[asyncio.Future[None]] = deque()
        """Those who wait; the first one polls, each other one is told when it is the first."""

    def beside(self) -> "Share":
        """Half as much more, with a line of its own: for those who must not wait in this one."""
        return Share(self.budget, self._limit // 2)

    async def reserve(
        self,
        count: int,
        what: str,
        is_gone: Callable[[], bool],
        check: Callable[[], None] | None = None,
    ) -> "Reservation":
        """Wait until `count` bytes fit; `what` is what takes them.

        Raises TooLarge for what never fits, ClientGone where the client leaves meanwhile, and what
        `check` raises where there is no use in waiting on.
        """
        if count > self.budget.limit:
            raise TooLarge(
                f"expected {what} that takes at most {self.budget.limit} bytes of memory "
                f"({self.budget.origin}), got one that takes {count} bytes"
            )
        if self._line or not self.take(count, time.monotonic()):
            await self._wait(count, is_gone, check or _nothing)
        return Reservation(self, count)

    async def _wait(
        self, count: int, is_gone: Callable[[], bool], check: Callable[[], None]
    ) -> None:
        since, is_impatient = time.monotonic(), False
        first = asyncio.get_running_loop().create_future()
        self._line.append(first)
        try:
            if self._line[0] is not first:
                await first
            while True:
                check()
                if self.take(count, since):
                    return
                if is_gone():
                    raise ClientGone("the client has closed its connection")
                is_late = time.monotonic() > since + PATIENCE_S
                if is_late and not is_impatient and self._may_hold(count):
                    is_impatient = True
                    self.budget.wish(since)
                await asyncio.sleep(POLL_S)  # other workers give back without a word
        finally:
            if is_impatient:
                self.budget.end_wish(since)
            self._line.remove(first)
            if self._line and not self._line[0].done():
                self._line[0].set_result(None)

    def take(self, count: int, since: float) -> bool:
        """Hold that many bytes more if they fit now, for one who has waited since then."""
        if not self._may_hold(count) or not self.budget.take(count, since):
            return False
        self._held += count
        return True

    def _may_hold(self, count: int) -> bool:
        """Whether the share's own limit leaves room; if not, others are not to blame."""
        return not self._held or self._held + count <= self._limit

    def give_back(self, count: int) -> None:
        """Hold that many bytes less."""
        self._held -= count
        self.budget.give_back(count)


class Reservation:
    """Bytes that are held until they are released."""

    __slots__ = ("count", "share")

    def __init__(self, share: Share, count: int) -> None:
        self.share = share
        self.count = count

    def grow_to(self, count: int) -> bool:
        """Hold `count` bytes if they fit now."""
        if count > self.count:
            if not self.share.take(count - self.count, time.monotonic()):
                return False
            self.count = count
        return True

    def shrink_to(self, count: int) -> None:
        """Hold at most `count` bytes."""
        if count < self.count:
            self.share.give_back(self.count - count)
            self.count = count

    def release(self) -> None:
        """Hold nothing any more."""
        self.shrink_to(0)


def _nothing() -> None:
    pass
