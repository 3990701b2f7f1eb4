"""The queue before an engine: work-conserving, bounded; a bad item fails alone."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, Protocol

from service.errors import ClientGone, DeadlinePassed
from service.inference.admission import Admission
from service.inference.entry import Entry, Item, Result, Timed, Waiting
from service.inference.job import Unfinished
from service.inference.line import Line
from service.inference.plan import batch_seconds, plan

# Whether the client is still connected is checked only for items that waited longer than this.
GONE_CHECK_AFTER_S = 0.001


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


class BatchQueue(Generic[Item, Result]):
    """Runs `compute` on waiting items: at once if idle; arrivals meanwhile form the next batch.

    No timer delays an item. `compute` takes a batch and returns a result for each item in the same
    order. If it raises, the items are computed one by one, so that only the bad ones fail. It runs
    on the event loop where that was measured to be cheaper, else in a thread of its own. An item
    whose result is Unfinished waits for its next turn, before which it may be dropped.
    """

    def __init__(
        self,
        name: str,
        compute: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        max_batch_size: int,
        limit: int,
        timeout_s: float = math.inf,
        depth: Gauge,
        batch_sizes: Histogram,
    ) -> None:
        self.max_batch_size = max_batch_size
        self.admission = Admission(name, limit, timeout_s)
        self._compute = compute
        self._depth = depth
        self._batch_sizes = batch_sizes
        self._line: Line[Entry[Item, Result]] = Line()
        self._thread = ThreadPoolExecutor(1, f"engine-{name}")
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop that computes batches until no item waits; None while none waits."""
        self._computing: Future[Sequence[Result | Exception]] | None = None
        """The last batch that was given to the thread."""
        self.plan_by({})

    def plan_by(self, batch_s: Mapping[int, float]) -> None:
        """Plan batches by measured seconds per batch size; without any, all run in the thread."""
        sizes = range(1, self.max_batch_size + 1)
        self._plans = [(0, False), *(plan(waiting, batch_s) for waiting in sizes)]
        self._batch_s = [0.0, *(batch_seconds(size, batch_s) for size in sizes)]
        size, _ = self._plans[self.max_batch_size]
        self.admission.expect_each(self._batch_s[size] / size)

    async def submit(
        self, item: Item, request: Waiting, cost_s: float | None = None
    ) -> Timed[Result]:
        """Wait for the result of one item, whose predicted seconds may differ from the others'.

        Raises Unavailable if the queue is full, DeadlinePassed or ClientGone if nobody waits for
        the result any more when its turn comes.
        """
        self._leave_closed_loop()
        self.admission.check_room(1)
        loop = asyncio.get_running_loop()
        now = time.perf_counter()
        cost_s = self.admission.item_s if cost_s is None else cost_s
        entry: Entry[Item, Result] = Entry(
            item, request, loop.create_future(), now, cost_s, left_s=cost_s
        )
        self._line.append(entry)
        if cost_s:
            self.admission.work.add(cost_s)
        self._note_depth()
        if self._loop is None:
            self._loop = loop
            self.admission.begin(now)
            # In the next iteration of the loop: arrivals of this one form one batch.
            loop.call_soon(self._drain, loop)
        try:
            return await entry.answer
        except asyncio.CancelledError:
            if self._line.remove(entry):
                self._drop(entry)
                self._note_depth()
            raise

    def _leave_closed_loop(self) -> None:
        """Forget a loop that ended before its batch did, as asyncio.run does on an error."""
        if self._loop is not None and self._loop.is_closed():
            self._loop = None
            self._line.clear()
            self.admission.work.clear()

    def _note_depth(self) -> None:
        self.admission.waiting = self._line.length
        self._depth.set(self.admission.waiting)

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        """Compute one batch after the other until no item waits."""
        if not self._line.length:
            self._loop = None
            return
        size, inline = self._plans[min(self._line.length, self.max_batch_size)]
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
        batch: "list[Entry[Item, Result]]",
        started: float,
        computing: "Future[Sequence[Result | Exception]]",
    ) -> None:
        if self._computing is computing:
            self._computing = None  # it would keep its items and results
        self._settle(batch, started, computing.result())
        self._drain(loop)

    def _settle(
        self,
        batch: "list[Entry[Item, Result]]",
        started: float,
        outcomes: Sequence[Result | Exception],
    ) -> None:
        now = time.perf_counter()
        batch_s = now - started
        if outcomes[0].__class__ is Unfinished:
            self._put_back(batch[0], outcomes[0], batch_s)
            return
        predicted_s = self._batch_s[len(batch)] or batch[0].left_s
        self.admission.computed(len(batch), predicted_s, batch_s)
        self._batch_sizes.observe(len(batch))
        if batch[0].cost_s:  # of several items each costs the same
            self.admission.work.done(batch[0].cost_s, len(batch) * batch[0].left_s)
        for entry, outcome in zip(batch, outcomes, strict=True):
            if entry.answer.done():  # cancelled meanwhile
                continue
            if isinstance(outcome, Exception):
                entry.answer.set_exception(outcome)
            else:
                predict_s = entry.predict_s + batch_s
                waited_s = now - entry.queued_at - predict_s
                entry.answer.set_result(Timed(outcome, waited_s, predict_s, len(batch)))

    def _put_back(self, entry: "Entry[Item, Result]", piece: Unfinished, piece_s: float) -> None:
        """Let an item wait for its next turn."""
        part_s = min(entry.left_s, piece.share * entry.cost_s)
        entry.left_s -= part_s
        entry.predict_s += piece_s
        self.admission.computed_piece(entry.cost_s, part_s, piece_s)
        self._line.put_back(entry)

    def _take(self, size: int) -> "list[Entry[Item, Result]]":
        batch: list[Entry[Item, Result]] = []
        now = time.perf_counter()
        while self._line.length and len(batch) < size:
            entry = self._line.pop()
            if entry.answer.done():  # cancelled in this iteration of the loop, or between pieces
                self._drop(entry)
            elif entry.request.deadline <= now:
                entry.answer.set_exception(DeadlinePassed("the deadline passed in the queue"))
                self._drop(entry)
            elif now - entry.queued_at > GONE_CHECK_AFTER_S and entry.request.is_gone():
                entry.answer.set_exception(ClientGone("the client has closed its connection"))
                self._drop(entry)
            else:
                batch.append(entry)
        self._note_depth()
        return batch

    def _drop(self, entry: "Entry[Item, Result]") -> None:
        """Count an item as done: it is computed, or nobody waits for it."""
        self.admission.work.done(entry.cost_s, entry.left_s)

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
        """End the thread after its current batch; drop the waiting items."""
        self._line.clear()
        self._thread.shutdown(wait=False)


def _call_soon(
    loop: asyncio.AbstractEventLoop,
    finish: Callable[["Future[Sequence[Any]]"], None],
    computing: "Future[Sequence[Any]]",
) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits for the batch
        loop.call_soon_threadsafe(finish, computing)
