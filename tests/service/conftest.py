"""One server for all tests that only ask it questions."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server import Server, serve


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of all shipped models, with JSON log lines and limits that tests can reach."""
    folder: Path = tmp_path_factory.mktemp("server")
    limits = {"max_image_bytes": 1_000_000, "max_image_pixels": 5_000_000}
    limits |= {"max_denoise_pixels": 1_000_000, "max_images_per_request": 8}
    with serve(folder, log_requests=True, log_format="json", workers=2, **limits) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """A client of the shared server."""
    with server.client() as opened:
        yield opened
