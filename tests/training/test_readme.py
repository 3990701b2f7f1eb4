"""training/README.md says what the code says."""

import ast
import types
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from service.artifacts.manifest import Manifest, TaskSpec
from service.part import Part
from service.pixels.spec import Input
from service.tasks import TASKS
from service.tasks.task import ImageTask, Task
from tests.documents import code, rows, section
from tests.server import CHECKOUT
from training.declarations import read_declaration, recipe_files
from training.tasks.task import TrainingTask

DOCUMENT = "training/README.md"
SHARED_OPTIONS = {"--smoke", "--out", "--data", "--seed", "--epochs"}


def documented(heading: str, column: str | None = None) -> list[str]:
    """The names in the first column, of the table with a title where a section has several."""
    text = section(DOCUMENT, heading)
    if column is not None:
        text = text.partition(f"| {column} |")[2].partition("\n\n")[0]
    return [name for row in rows(text) for name in code(row[0])]


def parts(annotation: Any) -> list[type[Part]]:
    """The parts of a manifest that an annotation is made of."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        if annotation is TaskSpec:
            return [task.spec_type for task in TASKS.values()]
        if annotation is Part:
            return [task.expected_type for task in TASKS.values()]
        return [annotation]
    if isinstance(annotation, types.UnionType) or get_origin(annotation) is not None:
        return [part for each in get_args(annotation) for part in parts(each)]
    return []


def fields(part: type[Part], prefix: str = "") -> Iterator[str]:
    """The dotted names of all values."""
    for name, field in part.model_fields.items():
        path = prefix + (field.alias or name)
        inner = parts(field.annotation)
        if get_origin(field.annotation) is dict and inner:
            path += ".*"
        if inner == [Input]:
            yield f"{path}.*"
        elif inner:
            for each in inner:
                yield from fields(each, f"{path}.")
        else:
            yield path


def test_manifest_table_shows_every_field() -> None:
    assert set(documented("The manifest")) == set(fields(Manifest))


def test_preprocessing_tables_show_every_field_and_method() -> None:
    assert set(documented("Preprocessing as data", "field")) == set(fields(Input))
    resize = parts(Input.model_fields["resize"].annotation)
    methods = {part.model_fields["method"].default for part in resize}
    assert set(documented("Preprocessing as data", "`resize.method` | what it does")) == methods


def test_options_table_shows_every_option() -> None:
    own = {name for file in recipe_files().values() for name in read_declaration(file).options}
    assert set(documented("Options")) >= SHARED_OPTIONS | own
    assert {name for name in documented("Options") if name.startswith("--")} == SHARED_OPTIONS | own


def test_recipes_table_shows_every_recipe() -> None:
    assert set(documented("Recipes and data")) == set(recipe_files())


def dataclass_fields(file: str, name: str) -> set[str]:
    """The fields of a class, without an import: that of export imports TensorFlow."""
    tree = ast.parse((CHECKOUT / file).read_text())
    (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    return {
        node.target.id
        for node in found.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def test_tables_show_every_field_of_a_recipes_end() -> None:
    for name, file in (("Trained", "training/export.py"), ("Card", "training/card.py")):
        shown = documented("Add a model", f"field of `{name}`")
        assert set(shown) == dataclass_fields(file, name)


def members(*classes: type[Any]) -> set[str]:
    """The public attributes and methods that classes define."""
    return {
        name
        for each in classes
        for name in {**vars(each), **each.__annotations__}
        if not name.startswith("_")
    }


def test_tables_show_every_member_of_a_task() -> None:
    assert set(documented("Add a task", "member of `Task`")) >= members(Task, ImageTask)
    assert set(documented("Add a task", "member of `TrainingTask`")) == members(TrainingTask)
