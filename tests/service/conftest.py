"""Servers for all tests that only ask them questions, and one app in this process."""

import signal
from collections.abc import Iterator

import httpx
import pytest
from selenium import webdriver

from tests.asgi import in_process
from tests.browser import opened_browser
from tests.server import Server, bentoml_command, running, serve

LIMITS = {
    "max_image_bytes": 1_000_000,
    "max_image_pixels": 5_000_000,
    "max_denoise_pixels": 1_000_000,
    "max_images_per_request": 8,
}
"""Limits that tests can reach."""
LOGGED: dict[str, object] = {"log_requests": True, "log_format": "json"}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of all shipped models, as `make serve` starts one, with JSON log lines."""
    with serve(tmp_path_factory.mktemp("server"), workers=2, **LOGGED, **LIMITS) as server:
        yield server


@pytest.fixture(scope="session")
def bentoml_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same under `bentoml serve`; it has to end cleanly, and to leave nothing behind."""
    folder = tmp_path_factory.mktemp("bentoml")
    temporary = folder / "tmp"
    temporary.mkdir()

    def start(port: int) -> list[str]:
        return ["env", f"TMPDIR={temporary}", *bentoml_command(port)]

    with running(start, folder, workers=2, **LOGGED, **LIMITS) as server:
        yield server
        assert list(temporary.glob("vitrine-metrics-*"))
        assert server.stop(signal.SIGTERM) == 0
        assert not list(temporary.glob("vitrine-metrics-*"))
        assert "Traceback" not in server.log.read_text()


@pytest.fixture(scope="session")
def client() -> Iterator[httpx.Client]:
    """A client of an app in this process that serves all shipped models."""
    with in_process(**LIMITS) as opened:
        yield opened


@pytest.fixture(scope="session")
def browser() -> Iterator[webdriver.Chrome]:
    """One browser for all tests that need one."""
    with opened_browser() as opened:
        yield opened
