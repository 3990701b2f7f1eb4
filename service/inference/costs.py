"""What the items of a task that differ in size cost, in seconds."""

from typing import Any

from PIL import Image

from service.tasks.piecewise import PiecewiseTask


class Costs:
    """Predicts seconds from a task's work, once one item was measured."""

    def __init__(self, task: PiecewiseTask[Any, Any]) -> None:
        self._task = task
        self.unit_s = 0.0
        """Of one unit of work; 0 until it is measured."""

    def measured(self, item: Any, seconds: float) -> None:
        """An item took so long."""
        self.unit_s = seconds / self._task.work(item)

    def of_item(self, item: Any) -> float:
        """Seconds of an item."""
        return self._task.work(item) * self.unit_s

    def of_image(self, image: Image.Image) -> float:
        """The most seconds that an opened image will take, before it is unpacked."""
        return self._task.expected_work(image) * self.unit_s
