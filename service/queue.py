"""The queue before an engine: work-conserving, bounded, and fair to every item of a batch."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service.errors import Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class Timed(Generic[Result]):
    """A result, how long it waited and was computed, and with how many others."""

    result: Result
    queue_s: float
    predict_s: float
    batch_size: int


@dataclass
class _Entry(Generic[Item, Result]):
    item: Item
    answer: "asyncio.Future[Timed[Result]]"
    queued_at: float = field(default_factory=time.perf_counter)


class BatchQueue(Generic[Item, Result]):
    """Runs `compute` on what waits, in its own thread: at once if idle, else with all that came.

    No timer makes a lone item wait. `compute` takes a batch and returns a result for each item in
    the same order; if it raises, its items are computed one by one, so that only the guilty fail.
    """

    def __init__(
        self,
        name: str,
        compute: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        max_batch_size: int,
        limit: int,
        on_depth_change: Callable[[int], None],
    ) -> None:
        self.name = name
        self.limit = limit
        self.max_batch_size = max_batch_size
        self._compute = compute
        self._on_depth_change = on_depth_change
        self._waiting: deque[_Entry[Item, Result]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"engine-{name}")
        self._drain: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Timed[Result]:
        """Wait for the result of one item; raises Unavailable if the queue is full."""
        if len(self._waiting) >= self.limit:
            raise Unavailable(
                f"{self.name} is overloaded: expected at most {self.limit} waiting images, "
                f"got {len(self._waiting)}"
            )
        entry = _Entry[Item, Result](item, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        self._on_depth_change(+1)
        if self._drain is None or self._drain.done():
            self._drain = asyncio.create_task(self._run())
        return await entry.answer

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._take():
            started = time.perf_counter()
            outcomes = await loop.run_in_executor(
                self._thread, self._outcomes, [entry.item for entry in batch]
            )
            predict_s = time.perf_counter() - started
            for entry, outcome in zip(batch, outcomes, strict=True):
                if entry.answer.done():  # its caller has gone meanwhile
                    continue
                if isinstance(outcome, Exception):
                    entry.answer.set_exception(outcome)
                else:
                    waited = started - entry.queued_at
                    entry.answer.set_result(Timed(outcome, waited, predict_s, len(batch)))

    def _take(self) -> list[_Entry[Item, Result]]:
        batch: list[_Entry[Item, Result]] = []
        while self._waiting and len(batch) < self.max_batch_size:
            entry = self._waiting.popleft()
            self._on_depth_change(-1)
            if not entry.answer.done():  # cancelled: its deadline has passed
                batch.append(entry)
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

    def close(self) -> None:
        """Let the thread end once what it computes is done."""
        self._thread.shutdown(wait=False)
