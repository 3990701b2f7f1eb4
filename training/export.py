"""From a trained network to an artifact that the service loads; the manifest is written last."""

import hashlib
import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import keras
import numpy as np
from PIL import Image

from service.engine import LiteRTEngine
from service.manifest import (
    SCHEMA,
    Device,
    EngineName,
    ExpectedImage,
    ExpectedLabel,
    File,
    Input,
    Manifest,
    Output,
    Sample,
    Tiling,
    Training,
    write_manifest,
)
from service.preprocess import Floats, preprocess, to_pixels
from service.tiles import predict_tiled
from training.card import Card, render_card
from training.data import Labels
from training.engines import Engines, write_engines
from training.options import Options

LIBRARIES = ("keras", "tensorflow", "jax", "torch", "numpy", "pillow", "ai-edge-litert")


@dataclass(frozen=True)
class Trained:
    """A trained network and all that an artifact says of it."""

    name: str
    task: Literal["classification", "denoising"]
    labels: tuple[str, ...]
    input: Input
    output: Output
    network: keras.Model
    validation: Floats
    validation_truth: Labels | Floats
    """Labels (n,), or the images that a denoiser should give."""
    metrics: dict[str, float]
    sample: Image.Image
    dataset: str
    dataset_sha256: dict[str, str]
    seconds: float
    card: Card
    draw_figures: Callable[[Path], None]
    tiling: Tiling | None = None
    base: str | None = None


def export(trained: Trained, options: Options) -> Path:
    """Write `<out>/<name>/<next version>/`; raises ExportError if LiteRT and Keras disagree."""
    parent = options.out / trained.name
    parent.mkdir(parents=True, exist_ok=True)
    version = str(1 + max((int(p.name) for p in parent.iterdir() if p.name.isdigit()), default=0))
    with tempfile.TemporaryDirectory(dir=parent, prefix=".writing-") as scratch:
        folder = Path(scratch) / version
        folder.mkdir()
        engines, choice = write_engines(
            trained.network, trained.validation, trained.validation_truth, folder
        )
        sample = _write_sample(trained, folder)
        trained.draw_figures(folder)
        draft = _manifest(trained, options, version, engines, choice, sample)
        (folder / "README.md").write_text(render_card(draft, trained.card))
        files = {
            path.name: File(
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(), bytes=path.stat().st_size
            )
            for path in sorted(folder.iterdir())
        }
        write_manifest(folder, draft.model_copy(update={"files": files}))
        return Path(shutil.move(folder, parent / version))


def _write_sample(trained: Trained, folder: Path) -> Sample:
    trained.sample.save(folder / "sample.png", optimize=True)
    engine = LiteRTEngine(folder / "model.tflite", threads=1)
    batch = preprocess(trained.sample, trained.input)[np.newaxis]
    if trained.tiling is not None:
        pixels = to_pixels(predict_tiled(batch, engine.predict, trained.tiling))
        Image.fromarray(pixels[0, :, :, 0]).save(folder / "sample-expected.png", optimize=True)
        return Sample(file="sample.png", expected=ExpectedImage(file="sample-expected.png"))
    probabilities = engine.predict(batch)[0]
    index = int(probabilities.argmax())
    expected = ExpectedLabel(
        label=trained.labels[index], index=index, probability=round(float(probabilities[index]), 6)
    )
    return Sample(file="sample.png", expected=expected)


def _manifest(
    trained: Trained,
    options: Options,
    version: str,
    engines: Engines,
    choice: dict[Device, EngineName],
    sample: Sample,
) -> Manifest:
    return Manifest(
        schema=SCHEMA,
        name=trained.name,
        version=version,
        task=trained.task,
        labels=trained.labels,
        input=trained.input,
        output=trained.output,
        tiling=trained.tiling,
        parameters=trained.network.count_params(),
        metrics={name: round(value, 6) for name, value in trained.metrics.items()},
        engines=engines,
        engine=choice,
        files={},
        sample=sample,
        training=Training(
            recipe=options.recipe,
            arguments=options.arguments,
            seed=options.seed,
            dataset=trained.dataset,
            dataset_sha256=trained.dataset_sha256,
            base=trained.base,
            commit=options.commit,
            libraries=_library_versions(),
            seconds=round(trained.seconds, 1),
        ),
    )


def _library_versions() -> dict[str, str]:
    versions: dict[str, str] = {}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
