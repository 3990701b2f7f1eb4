"""A limit on requests a second by token: by a clock that the test sets, in shared memory."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from service.errors import TooManyRequests
from service.protocols.rates import RateLimit
from service.protocols.tokens import Token, Tokens

NOW_S = 123_456.789


def token(name: str = "robot") -> Token:
    return Token(hashlib.sha256(name.encode()).digest(), name, ("predict",))


def limit(per_s: float, folder: Path | None = None) -> RateLimit:
    made = RateLimit(per_s, folder)
    made.watch(Tokens([token(), token("other")]))
    return made


def taken(rate: RateLimit, times: int, now_s: float, name: str = "robot") -> int:
    """How many of so many requests at one time are let through."""
    passed = 0
    for _ in range(times):
        try:
            rate.take(token(name), now_s)
            passed += 1
        except TooManyRequests:
            continue
    return passed


@pytest.mark.parametrize("per_s", [1, 2, 7, 10, 1000, 3.5])
def test_burst_is_what_a_second_allows(per_s: float) -> None:
    assert taken(limit(per_s), 2000, NOW_S) == int(per_s)


@pytest.mark.parametrize("per_s", [0.1, 0.5, 0.9])
def test_less_than_one_a_second_lets_one_through_and_then_waits(per_s: float) -> None:
    rate = limit(per_s)
    assert taken(rate, 5, NOW_S) == 1
    assert taken(rate, 5, NOW_S + 0.95 / per_s) == 0
    assert taken(rate, 5, NOW_S + 1 / per_s) == 1


@pytest.mark.parametrize("per_s", [0.5, 3, 50])
def test_over_a_minute_no_more_than_the_rate_and_one_burst_is_let_through(per_s: float) -> None:
    rate = limit(per_s)
    steps = range(12_000)
    passed = sum(taken(rate, 1, NOW_S + step * 0.005) for step in steps)
    assert abs(passed - (60 * per_s + max(1, per_s))) <= 1


def test_after_a_burst_requests_pass_at_the_rate() -> None:
    rate = limit(4)
    assert taken(rate, 9, NOW_S) == 4
    assert [taken(rate, 9, NOW_S + quarter / 4) for quarter in range(1, 5)] == [1, 1, 1, 1]


def test_refused_requests_do_not_count() -> None:
    rate = limit(2)
    assert taken(rate, 1000, NOW_S) == 2
    assert taken(rate, 1000, NOW_S + 1) == 2


@pytest.mark.parametrize(("per_s", "wait_s"), [(10, 1), (1, 1), (0.25, 4), (0.1, 10)])
def test_refusal_says_what_was_allowed_and_when_to_come_back(per_s: float, wait_s: int) -> None:
    rate = limit(per_s)
    taken(rate, 20, NOW_S)
    with pytest.raises(TooManyRequests) as caught:
        rate.take(token(), NOW_S)
    expected = f"expected at most {per_s:g} requests a second with this token, got more"
    assert str(caught.value) == expected
    assert caught.value.headers == {"Retry-After": str(wait_s)}
    rate.take(token(), NOW_S + wait_s)


def test_every_token_has_a_rate_of_its_own() -> None:
    rate = limit(3)
    assert taken(rate, 5, NOW_S) == 3
    assert taken(rate, 5, NOW_S, "other") == 3


def test_workers_count_together(tmp_path: Path) -> None:
    one, other = limit(5, tmp_path), limit(5, tmp_path)
    assert taken(one, 3, NOW_S) == 3
    assert taken(other, 9, NOW_S) == 2
    assert taken(one, 9, NOW_S) == 0


def test_token_that_is_read_again_keeps_its_count() -> None:
    rate = limit(2)
    assert taken(rate, 5, NOW_S) == 2
    rate.watch(Tokens([token("new"), token()]))
    assert taken(rate, 5, NOW_S) == 0
    assert taken(rate, 5, NOW_S, "new") == 2


def test_folder_from_before_the_machine_was_started_locks_nobody_out(tmp_path: Path) -> None:
    assert taken(limit(2, tmp_path), 5, NOW_S) == 2
    assert taken(limit(2, tmp_path), 5, 10.0) == 2


def test_tokens_take_one_open_file_however_many_they_are(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    rate = RateLimit(2, tmp_path)
    for many in range(3):
        rate.watch(Tokens([token(), *(token(f"{many}-{number}") for number in range(500))]))
        assert len(os.listdir("/proc/self/fd")) == before + 1
    assert [file.name for file in tmp_path.iterdir()] == ["rates"]


def test_token_that_comes_back_has_its_count_and_one_that_is_gone_is_no_error(
    tmp_path: Path,
) -> None:
    rate = RateLimit(2, tmp_path)
    rate.watch(Tokens([token()]))
    assert taken(rate, 5, NOW_S) == 2
    rate.watch(Tokens([token("new")]))
    rate.take(token(), NOW_S)  # was let in before
    assert taken(rate, 5, NOW_S, "new") == 2
    rate.watch(Tokens([token()]))
    assert taken(rate, 5, NOW_S) == 0


def test_workers_that_read_other_tokens_at_the_moment_agree_on_those_of_both(
    tmp_path: Path,
) -> None:
    early, late = RateLimit(2, tmp_path), RateLimit(2, tmp_path)
    late.watch(Tokens([token("gone"), token()]))
    early.watch(Tokens([token("new"), token()]))
    assert taken(early, 5, NOW_S, "new") == 2
    assert taken(late, 5, NOW_S, "gone") == 2
    assert taken(late, 1, NOW_S) == 1
    assert taken(early, 5, NOW_S) == 1
    late.watch(Tokens([token(), token("new")]))
    assert taken(late, 5, NOW_S, "new") == 0


def test_watching_that_fails_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    rate = RateLimit(2, folder)
    rate.watch(Tokens([token()]))
    shutil.rmtree(folder)
    with pytest.raises(OSError, match="No such file"):
        rate.watch(Tokens([token("new")]))
    assert taken(rate, 5, NOW_S) == 2
