"""Denoising: the peak signal-to-noise ratio, and images before and after."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from service.artifacts.manifest import Tensor
from service.pixels.preprocess import Floats, to_pixels
from service.pixels.spec import Tiling
from service.pixels.tiles import predict_tiled
from training.evaluation import as_posted, mean_psnr
from training.tasks.task import Outputs, Predict, TrainingTask

MAX_PSNR_LOSS_DB = 0.1
TOLERANCE_LEVELS = 2
OUTPUT = "image"
EXPECTED_FILE = "sample-expected.png"


class Denoising(TrainingTask):
    """A fully convolutional network from grey images to grey images."""

    name = "denoising"
    tag = "image-to-image"
    columns = {"psnr_db": ("PSNR, dB", ".2f")}
    headline = {"psnr": "psnr_db_sigma_0.3"}
    figures = (
        ("Loss and PSNR by epoch", "curves.png"),
        ("Before and after, on images drawn by the project", "before-after.png"),
    )

    def __init__(self, tiling: Tiling) -> None:
        self.tiling = tiling

    def spec(self) -> dict[str, Any]:
        """The tiling."""
        return {"type": self.name, "tiling": self.tiling.model_dump()}

    def outputs(self) -> dict[str, Tensor]:
        """An image of the same size."""
        return {OUTPUT: Tensor(shape=(None, None, 1), meaning="pixels")}

    def quality(self, came: Outputs, expected: Outputs, truth: Floats) -> dict[str, float]:
        """Mean PSNR against the clean images."""
        return {"psnr_db": mean_psnr(np.asarray(truth, np.float32), as_posted(came[OUTPUT]))}

    def is_right(self, quality: Mapping[str, float], float32: Mapping[str, float]) -> bool:
        """At most a tenth of a decibel less."""
        return float32["psnr_db"] - quality["psnr_db"] <= MAX_PSNR_LOSS_DB

    def answer(self, image: Floats, predict: Predict) -> Outputs:
        """The denoised image, in tiles if it is large."""

        def planes(batch: Floats) -> Floats:
            return predict(batch)[OUTPUT]

        return {OUTPUT: predict_tiled(image[np.newaxis], planes, self.tiling)}

    def expected(self, answers: Sequence[Outputs], folder: Path) -> dict[str, Any]:
        """The denoised sample as a file, and how many levels the served engines are off."""
        pixels = [to_pixels(answer[OUTPUT]).astype(int) for answer in answers]
        first = to_pixels(answers[0][OUTPUT])[0, :, :, 0]
        Image.fromarray(first).save(folder / EXPECTED_FILE, optimize=True)
        off = max(int(np.abs(image - pixels[0]).max()) for image in pixels)
        return {"file": EXPECTED_FILE, "tolerance": TOLERANCE_LEVELS + off}
