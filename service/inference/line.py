"""The items that wait for an engine, and whose turn it is."""

from collections import deque
from typing import Generic, Protocol, TypeVar

from service.inference.work import SHORT_S


class Waits(Protocol):
    """What a line needs to know of an item."""

    cost_s: float
    """Predicted seconds of the whole of it."""


Entry = TypeVar("Entry", bound=Waits)


class Line(Generic[Entry]):
    """First come, first served; but short items take turns with long ones.

    A long one that has been begun is finished before the next one begins: all of them in turns
    would all be late.
    """

    def __init__(self) -> None:
        self._short: deque[Entry] = deque()
        self._long: deque[Entry] = deque()
        self._is_turn_of_long = False
        self.length = 0

    def append(self, entry: Entry) -> None:
        """A new item."""
        self.length += 1
        (self._short if entry.cost_s <= SHORT_S else self._long).append(entry)

    def put_back(self, entry: Entry) -> None:
        """An item that was begun and is not finished."""
        self.length += 1
        self._of(entry).appendleft(entry)

    def pop(self) -> Entry:
        """The next item; there has to be one."""
        self.length -= 1
        if self._long and (self._is_turn_of_long or not self._short):
            self._is_turn_of_long = False
            return self._long.popleft()
        self._is_turn_of_long = True
        return self._short.popleft()

    def remove(self, entry: Entry) -> bool:
        """Whether an item was there, and is not any more."""
        line = self._of(entry)
        if entry not in line:
            return False
        line.remove(entry)
        self.length -= 1
        return True

    def clear(self) -> None:
        """Forget them all."""
        self.length = 0
        self._short.clear()
        self._long.clear()

    def _of(self, entry: Entry) -> deque[Entry]:
        return self._short if entry.cost_s <= SHORT_S else self._long
