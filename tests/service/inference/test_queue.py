import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import Context
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TypeVarTuple

import pytest

from service.errors import ClientGone, DeadlinePassed, TooLarge, Unavailable
from service.inference.entry import Timed, Waiting
from service.inference.plan import HANDOVER_S
from service.inference.queue import GONE_CHECK_AFTER_S, BatchQueue

pytestmark = pytest.mark.anyio

Queue = BatchQueue[int, int]
Task = asyncio.Task[Timed[int]]
Arguments = TypeVarTuple("Arguments")
Compute = Callable[[Sequence[int]], Sequence[int]]
HANGS_S = 30  # reached only where a test fails
SHORT_S, LONG_S = HANDOVER_S / 10, HANDOVER_S * 10


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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


@dataclass
class Caller:
    """A request that an item belongs to."""

    deadline: float = math.inf
    gone: bool = False

    def is_gone(self) -> bool:
        return self.gone


@dataclass
class Recorder:
    """A gauge or a histogram that records its values."""

    values: list[float] = field(default_factory=list)

    def set(self, value: float) -> None:
        self.values.append(value)

    def observe(self, value: float) -> None:
        self.values.append(value)


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
    depth: Recorder | None = None,
    batch_sizes: Recorder | None = None,
) -> Iterator[Queue]:
    queue = Queue(
        "numbers",
        compute,
        max_batch_size=max_batch_size,
        limit=limit,
        depth=depth or Recorder(),
        batch_sizes=batch_sizes or Recorder(),
    )
    try:
        yield queue
    finally:
        queue.close()


@contextmanager
def inline_queue(compute: Compute, *, largest: int = 8) -> Iterator[Queue]:
    """A queue that computes on the event loop, up to `largest` at a time."""
    with queue_before(compute) as queue:
        queue.plan_by({size: SHORT_S if size <= largest else LONG_S for size in (1, 2, 4, 8)})
        yield queue


async def submitted(queue: Queue, *items: int, caller: Waiting | None = None) -> list[Task]:
    """Tasks that have all reached the queue."""
    request = caller or Caller()
    tasks = [asyncio.create_task(queue.submit(item, request)) for item in items]
    await asyncio.sleep(0)
    return tasks


async def results(tasks: Sequence[Task]) -> list[int | BaseException]:
    """The result or the error of every task, in order."""
    async with asyncio.timeout(HANGS_S):
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    return [outcome.result if isinstance(outcome, Timed) else outcome for outcome in outcomes]


@dataclass
class Held:
    """A queue whose engine is busy with item 0 until it is released."""

    queue: Queue
    engine: GatedEngine
    first: Task

    async def submitted(self, *items: int, caller: Waiting | None = None) -> list[Task]:
        return await submitted(self.queue, *items, caller=caller)

    async def released(self, *tasks: Task) -> list[int | BaseException]:
        """The outcomes of these tasks, once the first is computed."""
        self.engine.gate.set()
        assert await results([self.first]) == [0]
        return await results(tasks)


@asynccontextmanager
async def held(
    engine: GatedEngine | None = None,
    *,
    max_batch_size: int = 8,
    limit: int = 100,
    depth: Recorder | None = None,
    batch_sizes: Recorder | None = None,
) -> AsyncIterator[Held]:
    engine = engine or GatedEngine()
    with queue_before(
        engine, max_batch_size=max_batch_size, limit=limit, depth=depth, batch_sizes=batch_sizes
    ) as queue:
        (first,) = await submitted(queue, 0)
        assert await asyncio.to_thread(engine.busy.wait, HANGS_S)
        try:
            yield Held(queue, engine, first)
        finally:
            engine.gate.set()


async def test_lone_item_starts_at_once() -> None:
    async with held() as queue:
        assert queue.engine.batches == [[0]]


def test_no_timer_makes_an_item_wait() -> None:
    with (
        asyncio.Runner(loop_factory=TimerCountingLoop) as runner,
        queue_before(DoublingEngine()) as queue,
    ):
        assert runner.run(queue.submit(1, Caller())).result == 2
        loop = runner.get_loop()
        assert isinstance(loop, TimerCountingLoop)
        assert loop.timers == 0


async def test_arrivals_during_a_batch_form_the_next() -> None:
    async with held() as queue:
        tasks = await queue.submitted(1, 2, 3)
        assert await queue.released(*tasks) == [2, 4, 6]
        assert queue.engine.batches == [[0], [1, 2, 3]]


async def test_arrivals_one_after_the_other_form_one_batch() -> None:
    async with held() as queue:
        tasks = [task for item in (1, 2, 3) for task in await queue.submitted(item)]
        await queue.released(*tasks)
        assert queue.engine.batches == [[0], [1, 2, 3]]


