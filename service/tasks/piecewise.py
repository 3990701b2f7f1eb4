"""Tasks whose items differ in size: each is computed by itself, in pieces."""

from abc import abstractmethod
from collections.abc import Generator, Mapping, Sequence

from PIL import Image

from service.engines.engine import Tensors
from service.pixels.preprocess import Floats
from service.tasks.task import Item, Output, Run, Task

Pieces = Generator[Tensors, Mapping[str, Floats], Output]
"""Yields the input of each call of the engine, is sent its outputs, and returns the item's."""


class PiecewiseTask(Task[Item, Output]):
    """A task whose items differ in size: each is computed by itself, in pieces of bounded size.

    Between two pieces an item whose caller has gone is dropped, and a small one has its turn.
    """

    batches = False

    @abstractmethod
    def pieces(self, item: Item) -> Pieces[Output]:
        """Compute one item."""

    @abstractmethod
    def work(self, item: Item) -> int:
        """Numbers that the network is given for an item: its time is proportional to them."""

    @abstractmethod
    def expected_work(self, image: Image.Image) -> int:
        """The most that `work` will be for an opened image, before it is unpacked."""

    def compute(self, items: Sequence[Item], run: Run) -> Sequence[Output]:
        """Each item by itself, without a pause."""
        return [_finished(self.pieces(item), run) for item in items]


def _finished(pieces: Pieces[Output], run: Run) -> Output:
    try:
        batch = next(pieces)
        while True:
            batch = pieces.send(run(batch))
    except StopIteration as end:
        output: Output = end.value
        return output
