"""The smallest things that training can make an artifact of: options, a network, a manifest."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from service.artifacts.manifest import Manifest, parse_manifest
from service.pixels.spec import Cover, Input
from service.tasks import TASKS
from training.card import Card
from training.options import Options
from training.tasks import Classification

LABELS = ("dark", "middling", "light")
INPUT = Input(shape=(4, 4, 1), color="grey", resize=Cover())
METRICS = {
    name: round(0.5 + 0.013 * number, 6)  # all different, so that no two can be mixed up unseen
    for number, name in enumerate(
        ["accuracy", "precision_macro", "recall_macro", "f1_macro", "roc_auc_ovr_macro"]
        + [
            f"{metric}/{label}"
            for metric in ("precision", "recall", "f1", "roc_auc")
            for label in LABELS
        ]
    )
} | {"test_count": 1234.0, "count/dark": 411.0, "count/middling": 412.0, "count/light": 413.0}

CARD = Card(
    title="How light",
    purpose="Tells dark from light.",
    not_for="Anything else.",
    data="Drawn.",
    limits="Knows no colour.",
    figures=(("A figure", "figure.png"),),
)


def options(out: Path, **arguments: str | int | float | bool | None) -> Any:
    """Options of a recipe called `tiny` that writes into `out`."""
    return Options(
        recipe="tiny",
        smoke=False,
        out=out,
        data=None,
        seed=1,
        epochs=None,
        arguments=arguments,
        commit="0123abc",
    )


def network() -> Any:
    """Three classes of 4x4 grey images, by brightness; the weights are fixed."""
    import keras

    keras.utils.set_random_seed(1)
    inputs = keras.Input((4, 4, 1))
    outputs = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, outputs)


def draw_figure(folder: Path) -> None:
    """The one figure of CARD."""
    Image.new("L", (8, 8), 128).save(folder / "figure.png")


def trained(**changes: Any) -> Any:
    """A `Trained` as a recipe would hand it to export, with some fields changed."""
    from training.export import Trained

    fields = {
        "name": "tiny",
        "task": Classification(LABELS),
        "input": INPUT,
        "network": network(),
        "validation_truth": np.arange(20) % 3,
        "validation": np.random.default_rng(1).random((20, 4, 4, 1), dtype=np.float32),
        "calibration": np.random.default_rng(2).random((20, 4, 4, 1), dtype=np.float32),
        "metrics": METRICS,
        "sample": Image.new("L", (16, 16), 200),
        "dataset": "drawn",
        "dataset_sha256": {"drawn.bin": "0" * 64},
        "seconds": 1234.5,
        "card": CARD,
        "draw_figures": draw_figure,
    }
    return Trained(**fields | changes)


def manifest(**arguments: str | int | float | bool | None) -> Manifest:
    """A manifest as export hands it to the model card."""
    task = Classification(LABELS)
    fields = {
        "schema": 2,
        "name": "tiny",
        "version": "7",
        "task": task.spec(),
        "input": INPUT,
        "inputs": task.inputs(INPUT),
        "outputs": task.outputs(),
        "parameters": 12345,
        "metrics": METRICS,
        "engines": {
            "litert": {
                "file": "model.tflite",
                "max_abs_difference": 3e-7,
                "quality": {"label_agreement": 1.0, "accuracy": 0.75},
                "milliseconds": {"1": 0.0123, "8": 0.456},
            },
            "litert-int8": {
                "max_abs_difference": 0.25,
                "quality": {"label_agreement": 0.5, "accuracy": 0.5},
                "milliseconds": {"1": 0.001, "8": 0.01},
            },
            "keras": {
                "file": "model.keras",
                "max_abs_difference": 0.0,
                "quality": {"label_agreement": 1.0, "accuracy": 0.75},
                "milliseconds": {"1": 1.11, "8": 2.22},
            },
        },
        "engine": {"cpu": "litert", "gpu": "keras"},
        "files": {},
        "sample": {
            "file": "sample.png",
            "expected": {"label": "light", "index": 2, "probability": 0.9},
        },
        "training": {
            "recipe": "tiny",
            "arguments": arguments,
            "seed": 3,
            "dataset": "drawn",
            "dataset_sha256": {},
            "commit": "0123abc",
            "libraries": {"keras": "3.99"},
            "seconds": 4321.4,
        },
    }
    return parse_manifest(fields, TASKS)
