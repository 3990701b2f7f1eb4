"""What a queue keeps of an item: the item, its request, its answer, and its time."""

import asyncio
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Waiting(Protocol):
    """What the queue needs to know of the request that an item belongs to."""

    deadline: float
    """In seconds of time.perf_counter; an item that is not computed by then is dropped."""

    def is_gone(self) -> bool:
        """Whether the client has closed its connection."""
        ...


@dataclass(slots=True)
class Timed(Generic[Result]):
    """A result, the seconds its item waited and was computed, and the size of its batch."""

    result: Result
    queue_s: float
    predict_s: float
    batch_size: int


@dataclass(eq=False, slots=True)
class Entry(Generic[Item, Result]):
    """An item that waits or is computed."""

    item: Item
    request: Waiting
    answer: "asyncio.Future[Timed[Result]]"
    queued_at: float
    cost_s: float
    """Predicted seconds of the whole of it."""
    left_s: float
    """Predicted seconds of what is still to be computed."""
    predict_s: float = 0.0
    """Seconds that its pieces took so far."""
