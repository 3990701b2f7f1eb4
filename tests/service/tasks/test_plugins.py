"""Modules from outside that bring kinds of model of their own."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import SettingsError
from service.tasks import TASKS, load_plugins

MODULE = "plugin_of_the_tests"
CLASS = """
from service.tasks import TASKS
from service.tasks.classification import Classification

class Moods(Classification):
    name = "moods"

TASKS[Moods.name] = Moods
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a module that can be imported; what it did is undone."""
    monkeypatch.syspath_prepend(tmp_path)
    before = dict(TASKS)
    yield tmp_path / f"{MODULE}.py"
    sys.modules.pop(MODULE, None)
    TASKS.clear()
    TASKS.update(before)


def test_named_module_adds_its_task(plugin: Path) -> None:
    plugin.write_text(CLASS)
    load_plugins([MODULE])
    assert list(TASKS) == ["classification", "denoising", "moods"]


def test_module_that_was_loaded_is_not_loaded_again(plugin: Path) -> None:
    plugin.write_text(CLASS)
    load_plugins([MODULE])
    added = TASKS["moods"]
    load_plugins([MODULE, MODULE])
    assert TASKS["moods"] is added


def test_no_module_adds_nothing(plugin: Path) -> None:
    plugin.write_text(CLASS)
    load_plugins([])
    assert "moods" not in TASKS


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be"),
        ("raise ValueError('not today')", "ValueError: not today"),
        ("def", "SyntaxError: "),
    ],
)
def test_module_that_cannot_be_imported_is_named_with_the_reason(
    plugin: Path, source: str, why: str
) -> None:
    plugin.write_text(source)
    with pytest.raises(SettingsError) as caught:
        load_plugins([MODULE])
    message = f"VITRINE_PLUGINS: {MODULE} cannot be imported: {why}"
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", ["nowhere_to_be_found", "service.tasks.nothing", "", "..", "a b"])
def test_module_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=r"VITRINE_PLUGINS: .*cannot be imported"):
        load_plugins([name])
