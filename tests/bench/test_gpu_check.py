"""What of the check of a GPU can be tested where there is none."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("keras", reason="the check needs Keras")

from service.artifacts.manifest import read_manifest
from service.engines.keras import KerasEngine
from service.tasks import TASKS
from tests.bench.gpu_check import flops_per_image
from tests.conftest import SHIPPED_MODELS
from tests.server import CHECKOUT


@pytest.mark.slow
@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU")
def test_machine_without_a_gpu_is_told_so_in_one_line() -> None:
    command = [sys.executable, "-m", "tests.bench.gpu_check"]
    ran = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].startswith("error: expected a GPU; Keras's backend ")


def test_work_of_a_network_is_counted() -> None:
    folder = SHIPPED_MODELS / "fashion-mnist" / "1"
    names = {"inputs": ["image"], "outputs": ["probabilities"]}
    engine = KerasEngine(folder / "model.keras", "cpu", "keras", **names)
    convolutions = 26 * 26 * 9 * 32 + 11 * 11 * 9 * 32 * 64 + 3 * 3 * 9 * 64 * 32
    dense = 32 * 512 + 512 * 256 + 256 * 128 + 128 * 10
    assert flops_per_image(engine, read_manifest(folder, TASKS)) == 2 * (convolutions + dense)


@pytest.mark.parametrize(("device", "lock"), [("gpu", "gpu"), ("cpu", "serve"), ("auto", "serve")])
def test_make_serve_installs_what_the_device_needs(device: str, lock: str) -> None:
    command = ["make", "--dry-run", "serve", f"VITRINE_DEVICE={device}", "VENV=nowhere"]
    ran = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert f"-r requirements/{lock}.lock" in ran.stdout
