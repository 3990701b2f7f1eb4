"""A packed image set: many small images in one `.npz`, which avoids 100,000 small files.

Its arrays: `blob` (uint8), the encoded images one after another in any format that Pillow reads;
`offsets` (n + 1): image i is blob[offsets[i]:offsets[i + 1]]; `labels` (n,): indices into
`classes`, the names; `validation` (n,), bool: images that are not used for training.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from service.pixels.flatten import flatten
from service.pixels.preprocess import Pixels, resize
from service.pixels.spec import Input
from training.data import Labels, reading, require
from training.errors import DataError

ARRAYS = ("blob", "offsets", "labels", "validation", "classes")


@dataclass(frozen=True)
class PackedSet:
    """The contents of a file, with images still encoded."""

    path: Path
    blob: Pixels
    offsets: np.ndarray
    labels: Labels
    validation: np.ndarray
    classes: tuple[str, ...]

    def pixels(self, indices: np.ndarray, spec: Input) -> Pixels:
        """The images of these indices at the size of `spec`, (n, height, width, channels)."""
        height, width, channels = spec.shape
        pixels = np.empty((len(indices), height, width, channels), np.uint8)
        for place, index in enumerate(tqdm(indices, "unpack")):
            start, end = self.offsets[index : index + 2]
            with reading(self.path), Image.open(BytesIO(self.blob[start:end].tobytes())) as image:
                pixels[place] = resize(flatten(image, spec), spec)
        return pixels


def read_packed(path: Path) -> PackedSet:
    """Open a packed set; raises DataError that says what is wrong with it."""
    require(
        path, "Pass a packed image set with --data (format: `python -m pydoc training.packed`)."
    )
    with reading(path), np.load(path) as file:
        missing = [name for name in ARRAYS if name not in file]
        if missing:
            raise DataError(f"{path}: expected the arrays {ARRAYS}, got none named {missing}")
        blob, offsets, labels, validation, classes = (file[name] for name in ARRAYS)
    count = len(labels)
    if len(offsets) != count + 1 or len(validation) != count or offsets[-1] > len(blob):
        raise DataError(
            f"{path}: expected {count + 1} offsets into {len(blob)} bytes and {count} marks of "
            f"validation, got {len(offsets)} offsets up to {max(offsets, default=0)} and "
            f"{len(validation)}"
        )
    if count == 0 or labels.min() < 0 or labels.max() >= len(classes):
        raise DataError(f"{path}: expected labels 0 to {len(classes) - 1}, got {np.unique(labels)}")
    return PackedSet(
        path,
        blob,
        offsets,
        labels.astype(np.int64),
        validation.astype(bool),
        tuple(str(name) for name in classes),
    )
