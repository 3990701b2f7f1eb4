"""Servers for all tests that only ask them questions, and one app in this process."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.asgi import in_process
from tests.server import Server, bentoml_command, running, serve

LIMITS = {
    "max_image_bytes": 1_000_000,
    "max_image_pixels": 5_000_000,
    "max_denoise_pixels": 1_000_000,
    "max_images_per_request": 8,
}
"""Limits that tests can reach."""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of all shipped models, as `make serve` starts one, with JSON log lines."""
    folder: Path = tmp_path_factory.mktemp("server")
    with serve(folder, log_requests=True, log_format="json", workers=2, **LIMITS) as running:
        yield running


@pytest.fixture(scope="session")
def bentoml_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same under `bentoml serve`."""
    folder: Path = tmp_path_factory.mktemp("bentoml")
    settings = {"log_requests": True, "log_format": "json", "workers": 2}
    with running(bentoml_command, folder, **settings, **LIMITS) as server:
        yield server


@pytest.fixture(scope="session")
def client() -> Iterator[httpx.Client]:
    """A client of an app in this process that serves all shipped models."""
    with in_process(**LIMITS) as opened:
        yield opened
