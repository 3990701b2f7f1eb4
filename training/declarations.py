"""What recipes say about themselves, read from their source: importing them imports TensorFlow."""

import ast
import pkgutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training import options, recipes
from training.errors import TrainingError


@dataclass(frozen=True)
class Declaration:
    """A recipe's constants DATA and OPTIONS."""

    data: Path | None = None
    """Where its data set is, unless the caller passes --data."""
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Option of its own -> what argparse's `add_argument` is told about it."""


def recipe_files() -> dict[str, Path]:
    """Recipe name -> its file."""
    folder = Path(recipes.__path__[0])
    return {
        module.name.replace("_", "-"): folder / f"{module.name}.py"
        for module in pkgutil.iter_modules(recipes.__path__)
    }


def read_help(path: Path) -> str:
    """The docstring of a recipe's file."""
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def read_declaration(path: Path) -> Declaration:
    """Read a recipe's file; raises TrainingError if a constant uses a name that `options` lacks."""
    constants: dict[str, Any] = {}
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="DATA" | "OPTIONS" as name)], value=value):
                constants[name.lower()] = _evaluated(name, value, path)
    return Declaration(**constants)


def _evaluated(name: str, value: ast.expr, path: Path) -> Any:
    """The value of a constant, computed with the names of training.options alone."""
    code = compile(ast.Expression(value), str(path), "eval")
    try:
        return eval(code, dict(vars(options)))  # noqa: S307  (the recipe will be imported anyway)
    except NameError as error:
        raise TrainingError(
            f"{path}: {name} is read before the recipe is imported, so it may use Path and the "
            f"names of training.options only: {error}"
        ) from error
