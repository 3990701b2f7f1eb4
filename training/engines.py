"""The engines of an artifact: every candidate is made and measured, and the best is chosen."""

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from service.engine import Engine as RunningEngine
from service.engine import KerasEngine, LiteRTEngine
from service.manifest import Device, Engine, EngineName
from service.preprocess import Floats
from training.data import Labels
from training.errors import ExportError
from training.evaluation import as_posted, mean_psnr
from training.half import halve_weights

# What a choice may cost, against the float network on the validation split.
MAX_ACCURACY_LOSS = 0.005
MIN_LABEL_AGREEMENT = 0.99
MAX_PSNR_LOSS_DB = 0.1
# What LiteRT may differ by in float32: more is a mistake of the conversion.
MAX_ABS_DIFFERENCE = 1e-3
MIN_FLOAT_AGREEMENT = 0.999

HALF_ABOVE = 5_000_000  # parameters: larger networks are stored in half precision
CALIBRATION_IMAGES = 100
COMPARISON_BATCH = 50
TIMED_BATCHES = (1, 8, 32)
MAX_BATCH_S = 0.5  # a batch that takes longer is not served, and not timed
TIMED_RUNS = 20

Engines = dict[EngineName, Engine]


def write_engines(
    network: keras.Model,
    inputs: Floats,
    truth: Labels | Floats,
    sample: Floats,
    folder: Path,
) -> tuple[Engines, dict[Device, EngineName]]:
    """Write model.keras and the chosen model.tflite; returns all that was measured and the choice.

    inputs are validation images as the network takes them, truth their labels (n,) or the images
    that a denoiser should give, sample the one image that every engine must give the same label.
    Raises ExportError if LiteRT and Keras disagree.
    """
    model = folder / "model.keras"
    network.save(model)
    if network.count_params() > HALF_ABOVE:
        try:
            halve_weights(model)
        except OverflowError as error:
            raise ExportError(f"expected weights for half precision: {error}") from error
    stored = keras.saving.load_model(model, compile=False)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        mixed = np.random.default_rng(0).permutation(len(inputs))
        files = _convert(stored, inputs[mixed[:CALIBRATION_IMAGES]], Path(scratch))
        running: dict[EngineName, RunningEngine] = {
            "keras": KerasEngine(model, "cpu"),
            **{name: LiteRTEngine(file, 1, name) for name, file in files.items()},
            "keras-half": KerasEngine(model, "cpu", "keras-half"),
        }
        sizes = _sizes([running[name] for name in files], inputs[:1])
        expected = _answers(running["keras"], inputs)
        if not np.isfinite(expected).all():
            raise ExportError("expected a network that answers numbers, got one that does not")
        measured = {
            name: _measure(engine, inputs, expected, truth, sizes)
            for name, engine in running.items()
        }
        engines = {name: engine for name, engine in measured.items() if engine is not None}
        _check_conversion(engines.get("litert"))
        if truth.ndim == 1:
            label = _label(running["keras"], sample)
            alike = {
                n: engine for n, engine in engines.items() if _label(running[n], sample) == label
            }
        else:
            alike = engines
        choice = choose(alike)
        files[choice["cpu"]].replace(folder / "model.tflite")
    kept = {"keras": model.name, "keras-half": model.name, choice["cpu"]: "model.tflite"}
    return {
        name: engine.model_copy(update={"file": kept.get(name)}) for name, engine in engines.items()
    }, choice


def choose(engines: Engines) -> dict[Device, EngineName]:
    """The fastest that are right enough: of LiteRT's for the CPU, of Keras's for the GPU.

    On a CPU Keras is measured for comparison: it would have to win by more than TensorFlow's 2 GB
    in every place that serves. On a GPU half precision is always the faster one. Raises ExportError
    if none of LiteRT's is right enough.
    """
    float32 = engines["keras"]
    right = [name for name, engine in engines.items() if _is_right(engine, float32)]
    lite = [name for name in right if name.startswith("litert")]
    if not lite:
        raise ExportError(
            "expected the sample's label and the accuracy of Keras from one of LiteRT's engines, "
            f"got them from {', '.join(right)} alone"
        )
    return {
        "cpu": min(lite, key=lambda name: _milliseconds_per_image(engines[name])),
        "gpu": "keras-half" if "keras-half" in right else "keras",
    }


def _is_right(engine: Engine, float32: Engine) -> bool:
    if engine.accuracy is not None and float32.accuracy is not None:
        loss = float32.accuracy - engine.accuracy
        return loss <= MAX_ACCURACY_LOSS and (engine.label_agreement or 0) >= MIN_LABEL_AGREEMENT
    assert engine.psnr_db is not None
    assert float32.psnr_db is not None
    return float32.psnr_db - engine.psnr_db <= MAX_PSNR_LOSS_DB


