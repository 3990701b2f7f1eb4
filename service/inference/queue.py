"""The queue before an engine: work-conserving, bounded; a bad item fails alone."""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from service.errors import ClientGone, DeadlinePassed, TooLarge, Unavailable
from service.inference.plan import plan
from service.machine import yield_to_the_event_loop

Item = TypeVar("Item")
Result = TypeVar("Result")

# Whether the client is still connected is checked only for items that waited longer than this.
GONE_CHECK_AFTER_S = 0.001
MAX_RETRY_AFTER_S = 60


class Waiting(Protocol):
    """What the queue needs to know of the request that an item belongs to."""

    deadline: float
    """In seconds of time.perf_counter; an item that is not computed by then is dropped."""

    def is_gone(self) -> bool:
        """Whether the client has closed its connection."""
        ...


class Gauge(Protocol):
    """Takes the number of waiting items."""

    def set(self, value: float, /) -> None:
        """Set the number."""
        ...


class Histogram(Protocol):
    """Takes the size of every batch."""

    def observe(self, value: float, /) -> None:
        """Count one batch."""
        ...


@dataclass(slots=True)
class Timed(Generic[Result]):
    """A result, the seconds its item waited and was computed, and the size of its batch."""

    result: Result
    queue_s: float
    predict_s: float
    batch_size: int


@dataclass(eq=False, slots=True)
class _Entry(Generic[Item, Result]):
    item: Item
    request: Waiting
    answer: "asyncio.Future[Timed[Result]]"
    queued_at: float


class _Place:
    """One place of a queue; a class, because a generator costs three times as much."""

    __slots__ = ("_queue",)

    def __init__(self, queue: "BatchQueue[Any, Any]") -> None:
        self._queue = queue

    def __enter__(self) -> None:
        self._queue.reserved += 1

    def __exit__(self, *_: object) -> None:
        self._queue.reserved -= 1