async def test_batch_is_never_larger_than_allowed_and_order_is_kept() -> None:
    async with held(max_batch_size=3) as queue:
        tasks = await queue.submitted(*range(1, 8))
        assert await queue.released(*tasks) == [2, 4, 6, 8, 10, 12, 14]
        assert queue.engine.batches == [[0], [1, 2, 3], [4, 5, 6], [7]]


async def test_result_has_the_size_of_its_batch() -> None:
    async with held() as queue:
        tasks = await queue.submitted(1, 2, 3)
        await queue.released(*tasks)
        sizes = [(await task).batch_size for task in (queue.first, *tasks)]
        assert sizes == [1, 3, 3, 3]


async def test_result_has_the_seconds_that_its_item_waited_and_was_computed() -> None:
    with queue_before(DoublingEngine()) as queue:
        timed = await queue.submit(1, Caller())
        assert timed.queue_s >= 0
        assert timed.predict_s > 0


async def test_idle_queue_starts_again() -> None:
    engine = DoublingEngine()
    with queue_before(engine) as queue:
        assert [(await queue.submit(item, Caller())).result for item in (1, 2, 3)] == [2, 4, 6]
        assert engine.batches == [[1], [2], [3]]


async def test_each_of_many_items_gets_its_own_result() -> None:
    engine = DoublingEngine()
    with queue_before(engine, max_batch_size=32, limit=1000) as queue:
        outcomes = await results(await submitted(queue, *range(500)))
        assert outcomes == [2 * item for item in range(500)]
    assert [item for batch in engine.batches for item in batch] == list(range(500))


def names_of_threads(names: set[str]) -> Compute:
    """An engine that returns its items and records the threads that it runs on."""

    def compute(items: Sequence[int]) -> Sequence[int]:
        names.add(threading.current_thread().name)
        return items

    return compute


async def test_engine_runs_in_one_thread_of_its_own() -> None:
    names: set[str] = set()
    with queue_before(names_of_threads(names), max_batch_size=1) as queue:
        await results(await submitted(queue, *range(20)))
    assert names == {"engine-numbers_0"}


async def test_short_batches_run_on_the_event_loop() -> None:
    names: set[str] = set()
    with inline_queue(names_of_threads(names)) as queue:
        await results(await submitted(queue, *range(20)))
    assert names == {threading.current_thread().name}


async def test_order_is_kept_on_the_event_loop() -> None:
    engine = DoublingEngine()
    with inline_queue(engine, largest=2) as queue:
        assert await results(await submitted(queue, *range(5))) == [0, 2, 4, 6, 8]
    assert engine.batches == [[0, 1], [2, 3], [4]]


async def test_event_loop_is_free_between_batches() -> None:
    engine = DoublingEngine()
    seen = []
    with inline_queue(engine, largest=1) as queue:
        tasks = await submitted(queue, *range(6))
        while not all(task.done() for task in tasks):
            seen.append(len(engine.batches))
            await asyncio.sleep(0)
    assert set(seen) >= set(range(1, 6))


async def test_arrivals_between_batches_on_the_event_loop_are_computed_too() -> None:
    engine = DoublingEngine()
    with inline_queue(engine, largest=1) as queue:
        tasks = [task for item in range(6) for task in await submitted(queue, item)]
        assert await results(tasks) == [0, 2, 4, 6, 8, 10]
        assert (await queue.submit(6, Caller())).result == 12


async def test_bad_item_among_many_fails_alone() -> None:
    async with held(PickyGatedEngine()) as queue:
        tasks = await queue.submitted(1, 2, -3, 4)
        one, two, bad, four = await queue.released(*tasks)
        assert [one, two, four] == [2, 4, 8]
        assert isinstance(bad, ValueError)
        assert str(bad) == "expected a number from 0, got -3"
        assert queue.engine.batches == [[0], [1, 2, -3, 4], [1], [2], [-3], [4]]


async def test_bad_item_among_many_fails_alone_on_the_event_loop() -> None:
    with inline_queue(PickyEngine()) as queue:
        one, bad, three = await results(await submitted(queue, 1, -2, 3))
    assert [one, three] == [2, 6]
    assert str(bad) == "expected a number from 0, got -2"


async def test_each_item_gets_its_own_error_where_all_fail() -> None:
    with queue_before(PickyEngine()) as queue:
        outcomes = await results(await submitted(queue, -1, -2, -3))
    assert [str(outcome) for outcome in outcomes] == [
        f"expected a number from 0, got {item}" for item in (-1, -2, -3)
    ]


