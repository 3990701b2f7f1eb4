import os
import shutil
from pathlib import Path

import pytest

from service.artifacts.manifest import read_manifest, write_manifest
from service.tasks import TASKS

SHIPPED_MODELS = Path(__file__).parents[1] / "models"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, unless LONG is set."""
    if os.environ.get("LONG"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


@pytest.fixture
def anyio_backend() -> str:
    """What runs `async` tests."""
    return "asyncio"


@pytest.fixture
def artifact_folder(tmp_path: Path) -> Path:
    """A copy of a shipped classifier, in a models folder of its own, that a test may damage.

    Its manifest is of the newest schema.
    """
    folder = tmp_path / "models" / "fashion-mnist" / "1"
    shutil.copytree(SHIPPED_MODELS / "fashion-mnist" / "1", folder)
    write_manifest(folder, read_manifest(folder, TASKS))
    return folder


@pytest.fixture
def models_dir(artifact_folder: Path) -> Path:
    """The models folder around `artifact_folder`."""
    return artifact_folder.parents[1]
