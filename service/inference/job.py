"""One item of a task that computes in pieces: where it has got to."""

from typing import Any

from service.engines.engine import Tensors
from service.tasks.piecewise import PiecewiseTask
from service.tasks.task import Run


class Unfinished:
    """What a piece gives that is not its item's last."""

    __slots__ = ("share",)

    def __init__(self, share: float) -> None:
        """`share` is its part of the item's work."""
        self.share = share


class Job:
    """An item and the pieces of it that are still to be computed."""

    def __init__(self, task: PiecewiseTask[Any, Any], item: Any) -> None:
        self._pieces = task.pieces(item)
        self._work = task.work(item)
        self._next: Tensors | None = None

    def advance(self, run: Run) -> Any:
        """Compute one piece -> the item's output after the last, Unfinished before."""
        try:
            piece = next(self._pieces) if self._next is None else self._next
            self._next = self._pieces.send(run(piece))
        except StopIteration as end:
            return end.value
        return Unfinished(sum(array.size for array in piece.values()) / self._work)
