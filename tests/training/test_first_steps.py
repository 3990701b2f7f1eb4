"""The script for students: it runs as they call it, and leaves what it says."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.server import CHECKOUT
from tests.training.drawn import write_fashion_mnist

SCRIPT = CHECKOUT / "training/first_steps.py"
PICTURES = {"data.png", "curves.png", "confusion.png", "mistakes.png"}
HOMES = (
    CHECKOUT.parent / "shared/keras",
    Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser(),
)


def take_first_steps(command: list[str], home: Path, out: Path, *options: str) -> str:
    """Run the script in a new process, and return what it prints."""
    arguments = [sys.executable, *command, "--out", str(out), *options]
    env = os.environ | {"KERAS_HOME": str(home)}
    ran = subprocess.run(
        arguments, check=False, capture_output=True, text=True, cwd=CHECKOUT, env=env
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def check(printed: str, out: Path, least: float) -> None:
    """All files are there, and the network is better than chance, which is 0.1."""
    assert {path.name for path in out.iterdir()} == {*PICTURES, "model.keras"}
    for name in PICTURES:
        with Image.open(out / name) as image:
            assert min(image.size) >= 400
    assert "Total params: 34,826" in printed
    (accuracy,) = re.findall(r"Test accuracy ([0-9.]+)\. ", printed)
    assert float(accuracy) >= least


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["training/first_steps.py"], ["-m", "training.first_steps"]], ids=" ".join
)
def test_script_learns_drawn_shapes(command: list[str], tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="training needs TensorFlow")
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    write_fashion_mnist(tmp_path / "datasets/fashion-mnist")
    printed = take_first_steps(command, tmp_path, tmp_path / "out", "--epochs", "60")
    check(printed, tmp_path / "out", least=0.3)


@pytest.mark.slow
def test_script_learns_garments_from_few_images(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="training needs TensorFlow")
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    file = "datasets/fashion-mnist/t10k-labels-idx1-ubyte.gz"
    home = next((home for home in HOMES if (home / file).is_file()), None)
    if home is None:
        pytest.skip(f"Fashion-MNIST is in none of {', '.join(map(str, HOMES))}")
    # Keras writes its settings into its home.
    (tmp_path / "datasets").symlink_to(home / "datasets")
    options = ("--images", "2000", "--epochs", "3")
    printed = take_first_steps(["training/first_steps.py"], tmp_path, tmp_path / "out", *options)
    check(printed, tmp_path / "out", least=0.5)
    for name in PICTURES:
        with Image.open(tmp_path / "out" / name) as image:
            assert len(np.unique(np.asarray(image))) > 2, f"{name} is blank"


def test_script_uses_keras_numpy_and_matplotlib_only() -> None:
    imported = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            imported.add(node.module.partition(".")[0])
    assert imported - sys.stdlib_module_names == {"keras", "numpy", "matplotlib"}


def test_import_of_the_script_does_nothing(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="training needs TensorFlow")
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        import training.first_steps

        assert training.first_steps.LABELS[0] == "T-shirt"
    assert not list(tmp_path.iterdir())
