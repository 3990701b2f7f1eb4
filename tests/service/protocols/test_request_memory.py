"""The memory that a body takes: it is waited for before the body is read, and is not kept idle."""

import asyncio

import pytest
from starlette.types import Message

from service.errors import TooLarge, TooSlow, Unavailable
from service.inference.memory import Memory
from service.protocols import pace
from service.protocols.request import Request
from service.settings import Settings
from tests.asgi import body_part, request

pytestmark = pytest.mark.anyio

BUDGET = 4_000_000  # of which bodies have a quarter
LIMIT = 1_000_000
MAX = 10_000_000
PERIOD_S = 0.1
HANGS_S = 10


def memory() -> Memory:
    return Memory(Settings(workers=1, decode_memory_bytes=BUDGET), None, 0)


def held(of: Memory) -> int:
    return of.share_of_body(1).budget.used()


def asked(of: Memory, *messages: Message, size: int | None = None) -> Request:
    made = request(*messages, headers={} if size is None else {"Content-Length": str(size)})
    made.share_of_body = of.share_of_body
    return made


async def test_declared_body_is_held_in_full_until_the_request_is_answered() -> None:
    ours = memory()
    one = asked(ours, body_part(b"a" * 100_000, more=True), size=400_000)
    reading = asyncio.create_task(one.body(MAX))
    await asyncio.sleep(0.02)
    assert held(ours) == 400_000
    reading.cancel()
    one.release()
    assert held(ours) == 0


async def test_declared_body_is_not_read_before_there_is_memory_for_it() -> None:
    ours = memory()
    first = asked(ours, body_part(b"a" * 600_000), size=600_000)
    await first.body(MAX)
    second = asked(ours, body_part(b"b" * 600_000), size=600_000)
    reading = asyncio.create_task(second.body(MAX))
    await asyncio.sleep(0.05)
    assert not reading.done()
    assert held(ours) == 600_000
    first.release()
    assert await asyncio.wait_for(reading, HANGS_S) == b"b" * 600_000


async def test_form_is_held_like_an_image() -> None:
    ours = memory()
    form = asked(ours, body_part(b"a" * 100_000), size=100_000)
    assert [len(part) async for part in form.stream(MAX)] == [100_000]
    assert held(ours) == 100_000


async def test_body_that_never_fits_is_refused_with_the_setting() -> None:
    with pytest.raises(TooLarge, match=f"{LIMIT} bytes of memory .a quarter of VITRINE_DECODE_MEM"):
        await asked(memory(), size=LIMIT + 1).body(MAX)


async def test_body_of_undeclared_size_takes_memory_as_it_comes() -> None:
    ours = memory()
    parts = [body_part(b"a" * 300_000, more=True), body_part(b"a" * 300_000)]
    assert len(await asked(ours, *parts).body(MAX)) == 600_000
    assert 600_000 <= held(ours) <= LIMIT


async def test_body_of_undeclared_size_that_finds_no_memory_does_not_wait_with_its_part() -> None:
    ours = memory()
    await asked(ours, body_part(b"a" * 900_000), size=900_000).body(MAX)
    parts = [body_part(b"a" * 300_000, more=True), body_part(b"a")]
    with pytest.raises(Unavailable, match="no memory for more than 300000 bytes") as refused:
        await asked(ours, *parts).body(MAX)
    assert refused.value.headers == {"Retry-After": "1"}


async def test_body_of_undeclared_size_that_never_fits_is_too_large() -> None:
    with pytest.raises(TooLarge, match="at most 1000000 bytes"):
        await asked(memory(), body_part(b"a" * (LIMIT + 1), more=True), body_part(b"")).body(MAX)


async def test_small_body_holds_nothing() -> None:
    ours = memory()
    await asked(ours, body_part(b"a" * 64 * 1024), size=64 * 1024).body(MAX)
    assert held(ours) == 0


