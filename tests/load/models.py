"""The models under load, as their manifests describe them; read without the service's code."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.load.pictures import Picture, drawing, photo, read_folder, read_picture

# What an image costs: a network of at least this many parameters is large, as VGG16 is.
LARGE_PARAMETERS = 1_000_000
# Cheap ones are asked for more often.
DEFAULT_WEIGHTS = {"small": 8, "denoising": 2, "large": 1}


@dataclass(frozen=True)
class Model:
    """A model, what is sent to it, and the recorded answer to its own sample."""

    name: str
    cost: str
    labels: tuple[str, ...]
    sample: Picture
    expected: Mapping[str, Any]
    """As in the manifest: label, probability, tolerance; or file and tolerance, in levels."""
    expected_image: bytes | None
    pictures: tuple[Picture, ...]

    @property
    def denoises(self) -> bool:
        """Whether it answers with an image."""
        return self.cost == "denoising"


def read_models(models_dir: Path, images: Path | None) -> dict[str, Model]:
    """The newest version of every model in a folder; `images` are sent instead of the own ones.

    Raises ValueError where there is no model, or no image.
    """
    pictures = read_folder(images) if images else None
    paths = sorted(models_dir.glob("*/*/manifest.json"), key=lambda path: int(path.parent.name))
    if not paths:
        raise ValueError(f"expected models/<name>/<version>/manifest.json in {models_dir}")
    models = (_read(path, pictures) for path in paths)
    return {model.name: model for model in models}


def _read(path: Path, pictures: list[Picture] | None) -> Model:
    manifest = json.loads(path.read_bytes())
    denoises = manifest["task"] == "denoising"
    large = manifest["parameters"] >= LARGE_PARAMETERS
    sample, expected = manifest["sample"], manifest["sample"]["expected"]
    own = read_picture(path.parent / sample["file"], "sample")
    return Model(
        name=manifest["name"],
        cost="denoising" if denoises else "large" if large else "small",
        labels=tuple(manifest["labels"]),
        sample=own,
        expected=expected,
        expected_image=(path.parent / expected["file"]).read_bytes() if denoises else None,
        # To denoise a photo takes hundreds of times what a small image takes.
        pictures=tuple(pictures or [own, drawing(), *([] if denoises else [photo()])]),
    )


def default_mix(served: Iterable[str], models: Mapping[str, Model]) -> dict[str, float]:
    """The weight of every served model; raises ValueError for one without a manifest here."""
    names = list(served)
    _check_known(names, models)
    return {name: DEFAULT_WEIGHTS[models[name].cost] for name in names}


def parse_mix(text: str, models: Mapping[str, Model]) -> dict[str, float]:
    """`fashion-mnist=8,denoiser=1` -> weights; raises ValueError."""
    mix = parse_figures(text)
    _check_known(mix, models)
    if not sum(mix.values()):
        raise ValueError(f"expected a weight above 0 in the mix, got {text!r}")
    return mix


def parse_figures(text: str) -> dict[str, float]:
    """`name=number,…` -> a dictionary; raises ValueError."""
    figures = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            figures[name.strip()] = float(number)
        except ValueError:
            raise ValueError(f"expected name=number, got {part!r} in {text!r}") from None
        if not 0 <= figures[name.strip()] < float("inf"):
            raise ValueError(f"expected a number of at least 0, got {part!r} in {text!r}")
    return figures


def _check_known(names: Iterable[str], models: Mapping[str, Model]) -> None:
    unknown = set(names) - models.keys()
    if unknown:
        raise ValueError(
            f"expected a manifest of every model in the mix, got none of "
            f"{', '.join(sorted(unknown))}; there are {', '.join(sorted(models))}"
        )
