"""The engines of an artifact: every candidate is made and measured, and the best is chosen."""

import tempfile
from pathlib import Path

import keras
import numpy as np

from service.artifacts.manifest import Device, Engine, EngineName
from service.engines.engine import Engine as RunningEngine
from service.engines.engine import KerasEngine, LiteRTEngine
from service.pixels.preprocess import Floats
from training.conversion import convert
from training.data import Labels
from training.errors import ExportError
from training.half import halve_weights
from training.measure import MAX_BATCH_S, Engines, measure

# What a choice may cost, against the float network on the validation split.
MAX_ACCURACY_LOSS = 0.005
MIN_LABEL_AGREEMENT = 0.99
MAX_PSNR_LOSS_DB = 0.1
# What LiteRT may differ by in float32: more is a mistake of the conversion.
MAX_ABS_DIFFERENCE = 1e-3
MIN_FLOAT_AGREEMENT = 0.999

HALF_ABOVE = 5_000_000  # parameters: larger networks are stored in half precision
SAME_SPEED = 1.1  # a ratio of times that another measurement may turn round


def write_engines(
    network: keras.Model,
    folder: Path,
    *,
    inputs: Floats,
    truth: Labels | Floats,
    calibration: Floats,
    sample: Floats,
) -> tuple[Engines, dict[Device, EngineName]]:
    """Write model.keras and the chosen model.tflite; returns all that was measured and the choice.

    inputs are validation images as the network takes them, truth their labels (n,) or the images
    that a denoiser should give, calibration images that 8 bits are fitted to, sample the one image
    that every engine must give the same label. Raises ExportError for weights that half precision
    does not hold, answers that are no numbers, and where none of LiteRT's engines is right.
    """
    model = folder / "model.keras"
    network.save(model)
    if network.count_params() > HALF_ABOVE:
        halve_weights(model)
    stored = keras.saving.load_model(model, compile=False)
    _check_stored(network, stored)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        files = convert(stored, calibration, Path(scratch))
        running: dict[EngineName, RunningEngine] = {
            "keras": KerasEngine(model, "cpu"),
            **{name: LiteRTEngine(file, 1, name) for name, file in files.items()},
            "keras-half": KerasEngine(model, "cpu", "keras-half"),
        }
        engines = measure(running, inputs, truth)
        _check_conversion(engines.get("litert"))
        choice = choose(_alike(engines, running, sample) if truth.ndim == 1 else engines)
        files[choice["cpu"]].replace(folder / "model.tflite")
    kept = {"keras": model.name, "keras-half": model.name, choice["cpu"]: "model.tflite"}
    served = engines[choice["cpu"]].milliseconds
    quick = [size for size in served if size == "1" or served[size] <= 1000 * MAX_BATCH_S]
    return {
        name: Engine(
            **engine.model_dump(exclude={"file", "milliseconds"}),
            file=kept.get(name),
            milliseconds={size: engine.milliseconds[size] for size in quick},
        )
        for name, engine in engines.items()
    }, choice


def choose(engines: Engines) -> dict[Device, EngineName]:
    """The fastest that are right enough: of LiteRT's for the CPU, of Keras's for the GPU.

    Of engines that are as fast as each other, the most exact. On a CPU Keras is measured for
    comparison: it would have to win by more than TensorFlow's 2 GB in every place that serves. On a
    GPU, which export may not have, half precision is taken for the faster one. Raises ExportError
    if none of LiteRT's is right enough.
    """
    float32 = engines["keras"]
    right = [name for name, engine in engines.items() if _is_right(engine, float32)]
    lite = {
        name: _milliseconds_per_image(engines[name]) for name in right if name.startswith("litert")
    }
    if not lite:
        raise ExportError(
            "expected the sample's label and the accuracy of Keras from one of LiteRT's engines, "
            f"got them from {', '.join(right)} alone"
        )
    fast = [name for name in lite if lite[name] <= SAME_SPEED * min(lite.values())]
    return {
        "cpu": min(fast, key=lambda name: engines[name].max_abs_difference),
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


def _alike(engines: Engines, running: dict[EngineName, RunningEngine], sample: Floats) -> Engines:
    """Those that give the sample the label that Keras gives it."""
    labels = {name: int(running[name].predict(sample)[0].argmax()) for name in engines}
    return {name: engine for name, engine in engines.items() if labels[name] == labels["keras"]}


def _check_stored(network: keras.Model, stored: keras.Model) -> None:
    for tested, kept in zip(network.get_weights(), stored.get_weights(), strict=True):
        if not np.array_equal(tested, kept):
            raise ExportError(
                f"expected a network whose weights float16 holds, for it has more than "
                f"{HALF_ABOVE:,} parameters: call training.half.round_to_half before testing it"
            )


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
