"""SECURITY.md: each defence names tests that are there, and settings."""

import ast
import re
from functools import cache

import pytest

from service.settings import PREFIX, Settings
from tests.documents import code, read, rows, section
from tests.server import CHECKOUT

DOCUMENT = "SECURITY.md"
DEFENCES = [tuple(row) for row in rows(section(DOCUMENT, "Defences"))]


@cache
def names_in(path: str) -> set[str]:
    """The names of a file's tests."""
    tree = ast.parse((CHECKOUT / path).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = {node.name for node in tree.body if isinstance(node, functions)}
    return {name for name in names if name.startswith("test_")}


@pytest.mark.parametrize(
    ("defence", "settings", "tests"), DEFENCES, ids=[defence for defence, *_ in DEFENCES]
)
def test_defence_has_tests_that_are_there(defence: str, settings: str, tests: str) -> None:
    named = code(tests)
    assert named, defence
    for each in named:
        path, _, name = each.partition("::")
        assert name in names_in(path), each
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    assert set(code(settings)) <= known


def test_no_defence_is_told_of_twice() -> None:
    told = [defence for defence, *_ in DEFENCES]
    assert len(set(told)) == len(told)


def test_every_setting_of_a_limit_or_a_door_is_in_the_table() -> None:
    doors = re.compile(
        r"max_(image|images|request)_\w+|\w*(tls|token|memory|timeout)\w*|(cors|rate|keep)\w*"
    )
    wanted = {PREFIX + field.upper() for field in Settings.model_fields if doors.fullmatch(field)}
    assert wanted <= set(code(section(DOCUMENT, "Defences")))


def test_reports_are_private() -> None:
    assert "private security advisory" in read(DOCUMENT)
