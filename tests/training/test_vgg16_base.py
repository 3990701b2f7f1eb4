"""VGG16's base from a packed set of drawn images, all the way in: trained, folded, exported."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorflow", reason="training needs TensorFlow")

import keras

from service.artifacts.files import Artifact, verify
from service.artifacts.manifest import Manifest, read_manifest
from service.tasks import TASKS
from service.tasks.classification import ClassificationSpec
from training.__main__ import main
from training.recipes.vgg16_base import STAGES, OneCycle, label_names
from training.vgg16 import NAMES, load_base

TRAINING, TESTED = 130, 10


def write_packed(path: Path, **changes: np.ndarray) -> None:
    """Light and dark images, with some arrays changed."""
    random = np.random.default_rng(0)
    labels = np.arange(TRAINING + TESTED) % 2
    encoded = []
    for label in labels:
        level = 60 + 130 * int(label) + int(random.integers(-30, 30))
        buffer = BytesIO()
        Image.new("RGB", (64, 64), (level,) * 3).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    arrays: dict[str, Any] = {
        "blob": np.frombuffer(b"".join(encoded), np.uint8),
        "offsets": np.cumsum([0, *map(len, encoded)]),
        "labels": labels,
        "validation": np.arange(len(labels)) >= TRAINING,
        "classes": np.array(["n01443537 dark, night", "n01629819 light, day"]),
    }
    np.savez(path, **(arrays | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of a smoke run."""
    root = tmp_path_factory.mktemp("base")
    write_packed(root / "drawn.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main(["vgg16-base", "--smoke", "--data", "drawn.npz", "--out", "models"]) == 0
    return root / "models" / "vgg16-base" / "1"


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Manifest:
    return read_manifest(folder, TASKS)


@pytest.mark.slow
def test_artifact_is_whole(folder: Path, manifest: Manifest) -> None:
    verify(Artifact(folder, manifest))
    assert manifest.task == ClassificationSpec(labels=("dark", "light"))
    assert manifest.input.shape == (64, 64, 3)
    assert manifest.metrics["test_count"] == 2  # a smoke run tests with one of each class
    assert manifest.training.seconds > 0
    assert (folder / "curves.png").exists()


@pytest.mark.slow
def test_transfer_can_start_from_it(folder: Path, manifest: Manifest) -> None:
    base = load_base(str(folder))
    assert (base.name, base.argument) == ("vgg16-base 1", "models/vgg16-base/1")
    assert base.scale == manifest.input.scale
    assert tuple(base.weights) == NAMES


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": np.array(["crane", "crane"])}, "expected different class names, got"),
        ({"classes": np.array(["dark", "li\nght"])}, "characters, got 'li\\nght'"),
        (
            {"labels": np.zeros(TRAINING + TESTED, int)},
            "images for training for each class, got none",
        ),
        (
            {"validation": np.arange(TRAINING + TESTED) == TRAINING},
            "images marked as validation for each class, got none of light (1 classes)",
        ),
        (
            {"validation": np.arange(TRAINING + TESTED) >= 5},
            "at least 10 images for training, got 5",
        ),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused_before_training(
    changes: dict[str, np.ndarray],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_packed(tmp_path / "drawn.npz", **changes)
    assert main(["vgg16-base", "--data", "drawn.npz", "--out", "models"]) == 1
    assert message in capsys.readouterr().err


def test_names_are_short_where_they_stay_different() -> None:
    classes = ("n02123045 tabby, tabby cat", "n02129604 crane, bird", "n03126707 crane")
    assert label_names(classes) == ("tabby", "crane, bird", "crane")
    assert label_names(("plain", "names")) == ("plain", "names")


def test_images_grow_from_stage_to_stage() -> None:
    sides = [stage.side for stage in STAGES]
    assert sides == sorted(sides)
    assert all(stage.cycle >= 1 for stage in STAGES)  # none stands still at its end


def test_learning_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    cycle = OneCycle(0.1, 1000)
    rates = [
        float(keras.ops.convert_to_numpy(cycle(step))) for step in (0, 25, 50, 525, 1000, 2000)
    ]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.05, 0, 0], abs=1e-6)
