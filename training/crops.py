"""Random crops of small images, to train a network from scratch."""

import math

import keras
import numpy as np
from PIL import Image

from service.pixels.preprocess import Floats, Pixels, scale
from service.pixels.spec import Input
from training.data import Labels, one_hot

EPOCHS_PER_PASS = 4  # over all images: an interruption costs minutes, not an hour
BATCH_SIZE = 128
MIN_CROP = 0.4  # of an image's area


class Crops(keras.utils.PyDataset):
    """Batches of random crops at a stage's size; half of them are mirrored."""

    def __init__(
        self,
        pixels: Pixels,
        labels: Labels,
        spec: Input,
        *,
        classes: int,
        seed: int,
        epoch: int,
    ) -> None:
        super().__init__(workers=2)
        self._pixels, self._labels, self._classes = pixels, labels, classes
        self._scale, self._side = spec.scale, int(spec.shape[0] or 0)
        self._seed, self._epoch = (seed, self._side), epoch

    def __len__(self) -> int:
        return steps_per_epoch(len(self._pixels))

    def __getitem__(self, index: int) -> tuple[Floats, Floats]:
        done, part = divmod(self._epoch, EPOCHS_PER_PASS)
        order = np.random.default_rng([*self._seed, done]).permutation(len(self._pixels))
        random = np.random.default_rng([*self._seed, self._epoch, index])
        first = (part * len(self) + index) * BATCH_SIZE
        chosen = order[np.arange(first, first + BATCH_SIZE) % len(order)]
        crops = np.stack([self._crop(self._pixels[item], random) for item in chosen])
        return scale(crops, self._scale), one_hot(self._labels[chosen], self._classes)

    def on_epoch_end(self) -> None:
        """Reshuffle and draw new crops."""
        self._epoch += 1

    def _crop(self, pixels: Pixels, random: np.random.Generator) -> Pixels:
        """Crop like Inception (Szegedy et al. 2015, arXiv:1409.4842): area and proportions vary."""
        side = len(pixels)
        area, stretch = random.uniform(MIN_CROP, 1), np.exp(random.uniform(-0.28, 0.28))
        width, height = (
            min(1.0, np.sqrt(area * stretch)) * side,
            min(1.0, np.sqrt(area / stretch)) * side,
        )
        left, top = random.uniform(0, side - width), random.uniform(0, side - height)
        image = Image.fromarray(pixels)
        crop = np.asarray(
            image.resize(
                (self._side, self._side),
                Image.Resampling.BILINEAR,
                box=(left, top, left + width, top + height),
            )
        )
        return crop[:, ::-1] if random.random() < 0.5 else crop


def steps_per_epoch(images: int) -> int:
    """The number of batches in an epoch."""
    return math.ceil(images / BATCH_SIZE / EPOCHS_PER_PASS)