async def test_large_bodies_that_do_not_end_leave_memory_to_smaller_ones() -> None:
    ours = Memory(Settings(workers=1, decode_memory_bytes=40_000_000), None, 0)
    unfinished = [asked(ours, size=2_000_000) for _ in range(5)]
    reading = [asyncio.create_task(each.body(MAX)) for each in unfinished]
    await asyncio.sleep(0.02)
    await asyncio.wait_for(asked(ours, body_part(b"a" * 900_000), size=900_000).body(MAX), HANGS_S)
    for each in reading:
        each.cancel()


@pytest.fixture
def short_period(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "PERIOD_S", PERIOD_S)


def dribbling(asked: Request, every_s: float) -> Request:
    """The same request, whose messages come one after the other, each so many seconds later."""
    receive = asked._receive

    async def later() -> Message:
        await asyncio.sleep(every_s)
        return await receive()

    asked._receive = later
    return asked


async def whole_form(asked: Request) -> bytes:
    return b"".join([part async for part in asked.stream(MAX)])


STALLED = {
    "nothing of it": ([], 400_000),
    "a part": ([body_part(b"a" * 1000, more=True)], 400_000),
    "all but its end": ([body_part(b"a" * 399_999, more=True)], 400_000),
    "undeclared": ([body_part(b"a" * 70_000, more=True)], None),
}


@pytest.mark.usefixtures("short_period")
@pytest.mark.parametrize(("parts", "size"), STALLED.values(), ids=STALLED)
@pytest.mark.parametrize("is_form", [False, True])
async def test_body_that_does_not_go_on_coming_gives_its_memory_back(
    parts: list[Message], size: int | None, is_form: bool
) -> None:
    ours = memory()
    stalled = asked(ours, *parts, size=size)
    reading = whole_form(stalled) if is_form else stalled.body(MAX)
    with pytest.raises(TooSlow, match=r"expected 65536 bytes of the body, or its end, in 0.1 s"):
        await asyncio.wait_for(reading, HANGS_S)
    assert held(ours) > 0
    stalled.release()
    assert held(ours) == 0


@pytest.mark.usefixtures("short_period")
async def test_body_that_dribbles_in_is_as_slow_as_one_that_stops() -> None:
    parts = [body_part(b"a" * 1000, more=True)] * 1000
    slow = dribbling(asked(memory(), *parts, size=900_000), PERIOD_S / 5)
    with pytest.raises(TooSlow, match=r"got \d000 bytes"):
        await asyncio.wait_for(slow.body(MAX), HANGS_S)


@pytest.mark.usefixtures("short_period")
async def test_body_that_goes_on_coming_may_take_many_periods() -> None:
    parts = [body_part(b"a" * pace.MIN_BYTES, more=True)] * 6 + [body_part(b"end")]
    steady = dribbling(asked(memory(), *parts, size=400_000), PERIOD_S / 2)
    assert len(await asyncio.wait_for(steady.body(MAX), HANGS_S)) == 6 * pace.MIN_BYTES + 3


@pytest.mark.usefixtures("short_period")
async def test_small_body_may_dribble_in() -> None:
    parts = [body_part(b"a", more=True)] * 6 + [body_part(b"end")]
    slow = dribbling(asked(memory(), *parts, size=9), PERIOD_S / 2)
    assert await asyncio.wait_for(slow.body(MAX), HANGS_S) == b"aaaaaaend"


@pytest.mark.usefixtures("short_period")
async def test_waiting_for_memory_is_no_slowness_of_the_client() -> None:
    ours = memory()
    first = asked(ours, body_part(b"a" * 600_000), size=600_000)
    await first.body(MAX)
    second = asked(ours, body_part(b"b" * 600_000), size=600_000)
    reading = asyncio.create_task(second.body(MAX))
    await asyncio.sleep(3 * PERIOD_S)
    first.release()
    assert len(await asyncio.wait_for(reading, HANGS_S)) == 600_000


@pytest.mark.usefixtures("short_period")
async def test_client_may_wait_for_its_answer_as_long_as_it_likes() -> None:
    whole = asked(memory(), body_part(b"a" * 400_000), size=400_000)
    await whole.body(MAX)
    await asyncio.sleep(2 * PERIOD_S)
    assert not whole.call.is_gone()
    whole.close()