def _milliseconds_per_image(engine: Engine) -> float:
    """The geometric mean over the measured batch sizes: each counts alike."""
    each = [milliseconds / int(size) for size, milliseconds in engine.milliseconds.items()]
    return float(np.exp(np.mean(np.log(each))))


def _convert(network: keras.Model, images: Floats, folder: Path) -> dict[EngineName, Path]:
    """The network as float32, with weights in 8 bits, and with activations in 8 bits, too."""
    import tensorflow as tf

    def calibration() -> Iterator[list[Floats]]:
        yield from ([image[np.newaxis]] for image in images)

    saved = folder / "saved"
    network.export(saved, verbose=False)
    files: dict[EngineName, Path] = {}
    names: tuple[EngineName, ...] = ("litert", "litert-dynamic-int8", "litert-int8")
    for name in tqdm(names, "convert"):
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
        if name != "litert":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if name == "litert-int8":
            converter.representative_dataset = calibration
        try:
            converted = converter.convert()
        except Exception as error:  # of whatever kind the converter's is
            if name == "litert":
                raise ExportError(f"LiteRT cannot take this network: {error}") from error
            print(f"No {name}: the network cannot be converted: {error}")
            continue
        files[name] = folder / f"{name}.tflite"
        files[name].write_bytes(converted)
    return files


def _measure(
    engine: RunningEngine,
    inputs: Floats,
    expected: Floats,
    truth: Labels | Floats,
    sizes: tuple[int, ...],
) -> Engine | None:
    """What an engine costs; None for one that does not answer numbers."""
    came = _answers(engine, inputs)
    if not np.isfinite(came).all():
        print(f"No {engine.name}: some of its answers are no numbers")
        return None
    measured: dict[str, Any] = {"max_abs_difference": float(np.abs(expected - came).max())}
    if truth.ndim == 1:
        labels = came.argmax(axis=1)
        measured["label_agreement"] = float((labels == expected.argmax(axis=1)).mean())
        measured["accuracy"] = float((labels == truth).mean())
    else:
        measured["psnr_db"] = mean_psnr(np.asarray(truth, np.float32), as_posted(came))
    rounded = {name: round(value, 6) for name, value in measured.items()}
    return Engine(**rounded, milliseconds=_milliseconds(engine, inputs[:1], sizes))


def _label(engine: RunningEngine, image: Floats) -> int:
    return int(engine.predict(image)[0].argmax())


def _check_conversion(lite: Engine | None) -> None:
    if lite is None:
        raise ExportError("expected numbers from LiteRT in float32, got something else")
    agreement = lite.label_agreement
    if not lite.max_abs_difference <= MAX_ABS_DIFFERENCE or (
        agreement is not None and agreement < MIN_FLOAT_AGREEMENT
    ):
        raise ExportError(
            f"LiteRT differs from Keras on the validation images: outputs by up to "
            f"{lite.max_abs_difference:.2g} (at most {MAX_ABS_DIFFERENCE}), same label on "
            f"{agreement} of them (at least {MIN_FLOAT_AGREEMENT})"
        )


def _answers(engine: RunningEngine, images: Floats) -> Floats:
    starts = tqdm(range(0, len(images), COMPARISON_BATCH), f"compare {engine.name}")
    return np.concatenate([engine.predict(images[i : i + COMPARISON_BATCH]) for i in starts])


def _sizes(engines: list[RunningEngine], example: Floats) -> tuple[int, ...]:
    """The batches that the fastest engine computes in good time."""
    for engine in engines:
        engine.predict(example)
    alone_s = min(_median_s(partial(engine.predict, example), 3) for engine in engines)
    return tuple(size for size in TIMED_BATCHES if size == 1 or size * alone_s <= MAX_BATCH_S)


def _milliseconds(
    engine: RunningEngine, example: Floats, sizes: tuple[int, ...]
) -> dict[str, float]:
    """Median time of one `predict` by batch size, largest first so that buffers are in place."""
    medians: dict[str, float] = {}
    for size in sorted(sizes, reverse=True):
        batch = np.repeat(example, size, axis=0)
        engine.predict(batch)
        medians[str(size)] = round(1000 * _median_s(partial(engine.predict, batch), TIMED_RUNS), 4)
    return dict(reversed(medians.items()))


def _median_s(run: "partial[Floats]", times: int) -> float:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))
