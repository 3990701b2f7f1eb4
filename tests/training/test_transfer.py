"""From a folder of photos that no recipe has seen to a served model, with no code."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

pytest.importorskip("tensorflow", reason="training needs TensorFlow")

import keras

from service.artifacts.manifest import Manifest, read_manifest
from service.pixels.spec import Cover, Input
from service.tasks import TASKS
from service.tasks.classification import ClassificationSpec
from tests.conftest import SHIPPED_MODELS
from tests.drawing import encode
from tests.server import serve
from tests.training.tiny import options
from training import measure, transfer
from training.__main__ import main
from training.fit import fit
from training.folders import find_photos
from training.photos import read_photos
from training.vgg16 import load_base

BASE = SHIPPED_MODELS / "vgg16-base" / "1"
if not BASE.exists():
    pytest.skip(f"{BASE} is not there to start from", allow_module_level=True)
COLORS = {"disc": (200, 40, 40), "square": (40, 60, 200), "triangle": (40, 160, 60)}


def shape(name: str, number: int) -> Image.Image:
    """A coloured shape somewhere on a light ground."""
    random = np.random.default_rng([sum(map(ord, name)), number])
    ground = tuple(int(level) for level in random.integers(180, 255, 3))
    image = Image.new("RGB", (90, 70), ground)
    draw = ImageDraw.Draw(image)
    (x, y), side = random.integers((5, 5), (40, 20)).tolist(), int(random.integers(25, 45))
    match name:
        case "disc":
            draw.ellipse((x, y, x + side, y + side), COLORS[name])
        case "square":
            draw.rectangle((x, y, x + side, y + side), COLORS[name])
        case _:
            draw.polygon([(x, y + side), (x + side // 2, y), (x + side, y + side)], COLORS[name])
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 photos of each of three classes, and a file that is none."""
    root = tmp_path_factory.mktemp("transfer") / "Coloured Shapes"
    for name in COLORS:
        (root / name).mkdir(parents=True)
        for number in range(24):
            shape(name, number).save(root / name / f"{number}.jpg")
    (root / "disc" / "notes.txt").write_text("no image")
    return root


