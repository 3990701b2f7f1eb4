"""What is read from a recipe's file without importing it."""

from pathlib import Path

import pytest

from training import recipes
from training.declarations import read_declaration, read_help, recipe_files
from training.errors import TrainingError
from training.options import TRANSFER_OPTIONS


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tmp_path / "my_model.py"


def test_recipe_goes_by_its_file_name_with_hyphens(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe.touch()
    monkeypatch.setattr(recipes, "__path__", [str(recipe.parent)])
    assert recipe_files() == {"my-model": recipe}


def test_help_is_the_docstring(recipe: Path) -> None:
    recipe.write_text('"""First line.\n\nMore.\n"""\nraise RuntimeError("imported")\n')
    assert read_help(recipe) == "First line.\n\nMore."


def test_recipe_without_docstring_and_constants_has_none(recipe: Path) -> None:
    recipe.write_text("import missing_module\n")
    declared = read_declaration(recipe)
    assert (read_help(recipe), declared.data, declared.options) == ("", None, {})


def test_constants_may_use_the_names_of_options(recipe: Path) -> None:
    recipe.write_text(
        "from pathlib import Path\n"
        "import missing_module\n"
        "from training.options import TRANSFER_OPTIONS, at_least_one\n"
        'DATA = Path("data/mine")\n'
        'OPTIONS = TRANSFER_OPTIONS | {"--width": {"type": at_least_one, "default": 8}}\n'
    )
    declared = read_declaration(recipe)
    assert declared.data == Path("data/mine")
    assert declared.options.keys() == {*TRANSFER_OPTIONS, "--width"}
    assert declared.options["--width"]["type"]("12") == 12


def test_constant_that_needs_an_import_is_refused_with_the_rule(recipe: Path) -> None:
    recipe.write_text('import keras\nOPTIONS = {"--layer": {"choices": dir(keras)}}\n')
    message = r"my_model.py: OPTIONS is read before .* names of training.options only: .*'keras'"
    with pytest.raises(TrainingError, match=message):
        read_declaration(recipe)
