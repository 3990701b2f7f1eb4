"""From a trained network to an artifact that the service loads; the manifest is written last."""

import hashlib
import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import keras
import numpy as np
from PIL import Image

from service.artifacts.manifest import (
    SCHEMA,
    Device,
    EngineName,
    ExpectedImage,
    ExpectedLabel,
    File,
    Manifest,
    Output,
    Sample,
    Training,
    write_manifest,
)
from service.engines.engine import Engine as RunningEngine
from service.engines.engine import open_engine
from service.pixels.preprocess import Floats, preprocess, to_pixels
from service.pixels.spec import Input, Tiling
from service.pixels.tiles import predict_tiled
from training.card import Card, render_card
from training.data import Labels
from training.engines import write_engines
from training.measure import Engines
from training.options import Options

# What one processor's rounding may differ by from another's, beside what the engines do.
TOLERANCE, TOLERANCE_LEVELS = 0.02, 2
CALIBRATION_IMAGES = 400
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
    calibration: Floats
    """Training images as the network takes them, that 8 bits are fitted to: CALIBRATION_IMAGES."""
    metrics: dict[str, float]
    sample: Image.Image
    dataset: str
    dataset_sha256: dict[str, str]
    seconds: float
    card: Card
    draw_figures: Callable[[Path], None]
    tiling: Tiling | None = None
    base: str | None = None
    base_sha256: str | None = None


def export(trained: Trained, options: Options) -> Path:
    """Write `<out>/<name>/<next version>/`; raises ExportError as `write_engines` does."""
    parent = options.out / trained.name
    parent.mkdir(parents=True, exist_ok=True)
    version = str(1 + max((int(p.name) for p in parent.iterdir() if p.name.isdigit()), default=0))
    with tempfile.TemporaryDirectory(dir=parent, prefix=".writing-") as scratch:
        folder = Path(scratch) / version
        folder.mkdir()
        batch = preprocess(trained.sample, trained.input)[np.newaxis]
        engines, choice = write_engines(
            trained.network,
            folder,
            inputs=trained.validation,
            truth=trained.validation_truth,
            calibration=trained.calibration,
            sample=batch,
        )
        sample = _write_sample(trained, batch, folder, engines, tuple(choice.values()))
        trained.draw_figures(folder)
        draft = _manifest(trained, options, version, engines=engines, choice=choice, sample=sample)
        (folder / "README.md").write_text(render_card(draft, trained.card))
        files = {
            path.name: File(
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(), bytes=path.stat().st_size
            )
            for path in sorted(folder.iterdir())
        }
        write_manifest(folder, draft.model_copy(update={"files": files}))
        return Path(shutil.move(folder, parent / version))


def _write_sample(
    trained: Trained,
    batch: Floats,
    folder: Path,
    engines: Engines,
    served: Sequence[EngineName],
) -> Sample:
    """Record what the float network answers to the sample, and how far the served engines are off.

    Their label is the same: `write_engines` serves no other.
    """
    trained.sample.save(folder / "sample.png", optimize=True)
    answers = [
        _answer(trained, open_engine(name, folder / str(engines[name].file), "cpu", 1), batch)
        for name in ("keras", *served)
    ]
    if trained.tiling is not None:
        pixels = [to_pixels(answer).astype(int) for answer in answers]
        Image.fromarray(to_pixels(answers[0])[0, :, :, 0]).save(
            folder / "sample-expected.png", optimize=True
        )
        off = max(int(np.abs(image - pixels[0]).max()) for image in pixels)
        expected_image = ExpectedImage(file="sample-expected.png", tolerance=TOLERANCE_LEVELS + off)
        return Sample(file="sample.png", expected=expected_image)
    index = int(answers[0][0].argmax())
    probabilities = [float(answer[0][index]) for answer in answers]
    off_by = max(abs(probability - probabilities[0]) for probability in probabilities)
    expected = ExpectedLabel(
        label=trained.labels[index],
        index=index,
        probability=round(probabilities[0], 6),
        tolerance=round(TOLERANCE + off_by, 6),
    )
    return Sample(file="sample.png", expected=expected)


def _answer(trained: Trained, engine: RunningEngine, batch: Floats) -> Floats:
    if trained.tiling is None:
        return engine.predict(batch)
    return predict_tiled(batch, engine.predict, trained.tiling)


def _manifest(
    trained: Trained,
    options: Options,
    version: str,
    *,
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
            base_sha256=trained.base_sha256,
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
