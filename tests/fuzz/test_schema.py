"""The API document is true: schemathesis makes requests from it and compares the answers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import CHECKOUT, serve

EXAMPLES = 25


@pytest.mark.slow
def test_every_answer_is_as_the_document_says(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", "--no-color", "--continue-on-failure",
        "--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES),
        "--generation-deterministic",
    ]  # fmt: skip
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "tests.fuzz.schema_hooks",
        "PYTHONPATH": str(CHECKOUT),
    }
    with serve(tmp_path, workers=1, models="fashion-mnist,denoiser") as server:
        ran = subprocess.run(
            [*command, f"{server.url}/docs.json"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
        assert "Tested: 11" in ran.stdout
        assert " WARNING " not in server.log.read_text()
        assert " ERROR " not in server.log.read_text()