@pytest.fixture(scope="module")
def models(folder: Path) -> Path:
    out = folder.parent / "models"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        patch.setattr(measure, "TIMED_ROUNDS", 2)  # of four engines; twenty take a minute
        command = ["transfer", "--data", folder, "--base", BASE, "--size", "32", "--epochs", "10"]
        assert main([*map(str, command), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def manifest(models: Path) -> Manifest:
    return read_manifest(models / "coloured-shapes" / "1", TASKS)


@pytest.mark.slow
def test_model_is_named_after_its_folder_and_its_classes_after_theirs(manifest: Manifest) -> None:
    assert (manifest.name, manifest.task) == (
        "coloured-shapes",
        ClassificationSpec(labels=tuple(COLORS)),
    )
    assert manifest.input.shape == (32, 32, 3)


@pytest.mark.slow
def test_manifest_says_what_it_stands_on(manifest: Manifest) -> None:
    assert manifest.training.base == "vgg16-base 1"
    assert manifest.input.scale == read_manifest(BASE, TASKS).input.scale
    assert manifest.training.arguments["size"] == 32


@pytest.mark.slow
def test_shapes_are_told_apart(manifest: Manifest) -> None:
    assert manifest.metrics["test_count"] == 12  # four of each, held out
    assert manifest.metrics["accuracy"] >= 0.9


@pytest.mark.slow
def test_files_are_small(models: Path) -> None:
    folder = models / "coloured-shapes" / "1"
    assert (folder / "model.tflite").stat().st_size < 20_000_000
    assert (folder / "model.keras").stat().st_size < 32_000_000


@pytest.mark.slow
def test_service_answers_right_for_a_shape_that_it_has_never_seen(
    models: Path, tmp_path: Path
) -> None:
    with serve(tmp_path, models_dir=models, workers=1) as server:
        for name in COLORS:
            image = encode(shape(name, 1000), "PNG")
            url = f"{server.url}/v1/models/coloured-shapes:predict"
            answer = httpx.post(url, content=image, timeout=30).json()
            assert answer["predictions"][0]["label"] == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a folder of photos: --data FOLDER"),
        (["--data", "nowhere"], "is not a folder: expected a folder with one folder of images"),
        (
            ["--data", "nowhere", "--base", "elsewhere"],  # the folder before the base
            "is not a folder: expected a folder with one folder of images",
        ),
        (["--data", "photos", "--base", "elsewhere"], "--base: expected imagenet or the folder"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    base = [] if "--base" in arguments else ["--base", str(BASE)]
    assert main(["transfer", "--out", "models", *base, *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_head_learns_alone_before_the_convolutions_do_slowly(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Input(shape=(32, 32, 3), color="rgb", resize=Cover())
    photos = read_photos(folder, find_photos(folder, 4), spec, tmp_path, seed=1)
    stages = []

    def watched(model: Any, *arguments: Any, **named: Any) -> Any:
        network = model.layers[-1]
        before = network.get_weights()
        history = fit(model, *arguments, **named)
        moved = [
            float(np.abs(new - old).max())
            for old, new in zip(before, network.get_weights(), strict=True)
        ]
        stages.append((max(moved[:-2]), max(moved[-2:]), model.optimizer.learning_rate))
        return history

    monkeypatch.setattr(transfer, "fit", watched)
    asked = replace(options(tmp_path), epochs=2)
    how = {"policy": "float32", "checkpoints": tmp_path / "checkpoints", "options": asked}
    transfer.train(photos, load_base(str(BASE)), spec, **how)
    (head_convolutions, head, _), (convolutions, _, _) = stages
    assert head_convolutions == 0
    assert head > 1e-3
    assert 0 < convolutions < 1e-4
    assert [float(rate) for _, _, rate in stages] == pytest.approx([0, 0], abs=1e-9)


def test_photos_are_mirrored_and_moved_and_their_borders_go_on() -> None:
    photo = np.full((32, 64, 64, 3), 0.25, np.float32)
    photo[:, :, 40:] = 0.75  # light on the right
    augmented = keras.Sequential(transfer.augmentation())(photo, training=True)
    columns = keras.ops.convert_to_numpy(augmented)[:, 32, :, 0]
    assert {bool(column[0] > column[-1]) for column in columns} == {True, False}
    assert len({int(np.abs(np.diff(column)).argmax()) for column in columns}) > 5
    assert columns.min() > 0.2


@pytest.mark.parametrize("recipe", ["cats-vs-dogs", "doggy-door", "clothing"])
def test_recipe_of_certain_classes_takes_no_others(
    recipe: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["--data", str(folder), "--base", str(BASE), "--size", "32", "--out", "models"]
    assert main([recipe, *asked]) == 1
    message = capsys.readouterr().err
    assert "got disc, square, triangle; use the recipe `transfer`" in message


@pytest.mark.parametrize(
    "arguments", [["--name", "Not A Name"], ["--size", "31"], ["--size", "big"]]
)
def test_bad_option_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["transfer", *arguments])
    assert f"got {arguments[1]!r}" in capsys.readouterr().err


@pytest.mark.slow
def test_card_shows_the_base(models: Path) -> None:
    card = (models / "coloured-shapes" / "1" / "README.md").read_text()
    assert "It starts from the weights of vgg16-base 1." in card
    manifest: Any = json.loads((models / "coloured-shapes" / "1" / "manifest.json").read_text())
    assert manifest["training"]["base"] == "vgg16-base 1"
    assert manifest["training"]["arguments"]["base"] == "models/vgg16-base/1"  # on any machine
    assert "51 photos for training, 9 for validation, 12 for testing." in card
