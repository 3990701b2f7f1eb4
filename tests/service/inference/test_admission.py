import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from service.errors import TooLarge, Unavailable
from service.inference.admission import COMPUTE_SHARE, Admission
from service.inference.work import SHORT_S


@dataclass
class Caller:
    """A request with so many seconds left."""

    deadline: float = math.inf

    def is_gone(self) -> bool:
        return False


def within(seconds: float) -> Caller:
    """A request that leaves so many seconds to compute."""
    return Caller(seconds / COMPUTE_SHARE)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands at 0."""
    fake = SimpleNamespace(perf_counter=lambda: 0.0)
    monkeypatch.setattr("service.inference.admission.time", fake)


def admission(*, limit: int = 100, timeout_s: float = 30, item_s: float = 0) -> Admission:
    made = Admission("denoiser", limit, timeout_s)
    made.expect_each(item_s)
    return made


def retry_after_s(made: Admission, cost_s: float, deadline: float) -> int | None:
    """What an item is told that is refused; None if it is taken."""
    try:
        made.check_time(cost_s, within(deadline))
    except Unavailable as refused:
        return refused.retry_after_s
    return None


def test_item_that_would_be_too_late_is_refused_and_told_when_it_would_fit() -> None:
    made = admission()
    for _ in range(6):
        made.work.add(4.5)
    assert retry_after_s(made, 3.0, deadline=30) is None
    assert retry_after_s(made, 4.5, deadline=30) == 2
    assert retry_after_s(made, 4.5, deadline=20) == 12
    expected = "denoiser is overloaded: expected an answer within 25 s, it would take 31.5 s"
    with pytest.raises(Unavailable, match=expected):
        made.check_time(4.5, within(20))


def test_item_that_only_fits_an_idle_queue_is_told_when_it_will_be_idle() -> None:
    made = admission()
    made.work.add(5.0)
    assert retry_after_s(made, 50.0, deadline=30) == 5


def test_seconds_to_wait_are_from_1_to_60() -> None:
    made = admission()
    made.work.add(500.0)
    assert retry_after_s(made, 1.0, deadline=30) == 60
    assert retry_after_s(made, 1.0, deadline=500.9) == 1


def test_item_that_nothing_is_before_may_try() -> None:
    assert retry_after_s(admission(), 500.0, deadline=0.01) is None


def test_small_item_is_taken_whatever_long_ones_wait() -> None:
    made = admission()
    made.work.add(500.0)
    assert retry_after_s(made, SHORT_S, deadline=1) is None


def test_slower_computations_are_reckoned_with() -> None:
    made = admission()
    for _ in range(6):
        made.work.add(4.0)
    assert retry_after_s(made, 4.0, deadline=30) is None
    for _ in range(50):
        made.computed(1, 1.0, 1.5)
    assert retry_after_s(made, 4.0, deadline=30) == 12


def test_what_is_being_decoded_counts_until_it_is_done() -> None:
    made = admission()
    with made.place(within(30)) as place:
        place.expect(20.0)
        assert retry_after_s(made, 20.0, deadline=30) == 10
        with pytest.raises(Unavailable), made.place(within(30)) as refused:
            refused.expect(20.0)
    assert retry_after_s(made, 20.0, deadline=30) is None
    assert made.reserved == 0


def test_item_that_waits_for_memory_is_looked_at_again_by_what_was_learned() -> None:
    made = admission()
    made.work.add(4.0)
    with made.place(Caller(13)) as second:
        second.expect(4.0)
        with made.place(within(100)) as later:
            later.expect(4.0)
            made.work.slowdown = 1.6
            second.check()  # what came after it is not before it
            made.work.slowdown = 1.7
            with pytest.raises(Unavailable, match=r"it would take 13\.6 s"):
                second.check()
            later.check()
    assert made.undecoded_s == 0


def test_items_of_one_size_that_are_being_decoded_count() -> None:
    made = admission(item_s=1.0)
    with made.place(Caller(30)), made.place(Caller(30)), made.place(Caller(30)):
        made.place(within(4))
        with pytest.raises(Unavailable, match="it would take 4 s"):
            made.place(within(3.9))


@pytest.mark.parametrize(("item_s", "room"), [(0.0, 100), (0.1, 100), (0.5, 60), (50.0, 1)])
def test_only_as_many_may_wait_as_are_computed_in_time(item_s: float, room: int) -> None:
    made = admission(item_s=item_s)
    made.waiting = room - 1
    made.check_room(1)
    made.waiting = room
    with pytest.raises(Unavailable, match=f"at most {room} waiting images, got {room + 1}"):
        made.check_room(1)


def test_fewer_may_wait_where_computations_are_slow() -> None:
    made = admission(item_s=0.3)
    made.waiting = 60
    made.check_room(1)
    for _ in range(50):
        made.computed(1, 1.0, 2.0)
    with pytest.raises(Unavailable, match="at most 50 waiting"):
        made.check_room(1)


def test_more_than_may_ever_wait_are_too_many() -> None:
    with pytest.raises(TooLarge, match="at most 100 images at once, got 101"):
        admission().check_room(101)


def test_small_item_teaches_nothing_where_items_differ_in_size() -> None:
    made = admission()
    made.computed(1, SHORT_S, 1.0)
    assert made.work.slowdown == 1
    alike = admission(item_s=SHORT_S)
    alike.computed(1, SHORT_S, 1.0)
    assert alike.work.slowdown > 1


def test_where_a_full_queue_is_no_wait_no_time_is_looked_at() -> None:
    made = admission(item_s=SHORT_S / 200)
    assert made.item_s == 0
    with made.place(Caller(30)):
        made.place(Caller(0))
