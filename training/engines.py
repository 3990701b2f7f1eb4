"""The engines of an artifact: every candidate is made and measured, and the best is chosen."""

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from service.artifacts.manifest import Device, Engine, EngineName
from service.engines.device import open_engine
from service.engines.engine import Engine as RunningEngine
from service.pixels.preprocess import Floats
from training.conversion import convert
from training.errors import ExportError
from training.half import halve_weights
from training.measure import MAX_BATCH_S, Engines, measure
from training.tasks.task import INPUT, Outputs, TrainingTask

HALF_ABOVE = 5_000_000  # parameters: larger networks are stored in half precision
SAME_SPEED = 1.1  # up to this ratio of times, the order may differ in another measurement


def write_engines(
    network: keras.Model,
    folder: Path,
    task: TrainingTask,
    *,
    inputs: Floats,
    truth: Any,
    calibration: Floats,
    sample: Floats,
) -> tuple[Engines, dict[Device, EngineName]]:
    """Write model.keras and the chosen model.tflite; returns the measurements and the choice.

    `inputs` are preprocessed validation images and `truth` their right answers, in the task's form.
    The 8-bit engines are fitted to `calibration`, preprocessed training images. Every engine must
    give the same answer to `sample`, one image (height, width, channels). Raises ExportError for
    weights that half precision does not hold, for outputs that are not finite, and if none of
    LiteRT's engines is accurate enough.
    """
    model = folder / "model.keras"
    network.save(model)
    if network.count_params() > HALF_ABOVE:
        halve_weights(model)
    stored = keras.saving.load_model(model, compile=False)
    _check_stored(network, stored)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        files = convert(stored, calibration, Path(scratch))
        candidates: dict[EngineName, Path] = {"keras": model, **files, "keras-half": model}
        tensors = {"inputs": [INPUT], "outputs": list(task.outputs())}
        running = {
            name: open_engine(name, file, "cpu", 1, **tensors) for name, file in candidates.items()
        }
        engines = measure(running, inputs, truth, task)
        if "litert" not in engines:
            raise ExportError("expected finite outputs from LiteRT in float32, got NaN or infinity")
        task.check_conversion(engines["litert"])
        choice = choose(_that_agree(engines, running, sample, task), task)
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


def choose(engines: Engines, task: TrainingTask) -> dict[Device, EngineName]:
    """The fastest accurate engine for each device: one of LiteRT for the CPU, of Keras for the GPU.

    Among engines of about the same speed the most exact one is taken. On a CPU, Keras is measured
    for comparison only: serving it would add TensorFlow's 2 GB to every installation. On a GPU,
    which export may not have, half precision is assumed to be the faster one. Raises ExportError if
    no engine of LiteRT is accurate enough.
    """
    float32 = engines["keras"].quality
    right = [name for name, engine in engines.items() if task.is_right(engine.quality, float32)]
    lite = {
        name: _milliseconds_per_image(engines[name]) for name in right if name.startswith("litert")
    }
    if not lite:
        raise ExportError(
            "expected an engine of LiteRT with the sample's answer and the quality of Keras, "
            f"got only {', '.join(right)}"
        )
    fast = [name for name in lite if lite[name] <= SAME_SPEED * min(lite.values())]
    return {
        "cpu": min(fast, key=lambda name: engines[name].max_abs_difference),
        "gpu": "keras-half" if "keras-half" in right else "keras",
    }


def _milliseconds_per_image(engine: Engine) -> float:
    """The geometric mean over the measured batch sizes: each counts alike."""
    each = [milliseconds / int(size) for size, milliseconds in engine.milliseconds.items()]
    return float(np.exp(np.mean(np.log(each))))


def _that_agree(
    engines: Engines,
    running: dict[EngineName, RunningEngine],
    sample: Floats,
    task: TrainingTask,
) -> Engines:
    """The engines that give the answer of Keras to the sample."""
    answers = {name: sample_answer(running[name], sample, task) for name in engines}
    return {
        name: engine
        for name, engine in engines.items()
        if task.agree(answers[name], answers["keras"])
    }


def sample_answer(engine: RunningEngine, sample: Floats, task: TrainingTask) -> Outputs:
    """An engine's outputs for one image (height, width, channels)."""
    return task.answer(sample, lambda batch: engine.predict({INPUT: batch}))


def _check_stored(network: keras.Model, stored: keras.Model) -> None:
    for tested, kept in zip(network.get_weights(), stored.get_weights(), strict=True):
        if not np.array_equal(tested, kept):
            raise ExportError(
                f"expected weights that float16 holds exactly, because the network has more than "
                f"{HALF_ABOVE:,} parameters: call training.half.round_to_half before testing it"
            )