async def test_lone_failing_item_is_not_computed_twice() -> None:
    engine = PickyEngine()
    with queue_before(engine) as queue:
        with pytest.raises(ValueError, match="got -1"):
            await queue.submit(-1, Caller())
        assert engine.batches == [[-1]]


async def test_engine_that_loses_an_item_fails() -> None:
    with queue_before(lambda items: items[1:]) as queue:
        for outcome in await results(await submitted(queue, 1, 2)):
            assert isinstance(outcome, RuntimeError)


async def test_queue_continues_after_a_failure() -> None:
    with queue_before(PickyEngine()) as queue:
        await results(await submitted(queue, -1, -2))
        assert (await queue.submit(3, Caller())).result == 6


async def test_item_beyond_the_limit_is_refused_at_once() -> None:
    async with held(limit=2) as queue:
        tasks = await queue.submitted(1, 2)
        expected = "numbers is overloaded: expected at most 2 waiting images, got 3"
        with pytest.raises(Unavailable, match=expected):
            await queue.queue.submit(3, Caller())
        assert await queue.released(*tasks) == [2, 4]
        assert queue.engine.batches == [[0], [1, 2]]


async def test_queue_takes_items_again_after_an_overload() -> None:
    async with held(limit=1) as queue:
        one, refused = await queue.released(*await queue.submitted(1, 2))
        assert one == 2
        assert isinstance(refused, Unavailable)
        assert (await queue.queue.submit(4, Caller())).result == 8


async def test_room_for_several_items_is_checked_at_once() -> None:
    async with held(limit=3) as queue:
        await queue.submitted(1, 2)
        queue.queue.admission.check_room(1)
        with pytest.raises(Unavailable, match="at most 3 waiting images, got 4") as overload:
            queue.queue.admission.check_room(2)
        assert overload.value.retry_after_s >= 1
        with pytest.raises(TooLarge, match="at most 3 images at once, got 4"):
            queue.queue.admission.check_room(4)


async def test_full_queue_has_room_for_no_item_until_some_are_done() -> None:
    async with held(limit=2) as queue:
        tasks = await queue.submitted(1, 2)
        with pytest.raises(Unavailable, match="at most 2 waiting images, got 3") as overload:
            queue.queue.admission.check_room(1)
        assert overload.value.retry_after_s >= 1
        await queue.released(*tasks)
        queue.queue.admission.check_room(1)


async def test_idle_queue_has_room_for_as_many_as_its_limit() -> None:
    with queue_before(DoublingEngine(), limit=3) as queue:
        queue.admission.check_room(3)
        with pytest.raises(TooLarge):
            queue.admission.check_room(4)


