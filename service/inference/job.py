"""One item of a task that computes in pieces: where it has got to."""

from typing import Any

from service.engines.engine import Tensors
from service.tasks.piecewise import PiecewiseTask
from service.tasks.task import Run


class Unfinished:
    """What a piece gives that is not its item's last."""


UNFINISHED = Unfinished()


class Job:
    """An item and the pieces of it that are still to be computed."""

    def __init__(self, task: PiecewiseTask[Any, Any], item: Any) -> None:
        self._pieces = task.pieces(item)
        self._next: Tensors | None = None

    def advance(self, run: Run) -> Any:
        """Compute one piece -> the item's output after the last, UNFINISHED before."""
        try:
            if self._next is None:
                self._next = next(self._pieces)
            self._next = self._pieces.send(run(self._next))
        except StopIteration as end:
            return end.value
        return UNFINISHED
