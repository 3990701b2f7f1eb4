"""The rooms of service/, read from the syntax trees: who imports whom, and who asks what."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import CHECKOUT

# From the top downwards: a room imports only from those below it, and from itself.
ROOMS = (
    "entry",
    "server",
    "protocols",
    "inference",
    "tasks",
    "engines",
    "telemetry",
    "artifacts",
    "pixels",
    "ground",
)
# Modules that are no folder, by their room.
MODULES = {
    "service": "entry",
    "__main__": "entry",
    "app": "entry",
    "cli": "entry",
    "client": "entry",
    "call": "ground",
    "errors": "ground",
    "settings": "ground",
    "heap": "ground",
    "machine": "ground",
    "part": "ground",
    "shared": "ground",
}
ENTRIES = {"service.__main__", "service.service", "training.__main__", "training.first_steps"}
TRAINING_TAKES = {"artifacts", "pixels", "tasks", "engines", "errors"}
ASGI = {"ASGIApp", "Message", "Receive", "Scope", "Send"}
ASGI_ROOMS = {"server", "protocols"}
TASK_ROOMS = ("service.tasks", "training.tasks")
# Parts of a manifest that are one task's own.
OF_ONE_TASK = {
    "ClassificationSpec",
    "DenoisingSpec",
    "ExpectedLabel",
    "ExpectedImage",
    "Classification",
    "Denoising",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(package: str) -> dict[str, ast.Module]:
    """Every module of a package by its name, parsed."""
    paths = sorted((CHECKOUT / package).rglob("*.py"))
    return {module_name(path): ast.parse(path.read_text()) for path in paths}


SERVICE, TRAINING = modules("service"), modules("training")
ALL = SERVICE | TRAINING


def imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """What a module imports, at its top or inside of a function: a module and a name in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they lead"
            yield from ((str(node.module), alias.name) for alias in node.names)


def imported_modules(tree: ast.Module) -> set[str]:
    """The modules of this project that a module imports."""
    found = set()
    for module, name in imports(tree):
        if f"{module}.{name}" in ALL:  # from package import module
            found.add(f"{module}.{name}")
        elif module in ALL:
            found.add(module)
    return found


def room(module: str) -> str:
    """The room of a module of service/."""
    _, _, inner = module.partition(".")
    first = inner.partition(".")[0]
    return first if first in ROOMS else MODULES[first]


def upward_imports(module: str, tree: ast.Module) -> list[str]:
    """What a module of service/ imports from above."""
    own = ROOMS.index(room(module))
    below = (each for each in imported_modules(tree) if each != "service")
    return [each for each in sorted(below) if ROOMS.index(room(each)) < own]


def asgi_names(module: str, tree: ast.Module) -> set[str]:
    """The ASGI types that a module names although it is outside of the rooms that may."""
    if room(module) in ASGI_ROOMS:
        return set()
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {name for _, name in imports(tree)}
    return names & ASGI


def questions(tree: ast.Module) -> list[str]:
    """Comparisons and checks that ask which task a model, a manifest or an answer is of."""
    asked = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            equals = any(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops)
            sides = [node.left, *node.comparators]
            if any(_names_one(side) or (equals and _is_a_task(side)) for side in sides):
                asked.append(ast.unparse(node))
        elif isinstance(node, ast.Match) and _is_a_task(node.subject):
            asked.append(ast.unparse(node.subject))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            named = {each.id for each in ast.walk(node.args[1]) if isinstance(each, ast.Name)}
            if named & OF_ONE_TASK:
                asked.append(ast.unparse(node))
    return asked


def _names_one(node: ast.expr) -> bool:
    """A task's name as a text, alone or among others."""
    texts = (each.value for each in ast.walk(node) if isinstance(each, ast.Constant))
    return any(text in ("classification", "denoising") for text in texts)


def _is_a_task(node: ast.expr) -> bool:
    """`task`, `model.task`, `manifest.task.type`, `task.name` and the like."""
    text = ast.unparse(node)
    return text == "task" or text.endswith((".task", "task.type", "task.name"))


@pytest.mark.parametrize("module", [name for name in SERVICE if name != "service"])
def test_imports_point_downwards(module: str) -> None:
    assert upward_imports(module, SERVICE[module]) == []


@pytest.mark.parametrize("module", [name for name in SERVICE if name != "service"])
def test_asgi_is_for_protocols_and_server_alone(module: str) -> None:
    assert asgi_names(module, SERVICE[module]) == set()


@pytest.mark.parametrize("module", SERVICE)
def test_service_imports_no_training(module: str) -> None:
    assert not [
        name for name, _ in imports(SERVICE[module]) if name.partition(".")[0] == "training"
    ]


@pytest.mark.parametrize("module", TRAINING)
def test_training_takes_from_service_what_both_sides_share(module: str) -> None:
    taken = {each for each in imported_modules(TRAINING[module]) if each.startswith("service")}
    assert {each.split(".")[1] for each in taken} <= TRAINING_TAKES


@pytest.mark.parametrize("module", [name for name in ALL if not name.startswith(TASK_ROOMS)])
def test_nobody_outside_of_the_tasks_asks_which_one_it_is(module: str) -> None:
    assert questions(ALL[module]) == []


def test_every_module_is_imported_or_an_entry() -> None:
    used = {each for tree in ALL.values() for each in imported_modules(tree)}
    packages = {name.rpartition(".")[0] for name in ALL}
    recipes = {name for name in TRAINING if name.startswith("training.recipes.")}
    assert set(ALL) - used - packages - recipes <= ENTRIES <= set(ALL)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("service.pixels.decode", "from service.artifacts.manifest import Manifest"),
        ("service.tasks.task", "def f():\n    from service.inference import model"),
        ("service.errors", "import service.pixels.spec"),
        ("service.protocols.native", "from service.server.app import App"),
        ("service.server.app", "from service import service"),
    ],
)
def test_import_from_above_is_noticed(module: str, source: str) -> None:
    assert upward_imports(module, ast.parse(source)) != []


@pytest.mark.parametrize(
    "source",
    [
        "from starlette.types import Scope",
        "import starlette.types\ndef f(scope: starlette.types.Scope): ...",
        "from asgiref.typing import Send as S",
    ],
)
def test_asgi_elsewhere_is_noticed(source: str) -> None:
    assert asgi_names("service.inference.model", ast.parse(source)) != set()


@pytest.mark.parametrize(
    "source",
    [
        "if manifest.task.type == 'x': ...",
        "if task != name: ...",
        "found = [m for m in models if m.task.name == name]",
        "if kind == 'denoising': ...",
        "if kind in ('denoising', 'inpainting'): ...",
        "isinstance(sample.expected, ExpectedLabel)",
        "isinstance(model.task, (Classification, Denoising))",
        "match manifest.task.type:\n    case _: ...",
    ],
)
def test_question_for_the_task_is_noticed(source: str) -> None:
    assert questions(ast.parse(source)) != []
