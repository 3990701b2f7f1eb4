import contextlib
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.server import CHECKOUT, Server, environment, free_port, wait_until_ready
from tests.service.protocols.test_native import SAMPLE, upload

pytestmark = pytest.mark.slow

BENTOML = [sys.executable, "-m", "bentoml"]


@pytest.fixture
def bentoml_home(tmp_path: Path) -> dict[str, str]:
    return environment() | {"BENTOML_HOME": str(tmp_path)}


def test_bento_serves_the_models_in_it(tmp_path: Path, bentoml_home: dict[str, str]) -> None:
    built = subprocess.run(
        [*BENTOML, "build", "--output", "tag"],
        cwd=CHECKOUT,
        env=bentoml_home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    tag = built.stdout.strip().removeprefix("__tag__:")
    port, log = free_port(), tmp_path / "bento.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*BENTOML, "serve", tag, "--port", str(port)],
            cwd=tmp_path,  # away from the checkout: what is served is in the Bento
            env=bentoml_home,
            stdout=output,
            stderr=output,
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    with contextlib.closing(server):
        wait_until_ready(server)
        answer = httpx.post(f"{server.url}/classify", files=upload(SAMPLE))
    assert answer.json()["label"] == "Trouser"
