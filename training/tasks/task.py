"""The interface of a task in training: measures of quality, and what a card says of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from service.artifacts.manifest import Engine, Manifest, Tensor
from service.pixels.preprocess import Floats
from service.pixels.spec import Input
from training.errors import ExportError

Outputs = Mapping[str, Floats]
"""The network's outputs by name, for several images: the first axis is the image."""
Predict = Callable[[Floats], Outputs]
INPUT = "image"
"""The name of the network's one input."""
# LiteRT in float32 may differ by this much; more is an error of the conversion.
MAX_ABS_DIFFERENCE = 1e-3


class TrainingTask(ABC):
    """One kind of model as training sees it; its class in service/tasks/ has the same name."""

    name: ClassVar[str]
    tag: ClassVar[str]
    """What Hugging Face calls such a task, for the card."""
    columns: ClassVar[Mapping[str, tuple[str, str]]]
    """The measures of `quality`: the title of each in a table, and the format of its numbers."""
    headline: ClassVar[Mapping[str, str]]
    """The metrics that a card's front matter names, by their names in the manifest."""
    figures: ClassVar[tuple[tuple[str, str], ...]]
    """Titles and files of the card's pictures."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """The manifest's `task`."""

    def inputs(self, spec: Input) -> dict[str, Tensor]:
        """The network's inputs."""
        return {INPUT: Tensor(shape=spec.shape, meaning="pixels")}

    @abstractmethod
    def outputs(self) -> dict[str, Tensor]:
        """The network's outputs."""

    @abstractmethod
    def quality(self, came: Outputs, expected: Outputs, truth: Any) -> dict[str, float]:
        """Measures of an engine's outputs against the float network's and against the truth."""

    @abstractmethod
    def is_right(self, quality: Mapping[str, float], float32: Mapping[str, float]) -> bool:
        """Whether an engine is accurate enough to be served, compared with the float network."""

    def check_conversion(self, lite: Engine) -> None:
        """Raise ExportError where LiteRT in float32 is not the same network."""
        if not lite.max_abs_difference <= MAX_ABS_DIFFERENCE:
            raise ExportError(
                f"LiteRT's outputs differ from Keras's on the validation images by up to "
                f"{lite.max_abs_difference:.2g} (at most {MAX_ABS_DIFFERENCE})"
            )

    def agree(self, came: Outputs, expected: Outputs) -> bool:
        """Whether an engine's answer to the sample is the float network's."""
        return True

    def answer(self, image: Floats, predict: Predict) -> Outputs:
        """The outputs for one image, (height, width, channels)."""
        return predict(image[np.newaxis])

    @abstractmethod
    def expected(self, answers: Sequence[Outputs], folder: Path) -> dict[str, Any]:
        """The manifest's recorded answer to the sample, and files of it in the folder.

        `answers` has the float network's first, then those of the engines that are served.
        """

    @classmethod
    def results(cls, manifest: Manifest) -> str:
        """What the card says of the metrics: by default all of them."""
        lines = ["On the test split:", "", "| metric | value |", "|---|---|"]
        lines += [f"| {name} | {value:.6g} |" for name, value in manifest.metrics.items()]
        return "\n".join(lines)
