"""The queue before an engine: work-conserving, bounded, and fair to every item of a batch."""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

from service.errors import ClientGone, DeadlinePassed, TooLarge, Unavailable
from service.inference.plan import plan

Item = TypeVar("Item")
Result = TypeVar("Result")

# An item that waited less than this is not asked whether its client is still there.
PATIENCE_S = 0.001
MAX_RETRY_AFTER_S = 60


class Waiting(Protocol):
    """What the queue asks of the request that an item belongs to."""

    deadline: float
    """In seconds of time.perf_counter; an item that is not computed by then is dropped."""

    def is_gone(self) -> bool:
        """Whether the client has closed its connection."""
        ...


class Gauge(Protocol):
    """Takes the number of items that wait."""

    def set(self, value: float, /) -> None:
        """Replace the number."""
        ...


class Histogram(Protocol):
    """Takes the size of every batch."""

    def observe(self, value: float, /) -> None:
        """Count one batch."""
        ...


@dataclass(slots=True)
class Timed(Generic[Result]):
    """A result, how long it waited and was computed, and with how many others."""

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


class BatchQueue(Generic[Item, Result]):
    """Runs `compute` on what waits: at once if idle, else with all that came meanwhile.

    No timer makes a lone item wait. `compute` takes a batch and returns a result for each item in
    the same order; if it raises, its items are computed one by one, so that only the guilty fail.
    It runs on the event loop where that is measured to be cheaper, else in a thread of its own.
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
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"engine-{name}")
        self._held = 0
        self._is_draining = False
        self._backlog_since = 0.0
        self._done_since = 0
        self.plan_by({})

    def plan_by(self, batch_s: Mapping[int, float]) -> None:
        """Plan batches by the measured seconds of some sizes; without any, all go to the thread."""
        sizes = range(1, self.max_batch_size + 1)
        self._plans = [(0, False), *(plan(waiting, batch_s) for waiting in sizes)]

    @property
    def is_full(self) -> bool:
        """Whether not one more item fits."""
        return self._taken >= self.limit

    def overload(self, count: int = 1) -> Unavailable:
        """What to answer where `count` more items do not fit."""
        return Unavailable(
            f"{self.name} is overloaded: expected at most {self.limit} waiting images, "
            f"got {self._taken + count}",
            self._retry_after_s(),
        )

    def check_room(self, count: int) -> None:
        """Raise Unavailable where `count` more items would not fit, TooLarge if they never will."""
        if count > self.limit:
            raise TooLarge(f"expected at most {self.limit} images at once, got {count}")
        if self._taken + count > self.limit:
            raise self.overload(count)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for an item that is being prepared; raises Unavailable without one."""
        self.check_room(1)
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    @property
    def _taken(self) -> int:
        return self._held + len(self._waiting)

    async def submit(self, item: Item, request: Waiting) -> Timed[Result]:
        """Wait for the result of one item.

        Raises Unavailable if the queue is full, and DeadlinePassed or ClientGone if the request
        was over before its turn came.
        """
        self.check_room(1)
        loop = asyncio.get_running_loop()
        now = time.perf_counter()
        entry: _Entry[Item, Result] = _Entry(item, request, loop.create_future(), now)
        self._waiting.append(entry)
        self._depth.set(len(self._waiting))
        if not self._is_draining:
            self._is_draining = True
            self._backlog_since = now
            self._done_since = 0
            # With the next turn of the loop: what came in this one forms one batch.
            loop.call_soon(self._drain, loop)
        try:
            return await entry.answer
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
                self._depth.set(len(self._waiting))
            raise

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        """Compute one batch; go on until nothing waits."""
        size, inline = self._plans[min(len(self._waiting), self.max_batch_size)]
        batch = self._take(size)
        if not batch:
            self._is_draining = False
            return
        started = time.perf_counter()
        items = [entry.item for entry in batch]
        if inline:
            self._settle(batch, started, self._outcomes(items))
            loop.call_soon(self._drain, loop)
            return
        computing = self._thread.submit(self._outcomes, items)
        finish = partial(self._finish, loop, batch, started)
        computing.add_done_callback(lambda done: loop.call_soon_threadsafe(finish, done))

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: "list[_Entry[Item, Result]]",
        started: float,
        computing: "Future[Sequence[Result | Exception]]",
    ) -> None:
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
            if entry.answer.done():  # its caller has gone meanwhile
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
            if entry.answer.done():  # cancelled in this very turn of the loop
                continue
            if entry.request.deadline <= now:
                entry.answer.set_exception(DeadlinePassed("the deadline passed in the queue"))
            elif now - entry.queued_at > PATIENCE_S and entry.request.is_gone():
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
        """When half of what waits will be done, at the rate since the queue last stood empty."""
        if not self._done_since:
            return 1
        s_per_item = (time.perf_counter() - self._backlog_since) / self._done_since
        wait_s = s_per_item * len(self._waiting) / 2
        return max(1, min(MAX_RETRY_AFTER_S, math.ceil(wait_s)))

    def close(self) -> None:
        """Let the thread end once what it computes is done; nobody waits for the rest any more."""
        self._waiting.clear()
        self._thread.shutdown(wait=False)
