import json
from pathlib import Path

import pytest

from tests.conftest import SHIPPED_MODELS
from tests.drawing import encode, gradient
from tests.load.models import default_mix, parse_mix, read_models

MODELS = read_models(SHIPPED_MODELS, None)


def test_models_are_known_by_what_an_image_costs() -> None:
    costs = {name: model.task.cost.name for name, model in MODELS.items()}
    assert costs["fashion-mnist"] == costs["hand-signs"] == "small"
    assert costs["cats-vs-dogs"] == "large"
    assert costs["denoiser"] == "denoising"


def test_default_mix_asks_cheap_models_more_often() -> None:
    mix = default_mix(["fashion-mnist", "denoiser", "cats-vs-dogs"], MODELS)
    assert mix["fashion-mnist"] > mix["denoiser"] > mix["cats-vs-dogs"] > 0


def test_mix_is_read_from_names_and_weights() -> None:
    assert parse_mix("fashion-mnist=8, denoiser=0.5", MODELS) == {
        "fashion-mnist": 8,
        "denoiser": 0.5,
    }


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ("fashion-mnist", "expected name=number, got 'fashion-mnist'"),
        ("fashion-mnist=-1", "expected a number of at least 0"),
        ("fashion-mnist=0", "expected a weight above 0"),
        ("no-such=1", "expected a manifest of every model in the mix, got none of no-such"),
    ],
)
def test_mix_that_makes_no_sense(mix: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_mix(mix, MODELS)


def test_folder_of_images_replaces_the_own_ones(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "one.jpg").write_bytes(encode(gradient(40, 30), "JPEG"))
    (tmp_path / "notes.txt").write_text("no image")
    pictures = read_models(SHIPPED_MODELS, tmp_path)["hand-signs"].pictures
    assert [(each.name, each.media_type, each.size) for each in pictures] == [
        ("below/one.jpg", "image/jpeg", (40, 30))
    ]


def test_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected images"):
        read_models(SHIPPED_MODELS, tmp_path)


def test_file_that_only_looks_like_an_image(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"expected an image, got .*one\.png"):
        read_models(SHIPPED_MODELS, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": {"type": "juggling"}}, "expected a task of classification, denoising, got 'jugg"),
        ({"schema": 1, "task": "classification"}, "expected schema 2, got 1"),
    ],
)
def test_manifest_that_is_not_understood(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    folder = tmp_path / "fashion-mnist" / "1"
    folder.mkdir(parents=True)
    manifest = json.loads((SHIPPED_MODELS / "fashion-mnist" / "1" / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(ValueError, match=message):
        read_models(tmp_path, None)
