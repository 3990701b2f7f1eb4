"""The image that verifies signatures, built for real and given models."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.image import Built, built_image
from tests.extras import needs_extra
from tests.shipped import shipped
from tests.training.test_signing import write_keys
from training.__main__ import main

pytestmark = [pytest.mark.slow, pytest.mark.long]

TAG = "localhost/vitrine:check-verify"


@pytest.fixture(scope="module")
def built(base: str, pip: list[str]) -> Iterator[Built]:
    with built_image("verify", TAG, *pip) as image:
        yield image


@pytest.fixture(scope="module")
def signed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed model in the image, beside the public key."""
    needs_extra("model_signing", "sign")
    private, public = write_keys(tmp_path_factory.mktemp("keys"))
    folder = built.root / "models" / "fashion-mnist" / "1"
    shutil.copytree(shipped("fashion-mnist"), folder)
    assert main(["sign", str(folder), "--key", str(private)]) == 0
    shutil.copy(public, built.root / "sign.pub")
    return folder


def verify(built: Built) -> subprocess.CompletedProcess[str]:
    asked = built.entered(*built.config["Entrypoint"], "/models", "--key", "/sign.pub")
    return subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)


def test_signed_models_verify_and_altered_ones_do_not(built: Built, signed: Path) -> None:
    done = verify(built)
    assert (done.returncode, done.stdout.strip()) == (0, "Verified /models/fashion-mnist/1")
    with (signed / "model.tflite").open("ab") as file:
        file.write(b"!")
    done = verify(built)
    assert done.returncode == 1
    assert "model.tflite" in done.stderr
