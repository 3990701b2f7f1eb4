"""Which items a queue takes on: as many as may wait, and none that would be too late."""

import math
import time
from typing import Self

from service.errors import TooLarge, Unavailable
from service.inference.entry import Waiting
from service.inference.work import SHORT_S, Work

MAX_RETRY_AFTER_S = 60
# The rest is for decoding, encoding, and for a prediction that is too low: a late answer has cost
# as much as one in time.
COMPUTE_SHARE = 0.8
_NOTHING_S = 1e-9  # sums of seconds are not exact


class Admission:
    """Counts what a queue has taken on, in items and in seconds of work."""

    def __init__(self, name: str, limit: int, timeout_s: float) -> None:
        """`timeout_s` is the time that a request has."""
        self.limit = limit
        self.work = Work()
        self.waiting = 0
        self.reserved = 0
        """Items that are being decoded."""
        self.undecoded_s = 0.0
        """Predicted seconds of long items that wait for memory, or are being decoded."""
        self._name = name
        self._timeout_s = timeout_s
        self.item_s = 0.0
        """Predicted seconds of each item where all take the same."""
        self._room = limit
        self._backlog_since = 0.0
        self._done_since = 0

    def expect_each(self, item_s: float) -> None:
        """Every item takes so many seconds; 0 where each says what it takes.

        Where a full queue is no wait to speak of, none of that is looked at: it would cost more.
        """
        self.item_s = item_s if item_s * self.limit > SHORT_S else 0.0
        self._limit_room()

    def begin(self, now: float) -> None:
        """A first item comes to an idle queue."""
        self._backlog_since = now
        self._done_since = 0

    def computed(self, count: int, predicted_s: float, actual_s: float) -> None:
        """So many items are done, together in so many seconds.

        A small item of its own size teaches nothing: the call costs more than its pixels.
        """
        self._done_since += count
        if self.item_s:
            self.work.learn(predicted_s, actual_s)
            self._limit_room()
        elif predicted_s > SHORT_S:
            self.work.learn(predicted_s, actual_s)

    def computed_piece(self, cost_s: float, predicted_s: float, actual_s: float) -> None:
        """A piece of an item of `cost_s` is done; so one item teaches as soon as it is begun."""
        self.work.done(cost_s, predicted_s)
        if cost_s > SHORT_S:
            self.work.learn(predicted_s, actual_s)

    def _limit_room(self) -> None:
        """As many of the limit as are computed in the time that a request has."""
        each_s = self.item_s * self.work.slowdown
        is_full_too_late = each_s * self.limit > self._timeout_s
        self._room = max(1, int(self._timeout_s / each_s)) if is_full_too_late else self.limit

    def check_room(self, count: int) -> None:
        """Raise Unavailable if `count` more items do not fit now, TooLarge if they never will."""
        if count > self.limit:
            raise TooLarge(f"expected at most {self.limit} images at once, got {count}")
        taken = self.reserved + self.waiting + count
        if taken > self._room:
            raise Unavailable(
                f"{self._name} is overloaded: expected at most {self._room} waiting images, "
                f"got {taken}",
                self._until_half_are_done_s(),
            )

    def check_time(self, cost_s: float, request: Waiting) -> None:
        """Raise Unavailable if an item would not be computed by its deadline.

        Where nothing is before it, it may try: its own time is only a prediction.
        """
        decoding_s = self.reserved * self.item_s * self.work.slowdown
        ahead_s = self.work.ahead_s(cost_s) + decoding_s
        self._check_time(ahead_s, cost_s, request, COMPUTE_SHARE)

    def check_time_again(self, cost_s: float, request: Waiting) -> None:
        """The same for a long item that waits for memory, by what was learned since it came.

        Only what is decoded is before it for sure, and who has waited is not refused for what may
        happen.
        """
        ahead_s = self.work.ahead_s(cost_s) - self.undecoded_s * self.work.slowdown
        self._check_time(ahead_s, cost_s, request, share=1.0)

    def _check_time(self, ahead_s: float, cost_s: float, request: Waiting, share: float) -> None:
        if ahead_s <= _NOTHING_S:
            return
        takes_s = ahead_s + cost_s * self.work.slowdown
        has_s = request.deadline - time.perf_counter()
        if takes_s > share * has_s:
            raise Unavailable(
                f"{self._name} is overloaded: expected an answer within {has_s:.3g} s, "
                f"it would take {takes_s:.3g} s",
                _whole_seconds(min(ahead_s, takes_s - share * has_s)),
            )

    def place(self, request: Waiting) -> "Place":
        """Reserve a place for an item that is being decoded; raises Unavailable if none is free."""
        self.check_room(1)
        if self.item_s:
            self.check_time(self.item_s, request)
        return Place(self, request)

    def _until_half_are_done_s(self) -> int:
        """Of the waiting items, at the rate since the queue was empty."""
        if not self._done_since:
            return 1
        s_per_item = (time.perf_counter() - self._backlog_since) / self._done_since
        return _whole_seconds(s_per_item * self.waiting / 2)


class Place:
    """One place of a queue; a class, because a generator costs three times as much."""

    __slots__ = ("_admission", "_cost_s", "_request")

    def __init__(self, admission: Admission, request: Waiting) -> None:
        self._admission = admission
        self._request = request
        self._cost_s = 0.0

    def __enter__(self) -> Self:
        self._admission.reserved += 1
        return self

    def expect(self, cost_s: float) -> None:
        """Reserve the time, too; raises Unavailable if the item would be too late."""
        self._admission.check_time(cost_s, self._request)
        self._admission.work.add(cost_s)
        self._cost_s = cost_s
        if cost_s > SHORT_S:
            self._admission.undecoded_s += cost_s

    def check(self) -> None:
        """Raise Unavailable if the item, which waits for memory, would be too late by now."""
        if self._cost_s > SHORT_S:
            self._admission.check_time_again(self._cost_s, self._request)

    def __exit__(self, *_: object) -> None:
        self._admission.reserved -= 1
        if self._cost_s:
            self._admission.work.done(self._cost_s, self._cost_s)
            if self._cost_s > SHORT_S:
                self._admission.undecoded_s -= self._cost_s


def _whole_seconds(seconds: float) -> int:
    """For Retry-After."""
    return max(1, min(MAX_RETRY_AFTER_S, math.ceil(seconds)))
