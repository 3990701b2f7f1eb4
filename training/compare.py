"""Compare settings of training on Fashion-MNIST: runs, a table, and a picture for each knob."""

import contextlib
import hashlib
import io
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from tqdm import tqdm

from training import fit
from training.data import Split, hold_out
from training.errors import DataError, TrainingError
from training.fit import best_epoch, fit_classifier, seed_everything
from training.knobs import KNOBS, Comparison, Setting, option_name, settings_of, value_name
from training.plots import plot_comparison
from training.recipes import fashion_mnist

SPLIT_SEED = 1  # all runs have the same validation images, so that only training differs
MAX_SHIFT = 2 / 28  # two pixels
TABLE_HEAD = "| knob | value | validation accuracy | seconds a run |\n|---|---|---|---|"

Run = dict[str, Any]
"""Setting, images and seed of one training, and what its data and code were."""


def compare(asked: Comparison) -> Path:
    """Train what has not been trained yet, then draw it; returns the table's file."""
    folder = fashion_mnist.locate(asked.data)
    training, validation = read(folder, asked.images)
    runs = Runs(asked.out / "runs.json", asked, source_of(folder))

    wanted = {  # a dictionary keeps the order; the base stands in every knob
        (setting, seed): None
        for seed in range(1, asked.seeds + 1)
        for knob in asked.knobs
        for setting in settings_of(knob, asked.base)
    }
    for setting, seed in tqdm(wanted, "runs"):
        if runs.result(setting, seed) is None:
            runs.add(setting, seed, train(setting, seed, training, validation))

    table = asked.out / "table.md"
    table.write_text(draw(runs, asked))
    return table


def read(folder: Path, images: int) -> tuple[Split, Split]:
    """The first `images` training images, and the validation images."""
    spec = fashion_mnist.input_spec("cnn", folder)
    known = fashion_mnist.load(folder, "train", spec, None)
    training, validation = hold_out(known, fashion_mnist.VALIDATION_FRACTION, SPLIT_SEED)
    if images > len(training):
        raise DataError(f"expected at most {len(training)} training images, got {images}")
    return training.first(images), validation


# --- Train
def train(setting: Setting, seed: int, training: Split, validation: Split) -> dict[str, float]:
    """The validation accuracy and the seconds of one run.

    Without early stopping the last epoch counts, with it the one with the lowest validation loss.
    """
    keras.utils.clear_session()
    seed_everything(seed)
    # An interrupted run starts over: its random state would not be the same again.
    with (
        tempfile.TemporaryDirectory() as checkpoints,
        contextlib.redirect_stdout(io.StringIO()),  # Keras's bars, within ours
    ):
        history = fit_classifier(
            with_dropout(fashion_mnist.build(setting.network), setting.dropout),
            augmentation(setting.augmentation),
            training,
            validation,
            learning_rate=fashion_mnist.LEARNING_RATE,
            label_smoothing=0.0,
            batch_size=setting.batch_size,
            epochs=setting.epochs,
            checkpoints=Path(checkpoints),
            patience=setting.early_stopping,
            monitor="val_loss",
        )
    epoch = best_epoch(history, "val_loss") if setting.early_stopping else len(history["loss"])
    return {"accuracy": history["val_accuracy"][epoch - 1], "seconds": sum(history["seconds"])}


def with_dropout(network: keras.Model, rate: float) -> keras.Model:
    """The same layers, with dropout after each hidden dense one."""

    def call(layer: layers.Layer, *inputs: Any, **how: Any) -> Any:
        output = layer(*inputs, **how)
        hidden = isinstance(layer, layers.Dense) and layer.name != network.layers[-1].name
        return layers.Dropout(rate)(output) if hidden else output

    return keras.models.clone_model(network, call_function=call) if rate else network


def augmentation(name: str) -> list[layers.Layer]:
    """Mirrors images, or moves them by up to two whole pixels, or both."""
    flips = layers.RandomFlip("horizontal")
    shifts = layers.RandomTranslation(
        MAX_SHIFT, MAX_SHIFT, fill_mode="constant", interpolation="nearest"
    )
    kinds = {"none": [], "flips": [flips], "shifts": [shifts], "flips and shifts": [flips, shifts]}
    return kinds[name]


# --- Keep
class Runs:
    """The runs that have finished, in a JSON file; one that differs in anything is another run."""

    def __init__(self, path: Path, asked: Comparison, source: str) -> None:
        self._path, self._images, self._source = path, asked.images, source
        try:
            self._done: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
        except ValueError as error:
            raise TrainingError(f"{path} cannot be read ({error}): remove it") from error

    def result(self, setting: Setting, seed: int) -> dict[str, float] | None:
        """Accuracy and seconds of a run, or None."""
        run = self._run(setting, seed)
        return next((done["result"] for done in self._done if done["run"] == run), None)

    def add(self, setting: Setting, seed: int, result: dict[str, float]) -> None:
        """Keep a result; an interruption never leaves a half-written file."""
        self._done.append({"run": self._run(setting, seed), "result": result})
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self._done, indent=1))
        new.replace(self._path)

    def _run(self, setting: Setting, seed: int) -> Run:
        return {**asdict(setting), "images": self._images, "seed": seed, "source": self._source}


def source_of(folder: Path) -> str:
    """Changes with the images, the networks or how they are trained."""
    files = [*(folder / file for file in fashion_mnist.FILES[:2])]
    files += [Path(str(module.__file__)) for module in (fashion_mnist, fit)]
    contents = (hashlib.sha256(file.read_bytes()).digest() for file in files)
    return hashlib.sha256(b"".join(contents)).hexdigest()[:16]


# --- Show
def draw(runs: Runs, asked: Comparison) -> str:
    """Draw every knob that is complete, also those of earlier commands; returns the table."""
    lines = [TABLE_HEAD]
    seeds = range(1, asked.seeds + 1)
    for knob in KNOBS:
        settings = settings_of(knob, asked.base)
        found = [[runs.result(setting, seed) for seed in seeds] for setting in settings]
        complete = [[result for result in row if result] for row in found]
        if complete != found:
            continue
        title = knob.replace("_", " ")
        values = [value_name(setting, knob, asked.base) for setting in settings]
        accuracy = np.array([[result["accuracy"] for result in row] for row in complete])
        seconds = np.array([[result["seconds"] for result in row] for row in complete])
        plot_comparison(title, values, accuracy, seconds, asked.out / f"{option_name(knob)}.png")
        for value, row, took in zip(values, accuracy, seconds, strict=True):
            lines.append(f"| {title} | {value} | {spread(row)} | {took.mean():.1f} |")
    return "\n".join(lines) + "\n"


def spread(values: np.ndarray) -> str:
    """Mean ± standard deviation, of which a single value has none."""
    mean = f"{values.mean():.4f}"
    return mean if len(values) == 1 else f"{mean} ± {values.std(ddof=1):.4f}"
