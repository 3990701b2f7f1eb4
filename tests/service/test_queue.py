import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from typing import Any, TypeVarTuple

import pytest

from service.errors import Unavailable
from service.queue import BatchQueue, Timed

Queue = BatchQueue[int, int]
Arguments = TypeVarTuple("Arguments")
Compute = Callable[[Sequence[int]], Sequence[int]]
HANGS_S = 30  # only ever waited for in full where a test fails


class DoublingEngine:
    """Doubles numbers and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        return [2 * item for item in items]


class GatedEngine(DoublingEngine):
    """Doubles numbers, but only once its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.busy = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        doubled = super().__call__(items)
        self.busy.set()
        assert self.gate.wait(HANGS_S)
        return doubled


class PickyEngine(DoublingEngine):
    """Fails on any batch with a negative number in it."""

    def __call__(self, items: Sequence[int]) -> list[int]:
        doubled = super().__call__(items)
        for item in items:
            if item < 0:
                raise ValueError(f"expected a number from 0, got {item}")
        return doubled


class PickyGatedEngine(GatedEngine, PickyEngine):
    """Fails as PickyEngine does, once its gate is open."""


class TimerCountingLoop(asyncio.SelectorEventLoop):
    """An event loop that counts the timers that are set."""

    timers = 0

    def call_at(
        self,
        when: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        self.timers += 1
        return super().call_at(when, callback, *args, context=context)


@contextmanager
def queue_before(
    compute: Compute,
    *,
    max_batch_size: int = 8,
    limit: int = 100,
    on_depth_change: Callable[[int], None] = lambda _: None,
) -> Iterator[Queue]:
    queue = Queue(
        "numbers",
        compute,
        max_batch_size=max_batch_size,
        limit=limit,
        on_depth_change=on_depth_change,
    )
    try:
        yield queue
    finally:
        queue.close()


async def submitted(queue: Queue, *items: int) -> list["asyncio.Task[Timed[int]]"]:
    """Tasks that have all reached the queue."""
    tasks = [asyncio.create_task(queue.submit(item)) for item in items]
    await asyncio.sleep(0)
    return tasks


async def while_computing_nought(queue: Queue, engine: GatedEngine) -> "asyncio.Task[Timed[int]]":
    """A task whose item, 0, the engine is computing."""
    (task,) = await submitted(queue, 0)
    assert await asyncio.to_thread(engine.busy.wait, HANGS_S)
    return task


async def results(tasks: Sequence["asyncio.Task[Timed[int]]"]) -> list[int | BaseException]:
    """The result or the error of every task, in order."""
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    return [outcome.result if isinstance(outcome, Timed) else outcome for outcome in outcomes]


def run(test: Coroutine[Any, Any, None]) -> None:
    async def with_deadline() -> None:
        async with asyncio.timeout(HANGS_S):
            await test

    asyncio.run(with_deadline())


def test_lone_item_starts_at_once() -> None:
    engine = GatedEngine()

    async def test() -> None:
        with queue_before(engine) as queue:
            task = await while_computing_nought(queue, engine)
            assert engine.batches == [[0]]
            engine.gate.set()
            assert (await task).result == 0

    run(test())


def test_no_timer_makes_an_item_wait() -> None:
    with (
        asyncio.Runner(loop_factory=TimerCountingLoop) as runner,
        queue_before(DoublingEngine()) as queue,
    ):
        assert runner.run(queue.submit(1)).result == 2
        loop = runner.get_loop()
        assert isinstance(loop, TimerCountingLoop)
        assert loop.timers == 0


def test_arrivals_during_a_batch_form_the_next() -> None:
    engine = GatedEngine()

    async def test() -> None:
        with queue_before(engine) as queue:
            first = await while_computing_nought(queue, engine)
            others = await submitted(queue, 1, 2, 3)
            engine.gate.set()
            assert await results([first, *others]) == [0, 2, 4, 6]
            assert engine.batches == [[0], [1, 2, 3]]

    run(test())


def test_arrivals_one_after_the_other_form_one_batch() -> None:
    engine = GatedEngine()

    async def test() -> None:
        with queue_before(engine) as queue:
            tasks = [await while_computing_nought(queue, engine)]
            for item in (1, 2, 3):
                tasks += await submitted(queue, item)
            engine.gate.set()
            await results(tasks)
            assert engine.batches == [[0], [1, 2, 3]]

    run(test())


def test_batch_is_never_larger_than_allowed_and_order_is_kept() -> None:
    engine = GatedEngine()

    async def test() -> None:
        with queue_before(engine, max_batch_size=3) as queue:
            first = await while_computing_nought(queue, engine)
            others = await submitted(queue, *range(1, 8))
            engine.gate.set()
            assert await results([first, *others]) == [0, 2, 4, 6, 8, 10, 12, 14]
            assert engine.batches == [[0], [1, 2, 3], [4, 5, 6], [7]]

    run(test())


def test_result_tells_how_many_were_computed_together() -> None:
    engine = GatedEngine()

    async def test() -> None:
        with queue_before(engine) as queue:
            first = await while_computing_nought(queue, engine)
            others = await submitted(queue, 1, 2, 3)
            engine.gate.set()
            sizes = [(await task).batch_size for task in (first, *others)]
            assert sizes == [1, 3, 3, 3]

    run(test())


def test_result_tells_how_long_its_item_waited_and_was_computed() -> None:
    async def test() -> None:
        with queue_before(DoublingEngine()) as queue:
            timed = await queue.submit(1)
            assert timed.queue_s >= 0
            assert timed.predict_s > 0

    run(test())


def test_idle_queue_starts_again() -> None:
    engine = DoublingEngine()

    async def test() -> None:
        with queue_before(engine) as queue:
            assert [(await queue.submit(item)).result for item in (1, 2, 3)] == [2, 4, 6]
            assert engine.batches == [[1], [2], [3]]

    run(test())


def test_engine_runs_in_one_thread_of_its_own() -> None:
    threads: set[str] = set()

    def note_thread(items: Sequence[int]) -> Sequence[int]:
        threads.add(threading.current_thread().name)
        return items

    async def test() -> None:
        with queue_before(note_thread, max_batch_size=1) as queue:
            await results(await submitted(queue, *range(20)))

    run(test())
    assert threads == {"engine-numbers_0"}


def test_invalid_among_many() -> None:
    engine = PickyGatedEngine()

    async def test() -> None:
        with queue_before(engine) as queue:
            first = await while_computing_nought(queue, engine)
            others = await submitted(queue, 1, 2, -3, 4)
            engine.gate.set()
            zero, one, two, guilty, four = await results([first, *others])
            assert [zero, one, two, four] == [0, 2, 4, 8]
            assert isinstance(guilty, ValueError)
            assert str(guilty) == "expected a number from 0, got -3"
            assert engine.batches == [[0], [1, 2, -3, 4], [1], [2], [-3], [4]]

    run(test())


def test_engine_that_fails_on_everything_fails_every_item_by_itself() -> None:
    engine = PickyEngine()

    async def test() -> None:
        with queue_before(engine) as queue:
            outcomes = await results(await submitted(queue, -1, -2, -3))
            assert [str(outcome) for outcome in outcomes] == [
                f"expected a number from 0, got {item}" for item in (-1, -2, -3)
            ]

    run(test())


def test_lone_failing_item_is_not_computed_twice() -> None:
    engine = PickyEngine()

    async def test() -> None:
        with queue_before(engine) as queue:
            with pytest.raises(ValueError, match="got -1"):
                await queue.submit(-1)
            assert engine.batches == [[-1]]

    run(test())


def test_queue_goes_on_after_a_failure() -> None:
    async def test() -> None:
        with queue_before(PickyEngine()) as queue:
            await results(await submitted(queue, -1, -2))
            assert (await queue.submit(3)).result == 6

    run(test())


def test_item_beyond_the_limit_is_refused_at_once() -> None:
    engine = GatedEngine()

    async def test() -> None:
        with queue_before(engine, limit=2) as queue:
            first = await while_computing_nought(queue, engine)
            others = await submitted(queue, 1, 2)
            expected = "numbers is overloaded: expected at most 2 waiting images, got 2"
            with pytest.raises(Unavailable, match=expected):
                await queue.submit(3)
            engine.gate.set()
            assert await results([first, *others]) == [0, 2, 4]
            assert engine.batches == [[0], [1, 2]]

    run(test())


def test_queue_takes_items_again_after_an_overload() -> None:
    engine = GatedEngine()

    async def test() -> None:
        with queue_before(engine, limit=1) as queue:
            first = await while_computing_nought(queue, engine)
            waiting, refused = await submitted(queue, 1, 2)
            engine.gate.set()
            zero, one, error = await results([first, waiting, refused])
            assert [zero, one] == [0, 2]
            assert isinstance(error, Unavailable)
            assert (await queue.submit(4)).result == 8

    run(test())


def test_cancelled_item_is_not_computed() -> None:
    engine = GatedEngine()

    async def test() -> None:
        with queue_before(engine) as queue:
            first = await while_computing_nought(queue, engine)
            one, two, three = await submitted(queue, 1, 2, 3)
            two.cancel()
            engine.gate.set()
            assert await results([first, one, three]) == [0, 2, 6]
            assert engine.batches == [[0], [1, 3]]
            assert two.cancelled()

    run(test())


def test_cancelled_items_leave_room_in_the_batch() -> None:
    engine = GatedEngine()

    async def test() -> None:
        with queue_before(engine, max_batch_size=2) as queue:
            first = await while_computing_nought(queue, engine)
            tasks = await submitted(queue, 1, 2, 3, 4)
            tasks[0].cancel()
            tasks[1].cancel()
            engine.gate.set()
            await results([first, *tasks])
            assert engine.batches == [[0], [3, 4]]

    run(test())


def test_queue_of_nothing_but_cancelled_items_is_not_computed() -> None:
    engine = GatedEngine()

    async def test() -> None:
        with queue_before(engine) as queue:
            first = await while_computing_nought(queue, engine)
            for task in await submitted(queue, 1, 2):
                task.cancel()
            engine.gate.set()
            await first
            assert (await queue.submit(3)).result == 6
            assert engine.batches == [[0], [3]]

    run(test())


def test_item_cancelled_while_it_is_computed_leaves_the_others_alone() -> None:
    engine = GatedEngine()

    async def test() -> None:
        with queue_before(engine) as queue:
            computed = await while_computing_nought(queue, engine)
            others = await submitted(queue, 1, 2)
            computed.cancel()
            engine.gate.set()
            assert await results(others) == [2, 4]
            assert computed.cancelled()

    run(test())


def test_depth_counts_what_waits() -> None:
    engine = GatedEngine()
    changes: list[int] = []

    async def test() -> None:
        with queue_before(engine, on_depth_change=changes.append) as queue:
            first = await while_computing_nought(queue, engine)
            assert changes == [1, -1]
            others = await submitted(queue, 1, 2, 3)
            assert sum(changes) == 3
            engine.gate.set()
            await results([first, *others])
            assert sum(changes) == 0

    run(test())


def test_depth_returns_to_nought_whatever_happens() -> None:
    engine = PickyGatedEngine()
    changes: list[int] = []

    async def test() -> None:
        with queue_before(engine, limit=4, on_depth_change=changes.append) as queue:
            first = await while_computing_nought(queue, engine)
            tasks = await submitted(queue, 1, -2, 3, 4, 5)
            tasks[2].cancel()
            engine.gate.set()
            outcomes = await results([first, *tasks])
            kinds = [type(outcome).__name__ for outcome in outcomes]
            assert kinds == ["int", "int", "ValueError", "CancelledError", "int", "Unavailable"]

    run(test())
    assert set(changes) == {1, -1}
    assert sum(changes) == 0


def test_every_one_of_many_gets_its_own_answer() -> None:
    engine = DoublingEngine()

    async def test() -> None:
        with queue_before(engine, max_batch_size=32, limit=1000) as queue:
            timed = await asyncio.gather(*(queue.submit(item) for item in range(500)))
            assert [one.result for one in timed] == [2 * item for item in range(500)]

    run(test())
    assert [item for batch in engine.batches for item in batch] == list(range(500))