class BatchQueue(Generic[Item, Result]):
    """Runs `compute` on waiting items: at once if idle; arrivals meanwhile form the next batch.

    No timer delays an item. `compute` takes a batch and returns a result for each item in the same
    order. If it raises, the items are computed one by one, so that only the bad ones fail. It runs
    on the event loop where that was measured to be cheaper, else in a thread of its own.
    """

    def __init__(
        self,
        name: str,
        compute: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        max_batch_size: int,
        limit: int,
        depth: Gauge,
        batch_sizes: Histogram,
    ) -> None:
        self.name = name
        self.limit = limit
        self.max_batch_size = max_batch_size
        self._compute = compute
        self._depth = depth
        self._batch_sizes = batch_sizes
        self._waiting: deque[_Entry[Item, Result]] = deque()
        self._thread = ThreadPoolExecutor(1, f"engine-{name}", yield_to_the_event_loop)
        self.reserved = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop that computes batches until no item waits; None while none waits."""
        self._computing: Future[Sequence[Result | Exception]] | None = None
        """The last batch that was given to the thread."""
        self._backlog_since = 0.0
        self._done_since = 0
        self.plan_by({})

    def plan_by(self, batch_s: Mapping[int, float]) -> None:
        """Plan batches by measured seconds per batch size; without any, all run in the thread."""
        sizes = range(1, self.max_batch_size + 1)
        self._plans = [(0, False), *(plan(waiting, batch_s) for waiting in sizes)]

    def check_room(self, count: int) -> None:
        """Raise Unavailable if `count` more items do not fit now, TooLarge if they never will."""
        if count > self.limit:
            raise TooLarge(f"expected at most {self.limit} images at once, got {count}")
        if self._taken + count > self.limit:
            raise Unavailable(
                f"{self.name} is overloaded: expected at most {self.limit} waiting images, "
                f"got {self._taken + count}",
                self._retry_after_s(),
            )

    @property
    def has_room(self) -> bool:
        """Whether one more item fits now."""
        return self._taken < self.limit

    def place(self) -> "_Place":
        """Reserve a place for an item that is being decoded; raises Unavailable if none is free."""
        self.check_room(1)
        return _Place(self)

    @property
    def _taken(self) -> int:
        return self.reserved + len(self._waiting)

    async def submit(self, item: Item, request: Waiting) -> Timed[Result]:
        """Wait for the result of one item.

        Raises Unavailable if the queue is full, DeadlinePassed or ClientGone if nobody waits for
        the result any more when its turn comes.
        """
        self._leave_closed_loop()
        self.check_room(1)
        loop = asyncio.get_running_loop()
        now = time.perf_counter()
        entry: _Entry[Item, Result] = _Entry(item, request, loop.create_future(), now)
        self._waiting.append(entry)
        self._depth.set(len(self._waiting))
        if self._loop is None:
            self._loop = loop
            self._backlog_since = now
            self._done_since = 0
            # In the next iteration of the loop: arrivals of this one form one batch.
            loop.call_soon(self._drain, loop)
        try:
            return await entry.answer
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
                self._depth.set(len(self._waiting))
            raise

    def _leave_closed_loop(self) -> None:
        """Forget a loop that ended before its batch did, as asyncio.run does on an error."""
        if self._loop is not None and self._loop.is_closed():
            self._loop = None
            self._waiting.clear()

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        """Compute one batch after the other until no item waits."""
        size, inline = self._plans[min(len(self._waiting), self.max_batch_size)]
        batch = self._take(size)
        if not batch:
            self._loop = None
            return
        started = time.perf_counter()
        items = [entry.item for entry in batch]
        # An engine takes one batch at once; the thread may have one of a loop that has ended.
        if inline and (self._computing is None or self._computing.done()):
            self._settle(batch, started, self._outcomes(items))
            loop.call_soon(self._drain, loop)
            return
        finish = partial(self._finish, loop, batch, started)
        self._computing = self._thread.submit(self._outcomes, items)
        self._computing.add_done_callback(partial(_call_soon, loop, finish))

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: "list[_Entry[Item, Result]]",
        started: float,
        computing: "Future[Sequence[Result | Exception]]",
    ) -> None:
        if self._computing is computing:
            self._computing = None  # it would keep its items and results
        self._settle(batch, started, computing.result())
        self._drain(loop)

    def _settle(
        self,
        batch: "list[_Entry[Item, Result]]",
        started: float,
        outcomes: Sequence[Result | Exception],
    ) -> None:
        predict_s = time.perf_counter() - started
        self._done_since += len(batch)
        self._batch_sizes.observe(len(batch))
        for entry, outcome in zip(batch, outcomes, strict=True):
            if entry.answer.done():  # cancelled meanwhile
                continue
            if isinstance(outcome, Exception):
                entry.answer.set_exception(outcome)
            else:
                waited = started - entry.queued_at
                entry.answer.set_result(Timed(outcome, waited, predict_s, len(batch)))

    def _take(self, size: int) -> "list[_Entry[Item, Result]]":
        batch: list[_Entry[Item, Result]] = []
        now = time.perf_counter()
        while self._waiting and len(batch) < size:
            entry = self._waiting.popleft()
            if entry.answer.done():  # cancelled in this iteration of the loop
                continue
            if entry.request.deadline <= now:
                entry.answer.set_exception(DeadlinePassed("the deadline passed in the queue"))
            elif now - entry.queued_at > GONE_CHECK_AFTER_S and entry.request.is_gone():
                entry.answer.set_exception(ClientGone("the client has closed its connection"))
            else:
                batch.append(entry)
        self._depth.set(len(self._waiting))
        return batch

    def _outcomes(self, items: list[Item]) -> Sequence[Result | Exception]:
        try:
            results = self._compute(items)
            if len(results) != len(items):
                raise RuntimeError(f"expected {len(items)} results, got {len(results)}")
            return results
        except Exception as error:
            if len(items) == 1:
                return [error]
            return [outcome for item in items for outcome in self._outcomes([item])]

    def _retry_after_s(self) -> int:
        """Seconds until half of the waiting items are done, at the rate since it was empty."""
        if not self._done_since:
            return 1
        s_per_item = (time.perf_counter() - self._backlog_since) / self._done_since
        wait_s = s_per_item * len(self._waiting) / 2
        return max(1, min(MAX_RETRY_AFTER_S, math.ceil(wait_s)))

    def close(self) -> None:
        """End the thread after its current batch; drop the waiting items."""
        self._waiting.clear()
        self._thread.shutdown(wait=False)


def _call_soon(
    loop: asyncio.AbstractEventLoop,
    finish: Callable[["Future[Sequence[Any]]"], None],
    computing: "Future[Sequence[Any]]",
) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits for the batch
        loop.call_soon_threadsafe(finish, computing)