@pytest.mark.parametrize(
    ("batch_s", "expected"), [(4, [1, 6, 4, 2]), (0.001, [1, 1, 1, 1]), (1000, [1, 60, 60, 60])]
)
async def test_overload_says_when_half_of_the_waiting_items_will_be_done(
    batch_s: float, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    for module in ("queue", "admission"):
        fake = SimpleNamespace(perf_counter=lambda: clock[0])
        monkeypatch.setattr(f"service.inference.{module}.time", fake)
    told: list[int] = []

    def compute(items: Sequence[int]) -> Sequence[int]:
        try:
            queue.admission.check_room(queue.admission.limit)
        except Unavailable as overload:
            told.append(overload.retry_after_s)
        clock[0] += batch_s
        return items

    with queue_before(compute, max_batch_size=1, limit=5) as queue:
        await results(await submitted(queue, *range(5)))
    assert told == expected  # the rate is unknown at first


async def test_item_whose_deadline_passed_in_the_queue_is_not_computed() -> None:
    async with held() as queue:
        one, late, three = [
            *await queue.submitted(1),
            *await queue.submitted(2, caller=Caller(deadline=time.perf_counter())),
            *await queue.submitted(3),
        ]
        computed, dropped, also_computed = await queue.released(one, late, three)
        assert [computed, also_computed] == [2, 6]
        assert isinstance(dropped, DeadlinePassed)
        assert queue.engine.batches == [[0], [1, 3]]


async def test_item_whose_client_has_gone_is_not_computed() -> None:
    async with held() as queue:
        gone = Caller()
        tasks = [*await queue.submitted(1, 2, caller=gone), *await queue.submitted(3)]
        gone.gone = True
        time.sleep(2 * GONE_CHECK_AFTER_S)
        one, two, three = await queue.released(*tasks)
        assert isinstance(one, ClientGone)
        assert isinstance(two, ClientGone)
        assert three == 6
        assert queue.engine.batches == [[0], [3]]


async def test_queue_continues_after_dropping_every_item() -> None:
    async with held() as queue:
        (late,) = await queue.submitted(1, caller=Caller(deadline=time.perf_counter()))
        await queue.released(late)
        assert (await queue.queue.submit(2, Caller())).result == 4
        assert queue.engine.batches == [[0], [2]]


async def test_cancelled_item_is_not_computed() -> None:
    async with held() as queue:
        one, two, three = await queue.submitted(1, 2, 3)
        two.cancel()
        assert await queue.released(one, three) == [2, 6]
        assert queue.engine.batches == [[0], [1, 3]]
        assert two.cancelled()


async def test_cancelled_items_leave_room_in_the_queue_at_once() -> None:
    async with held(limit=2) as queue:
        for task in await queue.submitted(1, 2):
            task.cancel()
        await asyncio.sleep(0)
        queue.queue.admission.check_room(2)
        tasks = await queue.submitted(3, 4)
        assert not queue.first.done()
        assert await queue.released(*tasks) == [6, 8]


async def test_cancelled_items_leave_room_in_the_batch() -> None:
    async with held(max_batch_size=2) as queue:
        one, two, three, four = await queue.submitted(1, 2, 3, 4)
        one.cancel()
        two.cancel()
        await queue.released(three, four)
        assert queue.engine.batches == [[0], [3, 4]]


async def test_queue_of_only_cancelled_items_is_not_computed() -> None:
    async with held() as queue:
        for task in await queue.submitted(1, 2):
            task.cancel()
        await queue.released()
        assert (await queue.queue.submit(3, Caller())).result == 6
        assert queue.engine.batches == [[0], [3]]


async def test_item_cancelled_while_it_is_computed_leaves_the_others_alone() -> None:
    async with held() as queue:
        tasks = await queue.submitted(1, 2)
        queue.first.cancel()
        queue.engine.gate.set()
        assert await results(tasks) == [2, 4]
        assert queue.first.cancelled()


async def test_depth_is_the_number_of_waiting_items() -> None:
    depth = Recorder()
    async with held(depth=depth) as queue:
        assert depth.values == [1, 0]
        tasks = await queue.submitted(1, 2, 3)
        assert depth.values[-1] == 3
        tasks[0].cancel()
        await asyncio.sleep(0)
        assert depth.values[-1] == 2
        await queue.released(*tasks)
        assert depth.values[-1] == 0


async def test_depth_returns_to_zero_whatever_happens() -> None:
    depth = Recorder()
    async with held(PickyGatedEngine(), limit=5, depth=depth) as queue:
        tasks = [
            *await queue.submitted(1, -2, 3, 4),
            *await queue.submitted(5, caller=Caller(deadline=time.perf_counter())),
            *await queue.submitted(6),
        ]
        tasks[2].cancel()
        outcomes = [type(outcome).__name__ for outcome in await queue.released(*tasks)]
        assert outcomes == [
            *("int", "ValueError", "CancelledError", "int", "DeadlinePassed", "Unavailable")
        ]
    assert min(depth.values) == depth.values[-1] == 0
    assert max(depth.values) == 5


async def test_size_of_every_batch_is_counted_once() -> None:
    sizes = Recorder()
    async with held(PickyGatedEngine(), max_batch_size=4, batch_sizes=sizes) as queue:
        tasks = [
            *await queue.submitted(1, -2, 3, 4, 5),
            *await queue.submitted(6, caller=Caller(deadline=time.perf_counter())),
        ]
        await queue.released(*tasks)
    assert sizes.values == [1, 4, 1]


async def test_size_of_every_batch_on_the_event_loop_is_counted_once() -> None:
    sizes = Recorder()
    with queue_before(DoublingEngine(), batch_sizes=sizes) as queue:
        queue.plan_by({1: SHORT_S, 2: SHORT_S, 8: LONG_S})
        await results(await submitted(queue, *range(5)))
    assert sizes.values == [2, 2, 1]


@pytest.mark.parametrize("inline", [False, True])
def test_queue_goes_on_in_the_next_loop_where_one_ended_before_its_batch(inline: bool) -> None:
    engine = GatedEngine()
    with queue_before(engine) as queue:

        async def leave() -> None:
            await submitted(queue, 1)
            assert await asyncio.to_thread(engine.busy.wait, HANGS_S)

        async def go_on() -> list[int | BaseException]:
            tasks = await submitted(queue, 2, 3)
            await asyncio.sleep(0)
            assert engine.batches == [[1]]  # which an engine is not to be disturbed in
            engine.gate.set()
            return await results(tasks)

        asyncio.run(leave())
        if inline:
            queue.plan_by({8: SHORT_S})
        assert asyncio.run(go_on()) == [4, 6]
    assert engine.batches == [[1], [2, 3]]
