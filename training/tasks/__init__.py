"""The tasks, as training sees them: one file each, the counterparts of service/tasks/."""

from training.tasks.classification import Classification
from training.tasks.denoising import Denoising
from training.tasks.task import TrainingTask

TASKS: dict[str, type[TrainingTask]] = {task.name: task for task in (Classification, Denoising)}
"""For reading a manifest back: `upgrade` and the cards look a task up by its name."""
