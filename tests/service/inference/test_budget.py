"""Bytes that several workers may hold together, and who waits for them."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from service.errors import ClientGone, DeadlinePassed, TooLarge
from service.inference.budget import PATIENCE_S, POLL_S, Budget, Reservation, Share
from service.shared import Doubles, shared_doubles

LIMIT = 1000
HANGS_S = 10
NOW = 0.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def held() -> Doubles:
    """The bytes of two workers, and since when somebody waits in them."""
    return shared_doubles(None, "held", 4)


def share(held: Doubles, worker: int = 0, limit: int = LIMIT) -> Share:
    return Share(Budget(LIMIT, "the whole of a setting", held, worker), limit)


def stays() -> bool:
    return False


async def reserve(of: Share, count: int, is_gone: Callable[[], bool] = stays) -> Reservation:
    async with asyncio.timeout(HANGS_S):
        return await of.reserve(count, "an image", is_gone)


async def soon(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANGS_S):
        while not done():
            await asyncio.sleep(0.001)


@pytest.mark.anyio
async def test_what_fits_does_not_wait(held: Doubles) -> None:
    first, second = await reserve(share(held, 0), 600), await reserve(share(held, 1), 400)
    assert list(held[:2]) == [600, 400]
    first.release()
    second.shrink_to(100)
    assert list(held[:2]) == [0, 100]


@pytest.mark.anyio
async def test_what_does_not_fit_beside_another_worker_waits_until_that_gives_back(
    held: Doubles,
) -> None:
    other = await reserve(share(held, 1), 600)
    waiting = asyncio.create_task(reserve(share(held, 0), 500))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert list(held[:2]) == [0, 600]
    other.release()
    (await waiting).release()
    assert list(held[:2]) == [0, 0]


@pytest.mark.anyio
async def test_what_can_never_fit_is_refused_with_the_bytes_the_limit_and_the_setting(
    held: Doubles,
) -> None:
    with pytest.raises(TooLarge) as refused:
        await reserve(share(held), LIMIT + 1)
    assert str(refused.value) == (
        "expected an image that takes at most 1000 bytes of memory (the whole of a setting), "
        "got one that takes 1001 bytes"
    )
    assert list(held[:2]) == [0, 0]


@pytest.mark.anyio
async def test_first_to_come_is_served_first_though_a_later_one_would_fit(held: Doubles) -> None:
    ours = share(held)
    before = await reserve(ours, 900)
    served: list[str] = []

    async def ask(name: str, count: int) -> None:
        await reserve(ours, count)
        served.append(name)

    large = asyncio.create_task(ask("large", 800))
    await asyncio.sleep(0)
    small = asyncio.create_task(ask("small", 50))
    await asyncio.sleep(0.05)
    assert served == []
    before.release()
    await asyncio.wait_for(asyncio.gather(large, small), HANGS_S)
    assert served == ["large", "small"]


@pytest.mark.anyio
async def test_one_who_stops_waiting_leaves_the_line_to_the_next(held: Doubles) -> None:
    ours = share(held)
    before = await reserve(ours, 900)
    first, second, third = (asyncio.create_task(reserve(ours, 800)) for _ in range(3))
    await asyncio.sleep(0.02)
    for waiting in (first, second):
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    before.release()
    (await third).release()
    assert list(held[:2]) == [0, 0]


@pytest.mark.anyio
async def test_client_that_leaves_stops_waiting(held: Doubles) -> None:
    ours = share(held)
    await reserve(ours, 900)
    with pytest.raises(ClientGone):
        await reserve(ours, 800, is_gone=lambda: True)
    assert list(held[:2]) == [900, 0]


@pytest.mark.anyio
async def test_one_for_whom_waiting_is_in_vain_leaves_the_line_to_the_next(held: Doubles) -> None:
    ours = share(held)
    before = await reserve(ours, 900)
    hopeless = asyncio.create_task(ours.reserve(800, "an image", stays, give_up))
    later = asyncio.create_task(reserve(ours, 800))
    with pytest.raises(DeadlinePassed):
        await asyncio.wait_for(hopeless, HANGS_S)
    before.release()
    (await later).release()
    assert list(held[:2]) == [0, 0]


def give_up() -> None:
    raise DeadlinePassed("too late")


@pytest.mark.anyio
async def test_flood_on_one_model_leaves_memory_to_another(held: Doubles) -> None:
    one = share(held, limit=500)
    other = Share(one.budget, 500)
    await reserve(one, 400)
    flood = [asyncio.create_task(reserve(one, 400)) for _ in range(3)]
    await asyncio.sleep(1.5 * PATIENCE_S)  # the flood waits for itself, however long
    await reserve(other, 500)
    for waiting in flood:
        assert not waiting.done()
        waiting.cancel()


@pytest.mark.anyio
async def test_share_that_holds_nothing_may_take_more_than_its_limit(held: Doubles) -> None:
    (await reserve(share(held, limit=500), LIMIT)).release()


@pytest.mark.anyio
async def test_one_who_needs_most_of_the_budget_is_not_kept_out_for_ever(held: Doubles) -> None:
    one, other = share(held, 0), share(held, 1)
    some = await reserve(one, 300), await reserve(one, 300)
    large = asyncio.create_task(reserve(other, 900))
    await asyncio.sleep(2 * PATIENCE_S)
    some[0].release()
    next_one = asyncio.create_task(reserve(one, 300))  # it would fit, and then again the next
    await asyncio.sleep(3 * POLL_S)
    assert not next_one.done()
    (await reserve(Share(one.budget, LIMIT), LIMIT // 100)).release()  # few bytes are let through
    some[1].release()
    (await large).release()
    (await next_one).release()
    assert list(held) == [0, 0, 0, 0]


@pytest.mark.anyio
async def test_one_who_gives_up_keeps_nobody_out(held: Doubles) -> None:
    before = await reserve(share(held, 0), 300)
    large = asyncio.create_task(reserve(share(held, 1), 900))
    await asyncio.sleep(2 * PATIENCE_S)
    large.cancel()
    with pytest.raises(asyncio.CancelledError):
        await large
    (await reserve(share(held, 0), 300)).release()
    before.release()


@pytest.mark.anyio
async def test_reservation_grows_only_as_far_as_it_fits(held: Doubles) -> None:
    growing = await reserve(share(held), 300)
    await reserve(share(held, 1), 600)
    assert growing.grow_to(400)
    assert not growing.grow_to(500)
    growing.release()
    growing.release()  # a second time changes nothing
    assert list(held[:2]) == [0, 600]


def test_worker_that_starts_frees_what_the_killed_one_before_it_held(tmp_path: Path) -> None:
    ours = Budget(LIMIT, "", shared_doubles(tmp_path, "held", 4), 0)
    child = os.fork()
    if child == 0:
        Budget(LIMIT, "", shared_doubles(tmp_path, "held", 4), 1).take(900, NOW)
        os._exit(0)
    os.waitpid(child, 0)
    assert not ours.take(200, NOW)
    Budget(LIMIT, "", shared_doubles(tmp_path, "held", 4), 1)
    assert ours.take(200, NOW)


def test_processes_that_take_at_once_never_hold_more_than_the_limit(tmp_path: Path) -> None:
    """Each keeps what it holds in a second number that only ever says what it was granted."""
    children = []
    for worker in range(3):
        child = os.fork()
        if child == 0:
            os._exit(_take_and_check(tmp_path, worker))
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def _take_and_check(folder: Path, worker: int) -> int:
    budget = Budget(LIMIT, "", shared_doubles(folder, "held", 6), worker)
    granted, random = shared_doubles(folder, "granted", 3), Random(worker)
    for _ in range(20_000):
        count = random.randint(200, 600)
        if budget.take(count, NOW):
            granted[worker] = count
            if sum(granted) > LIMIT:
                return 1
            granted[worker] = 0
            budget.give_back(count)
    return 0
