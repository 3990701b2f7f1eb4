"""Programs that a test needs and pip does not install."""

import os
import shutil

import pytest


def program(name: str) -> str:
    """The path of an installed program; without it the test skips, in CI it fails."""
    path = shutil.which(name)
    if path is None and os.environ.get("CI"):
        pytest.fail(f"{name} is not installed: CI needs it")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path
