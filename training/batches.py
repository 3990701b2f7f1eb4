"""Batches of photos for training, and balanced samples of them."""

import math

import keras
import numpy as np
from sklearn.utils.class_weight import compute_class_weight

from service.pixels.preprocess import Floats, scale
from service.pixels.spec import Input
from training.data import Labels, one_hot
from training.photos import Photos

BATCH_SIZE = 32


class Batches(keras.utils.PyDataset):
    """Batches of (inputs, one-hot labels, weights); rare classes weigh more.

    With a seed, the order is random and changes every epoch.
    """

    def __init__(
        self,
        photos: Photos,
        chosen: Labels,
        spec: Input,
        *,
        seed: int | None = None,
        epoch: int = 0,
    ) -> None:
        super().__init__()
        self._photos, self._chosen, self._spec, self._seed = photos, chosen, spec, seed
        self._epoch = epoch
        labels = photos.labels[photos.training]
        known = np.unique(labels)
        self._weights = np.ones(len(photos.classes), np.float32)
        self._weights[known] = compute_class_weight("balanced", classes=known, y=labels)

    def __len__(self) -> int:
        return math.ceil(len(self._chosen) / BATCH_SIZE)

    def __getitem__(self, index: int) -> tuple[Floats, Floats, Floats]:
        chosen = self._chosen
        if self._seed is not None:
            chosen = np.random.default_rng([self._seed, self._epoch]).permutation(chosen)
        chosen = chosen[index * BATCH_SIZE : (index + 1) * BATCH_SIZE]
        labels = self._photos.labels[chosen]
        truth = one_hot(labels, len(self._photos.classes))
        return scale(self._photos.pixels[chosen], self._spec.scale), truth, self._weights[labels]

    def on_epoch_end(self) -> None:
        """Reshuffle."""
        self._epoch += 1


def some_of_each(photos: Photos, chosen: Labels, most: int) -> Labels:
    """A random sample of the chosen photos, with equal shares of all classes."""
    mixed = np.random.default_rng(0).permutation(chosen)
    labels = photos.labels[mixed]
    rank = np.empty(len(mixed), np.int64)  # among those of its class
    for label in np.unique(labels):
        members = labels == label
        rank[members] = np.arange(members.sum())
    return mixed[np.argsort(rank, kind="stable")[:most]]
