"""From a trained network to an artifact that the service loads; the manifest is written last."""

import hashlib
import importlib.metadata
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import keras
import numpy as np
from PIL import Image

from service.engine import Engine as RunningEngine
from service.engine import KerasEngine, LiteRTEngine
from service.manifest import (
    SCHEMA,
    Engine,
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
from training.errors import ExportError
from training.options import Options

MAX_ABS_DIFFERENCE = 1e-3
COMPARISON_BATCH = 100
TIMED_BATCHES = (1, 8, 32)
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
    metrics: dict[str, float]
    sample: Image.Image
    dataset: str
    dataset_sha256: dict[str, str]
    seconds: float
    card: Card
    draw_figures: Callable[[Path], None]
    tiling: Tiling | None = None


def export(trained: Trained, options: Options) -> Path:
    """Write `<out>/<name>/<next version>/`; raises ExportError if LiteRT and Keras disagree."""
    parent = options.out / trained.name
    parent.mkdir(parents=True, exist_ok=True)
    version = str(1 + max((int(p.name) for p in parent.iterdir() if p.name.isdigit()), default=0))
    with tempfile.TemporaryDirectory(dir=parent, prefix=".writing-") as scratch:
        folder = Path(scratch) / version
        folder.mkdir()
        engines = _write_engines(trained, folder)
        sample = _write_sample(trained, folder)
        trained.draw_figures(folder)
        draft = _manifest(trained, options, version, engines, sample)
        (folder / "README.md").write_text(render_card(draft, trained.card))
        files = {
            path.name: File(
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(), bytes=path.stat().st_size
            )
            for path in sorted(folder.iterdir())
        }
        write_manifest(folder, draft.model_copy(update={"files": files}))
        return Path(shutil.move(folder, parent / version))


def _write_engines(trained: Trained, folder: Path) -> dict[str, Engine]:
    import tensorflow as tf

    trained.network.save(folder / "model.keras")
    converted = tf.lite.TFLiteConverter.from_keras_model(trained.network).convert()
    (folder / "model.tflite").write_bytes(converted)
    truth = KerasEngine(folder / "model.keras", "cpu")
    lite = LiteRTEngine(folder / "model.tflite", threads=1)
    expected, came = _answers(truth, trained.validation), _answers(lite, trained.validation)
    difference = float(np.abs(expected - came).max())
    agreement = None
    if trained.task == "classification":
        agreement = float((expected.argmax(axis=1) == came.argmax(axis=1)).mean())
    if not difference <= MAX_ABS_DIFFERENCE or agreement not in (None, 1.0):
        raise ExportError(
            f"LiteRT differs from Keras on {len(expected)} validation images: outputs by up to "
            f"{difference:.2g} (at most {MAX_ABS_DIFFERENCE}), same label on {agreement} of them"
        )
    example = trained.validation[:1]
    return {
        "litert": Engine(
            file="model.tflite",
            max_abs_difference=difference,
            label_agreement=agreement,
            milliseconds=_milliseconds(lite, example),
        ),
        "keras": Engine(
            file="model.keras",
            max_abs_difference=0.0,
            label_agreement=None if agreement is None else 1.0,
            milliseconds=_milliseconds(truth, example),
        ),
    }


def _answers(engine: RunningEngine, images: Floats) -> Floats:
    starts = range(0, len(images), COMPARISON_BATCH)
    return np.concatenate([engine.predict(images[i : i + COMPARISON_BATCH]) for i in starts])


def _milliseconds(engine: RunningEngine, example: Floats) -> dict[str, float]:
    """Median time of one `predict` by batch size, largest first so that buffers are in place."""
    medians: dict[str, float] = {}
    for size in sorted(TIMED_BATCHES, reverse=True):
        batch = np.repeat(example, size, axis=0)
        engine.predict(batch)
        seconds = []
        for _ in range(20):
            start = time.perf_counter()
            engine.predict(batch)
            seconds.append(time.perf_counter() - start)
        medians[str(size)] = round(1000 * float(np.median(seconds)), 4)
    return dict(reversed(medians.items()))


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
    engines: dict[str, Engine],
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
        files={},
        sample=sample,
        training=Training(
            recipe=options.recipe,
            arguments=options.arguments,
            seed=options.seed,
            dataset=trained.dataset,
            dataset_sha256=trained.dataset_sha256,
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
