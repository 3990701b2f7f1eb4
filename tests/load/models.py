"""The models under load, as their manifests describe them; read without the service's code."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.load.pictures import Picture, read_folder, read_picture
from tests.load.tasks import TASKS, Task

SCHEMA = 2


@dataclass(frozen=True)
class Model:
    """A model, what is sent to it, and the recorded answer to its own sample."""

    name: str
    task: Task[Any]
    sample: Picture
    recorded: Any
    """Of the type that the task answers with."""
    pictures: tuple[Picture, ...]


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
    if manifest["schema"] != SCHEMA:
        raise ValueError(
            f"{path}: expected schema {SCHEMA}, got {manifest['schema']}; "
            "`python -m training upgrade` converts manifests"
        )
    kind = manifest["task"]["type"]
    if kind not in TASKS:
        raise ValueError(f"{path}: expected a task of {', '.join(TASKS)}, got {kind!r}")
    task = TASKS[kind](manifest)
    sample = read_picture(path.parent / manifest["sample"]["file"], "sample")
    return Model(
        name=manifest["name"],
        task=task,
        sample=sample,
        recorded=task.recorded(manifest["sample"]["expected"], path.parent),
        pictures=tuple(pictures or [sample, *task.drawings()]),
    )


def default_mix(served: Iterable[str], models: Mapping[str, Model]) -> dict[str, float]:
    """The weight of every served model; raises ValueError for one without a manifest here."""
    names = list(served)
    _check_known(names, models)
    return {name: models[name].task.cost.weight for name in names}


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
