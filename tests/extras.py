"""Packages of an extra that only some tests need."""

import importlib.util
import os

import pytest


def needs_extra(module: str, extra: str) -> None:
    """Skip the test that asks without the extra's module; in CI it fails."""
    if importlib.util.find_spec(module) is not None:
        return
    message = f"{module} is not installed: requirements/{extra}.lock has it"
    if os.environ.get("CI"):
        pytest.fail(f"{message}, and CI needs it", pytrace=False)
    pytest.skip(message)
