"""Photos in class folders, read and preprocessed as the service reads a posted image."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from service.errors import RequestError
from service.pixels.decode import decode, open_image
from service.pixels.preprocess import Pixels
from service.pixels.spec import Input, Scale
from training.data import Labels, hold_out_indices
from training.errors import DataError
from training.folders import Files, shown

HELD_OUT = 0.15  # the share of each class, for a split without a folder
MAX_BYTES, MAX_PIXELS = 100_000_000, 100_000_000


@dataclass(frozen=True)
class Photos:
    """Every readable image at the network's size, and the indices of each split."""

    classes: tuple[str, ...]
    pixels: Pixels
    """(n, height, width, 3), memory-mapped: a large folder does not fill the memory."""
    labels: Labels
    training: Labels
    validation: Labels
    """Not used for training; decides which epoch's weights are kept."""
    test: Labels
    """Used for nothing else. The folder `validation`, if there is no folder `test`."""
    sha256: str
    """Of all file names and bytes."""


def read_photos(folder: Path, files: Files, spec: Input, scratch: Path, seed: int) -> Photos:
    """Read the files that `find_photos` found; raises DataError."""
    classes = tuple(files[0])
    flat = [
        (path, split, classes.index(name))
        for split, by_class in enumerate(files)
        for name, paths in by_class.items()
        for path in paths
    ]
    digest = hashlib.sha256()
    unscaled = spec.model_copy(update={"scale": Scale(divisor=1.0)})

    def read(path: Path) -> tuple[bytes, "np.ndarray | Exception"]:
        """The checksum of the bytes, and the pixels or the error."""
        try:
            size = path.stat().st_size
            if size > MAX_BYTES:
                return b"", DataError(f"expected at most {MAX_BYTES} bytes, got {size}")
            data = path.read_bytes()
        except OSError as error:
            return b"", error
        checksum = hashlib.sha256(data).digest()
        try:
            return checksum, decode(open_image(data, MAX_BYTES, MAX_PIXELS), unscaled)
        except RequestError as error:
            return checksum, error

    scratch.mkdir(parents=True, exist_ok=True)
    pixels = np.lib.format.open_memmap(
        scratch / "photos.npy", "w+", np.uint8, (len(flat), *_fixed(spec))
    )
    kept: list[tuple[int, int]] = []
    unreadable = []
    with ThreadPoolExecutor() as threads:
        paths = [path for path, _, _ in flat]
        for (path, split, label), (checksum, image) in zip(
            flat, tqdm(threads.map(read, paths), "photos", len(paths)), strict=True
        ):
            digest.update(os.fsencode(path.relative_to(folder)) + b"\0" + checksum)
            if isinstance(image, Exception):
                unreadable.append(f"{shown(path)}: {image}")
            else:
                pixels[len(kept)] = image
                kept.append((split, label))
    for line in unreadable:
        print(f"Skipped {line}")
    of_split, labels = np.array(kept, np.int64).reshape(-1, 2).T
    training, validation, test = _split(classes, of_split, labels, seed)
    return Photos(
        classes,
        pixels,
        labels,
        training,
        validation,
        test,
        digest.hexdigest(),
    )


def _split(
    classes: tuple[str, ...], of_split: Labels, labels: Labels, seed: int
) -> tuple[Labels, Labels, Labels]:
    """Indices of each split; a split without a folder is held out of the training photos."""
    _check_counts("for training", 2, classes, labels[of_split == 0])
    training, validation, test = (np.flatnonzero(of_split == split) for split in range(3))
    if not len(test):  # a test split is more important than a validation split
        validation, test = test, validation
    if len(test):
        _check_counts("for testing", 1, classes, labels[test])
    else:
        training, test = _hold_out(training, labels, seed)
    if not len(validation):
        training, validation = _hold_out(training, labels, seed)
    if not len(validation):
        print("Too few photos for a validation split: training photos decide which epoch is kept")
        validation = training
    return training, validation, test


def _hold_out(indices: Labels, labels: Labels, seed: int) -> tuple[Labels, Labels]:
    rest, held = hold_out_indices(labels[indices], HELD_OUT, seed)
    return indices[rest], indices[held]


def _check_counts(purpose: str, least: int, classes: tuple[str, ...], labels: Labels) -> None:
    counts = np.bincount(labels, minlength=len(classes))
    few = {name: int(n) for name, n in zip(classes, counts, strict=True) if n < least}
    if few:
        raise DataError(f"expected at least {least} readable images {purpose} per class, got {few}")


def _fixed(spec: Input) -> tuple[int, int, int]:
    height, width, channels = spec.shape
    assert height is not None
    assert width is not None
    return height, width, channels
