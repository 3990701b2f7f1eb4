"""The training twin of `regression.py`, and a recipe for it: the mean brightness in percent."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from PIL import Image

from service.artifacts.manifest import Tensor
from service.pixels.spec import Input, Stretch
from tests.extension import regression
from training.card import Card
from training.export import Trained, export
from training.options import Options
from training.tasks import TASKS
from training.tasks.task import Outputs, TrainingTask

OUTPUT = "value"
INPUT = Input(shape=(8, 8, 1), color="grey", resize=Stretch())


class Regression(TrainingTask):
    """One number; the mean absolute error says how right it is."""

    name = regression.Regression.name
    tag = "image-feature-extraction"
    columns: ClassVar[dict[str, tuple[str, str]]] = {
        "mean_absolute_error": ("mean absolute error", ".3g")
    }
    headline: ClassVar[dict[str, str]] = {"mae": "mean_absolute_error"}
    figures = ()

    def spec(self) -> dict[str, Any]:
        """The unit."""
        return {"type": self.name, "unit": "percent"}

    def outputs(self) -> dict[str, Tensor]:
        """One number."""
        return {OUTPUT: Tensor(shape=(1,), meaning="percent")}

    def quality(self, came: Outputs, expected: Outputs, truth: Any) -> dict[str, float]:
        """The mean absolute error."""
        return {"mean_absolute_error": float(np.abs(came[OUTPUT][:, 0] - truth).mean())}

    def is_right(self, quality: Mapping[str, float], float32: Mapping[str, float]) -> bool:
        """At most half a percent worse than the float network."""
        return quality["mean_absolute_error"] <= float32["mean_absolute_error"] + 0.5

    def expected(self, answers: Sequence[Outputs], folder: Path) -> dict[str, Any]:
        """The float network's number, and how far the served engines are off."""
        values = [float(answer[OUTPUT][0, 0]) for answer in answers]
        off = max(abs(value - values[0]) for value in values)
        return {"value": round(values[0], 4), "tolerance": round(off + 0.1, 4)}


TASKS[Regression.name] = Regression


def run(options: Options) -> Path:
    """Data, network, train, export; returns the artifact's folder."""
    keras.utils.set_random_seed(options.seed)
    random = np.random.default_rng(options.seed)
    levels = random.random((640, 1, 1, 1), dtype=np.float32)
    images = np.clip(levels + 0.1 * random.standard_normal((640, 8, 8, 1), np.float32), 0, 1)
    truth = 100 * images.mean(axis=(1, 2, 3))
    inputs = keras.Input((8, 8, 1))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    network = keras.Model(inputs, keras.layers.Dense(1)(pooled))
    network.compile(keras.optimizers.Adam(1.0), "mae")
    network.fit(images[:512], truth[:512], epochs=30, verbose=0)
    error = network.evaluate(images[576:], truth[576:], verbose=0)
    folder: Path = export(
        Trained(
            name="brightness",
            task=Regression(),
            input=INPUT,
            network=network,
            validation=images[512:576],
            validation_truth=truth[512:576],
            calibration=images[:400],
            metrics={"mean_absolute_error": float(error)},
            sample=Image.new("L", (16, 16), 128),
            dataset="noise of every brightness",
            dataset_sha256={},
            seconds=0.0,
            card=Card("Brightness", "Measures brightness.", "Anything else.", "Drawn.", "None."),
            draw_figures=lambda _folder: None,
        ),
        options,
    )
    return folder
