"""The tasks, one file each, and the table of all of them.

A module that VITRINE_PLUGINS names adds its own: `TASKS[MyTask.name] = MyTask`.
"""

import importlib
from collections.abc import Iterable
from typing import Any

from service.errors import SettingsError
from service.tasks.classification import Classification
from service.tasks.denoising import Denoising
from service.tasks.task import Task

TASKS: dict[str, type[Task[Any, Any]]] = {task.name: task for task in (Classification, Denoising)}


def load_plugins(modules: Iterable[str]) -> None:
    """Import modules that extend TASKS; raises SettingsError for one that cannot be imported."""
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a foreign module raises
            raise SettingsError(
                f"VITRINE_PLUGINS: {module} cannot be imported: {type(error).__name__}: {error}"
            ) from error
