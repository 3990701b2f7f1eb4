"""Anybody's photos: a folder of class folders, read as the service reads a posted image."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from service.decode import decode, open_image
from service.errors import RequestError
from service.manifest import Input, Scale
from service.preprocess import Pixels
from training.data import Labels, hold_out_indices
from training.errors import DataError

# The names that a folder of a split goes by; without one for training, class folders are expected.
TRAINING, VALIDATION, TEST = ("train", "training"), ("validation", "valid", "val"), ("test",)
HELD_OUT = 0.15  # of each class, for a split that has no folder
MAX_BYTES, MAX_PIXELS = 100_000_000, 100_000_000
SHAPE = (
    "expected a folder with one folder of images for each class, FOLDER/cat/1.jpg, or such in "
    "FOLDER/train and, if you like, FOLDER/validation and FOLDER/test"
)


@dataclass(frozen=True)
class Photos:
    """Every readable image at the network's size, and which split it belongs to, by index."""

    classes: tuple[str, ...]
    pixels: Pixels
    """(n, height, width, 3); in a file, so that a large folder needs no memory."""
    labels: Labels
    training: np.ndarray
    validation: np.ndarray
    """Held out of what is trained on; decides when training stops."""
    test: np.ndarray
    """What nothing else touches: a folder `validation`, where there is none named `test`."""
    unreadable: tuple[str, ...]
    """Files that are not images, and why."""
    sha256: str
    """Of all names and bytes."""

    def few(self, count: int) -> "Photos":
        """The same with about `count` photos of each split, of all classes alike."""
        return replace(
            self,
            training=_few(self.training, count),
            validation=_few(self.validation, count),
            test=_few(self.test, count),
        )


def _few(indices: np.ndarray, count: int) -> np.ndarray:
    return indices[:: max(1, len(indices) // count)]


def read_photos(folder: Path, spec: Input, scratch: Path, seed: int) -> Photos:
    """Read a folder of class folders; raises DataError that says what was expected."""
    files = _files(folder)
    classes = tuple(files[0])
    flat = [
        (path, split, classes.index(name))
        for split, by_class in enumerate(files)
        for name, paths in by_class.items()
        for path in paths
    ]
    digest = hashlib.sha256()
    unscaled = spec.model_copy(update={"scale": Scale(divisor=1.0)})

    def read(path: Path) -> tuple[bytes, "np.ndarray | RequestError"]:
        data = path.read_bytes()
        try:
            return data, decode(open_image(data, MAX_BYTES, MAX_PIXELS), unscaled)
        except RequestError as error:
            return data, error

    scratch.mkdir(parents=True, exist_ok=True)
    pixels = np.lib.format.open_memmap(
        scratch / "photos.npy", "w+", np.uint8, (len(flat), *_fixed(spec))
    )
    kept: list[tuple[int, int]] = []
    unreadable = []
    with ThreadPoolExecutor() as threads:
        paths = [path for path, _, _ in flat]
        for (path, split, label), (data, image) in zip(
            flat, tqdm(threads.map(read, paths), "photos", len(paths)), strict=True
        ):
            digest.update(f"{path.relative_to(folder)}\0{len(data)}\0".encode() + data)
            if isinstance(image, RequestError):
                unreadable.append(f"{path}: {image}")
            else:
                pixels[len(kept)] = image
                kept.append((split, label))
    for line in unreadable:
        print(f"Skipped {line}")
    splits, labels = np.array(kept, np.int64).reshape(-1, 2).T
    _check_counts(classes, labels[splits == 0])
    training, validation, test = (np.flatnonzero(splits == split) for split in range(3))
    if not len(test):  # the more important of the two
        validation, test = test, validation
    if not len(test):
        training, test = _hold_out(training, labels, seed)
    if not len(validation):
        training, validation = _hold_out(training, labels, seed)
    return Photos(
        classes,
        pixels,
        labels,
        training,
        validation,
        test,
        tuple(unreadable),
        digest.hexdigest(),
    )


def _hold_out(indices: Labels, labels: Labels, seed: int) -> tuple[Labels, Labels]:
    rest, held = hold_out_indices(labels[indices], HELD_OUT, seed)
    return indices[rest], indices[held]


def _fixed(spec: Input) -> tuple[int, int, int]:
    height, width, channels = spec.shape
    assert height is not None
    assert width is not None
    return height, width, channels


def _files(folder: Path) -> list[dict[str, list[Path]]]:
    """Class -> its files, for the folders of training, validation and test."""
    if not folder.is_dir():
        raise DataError(f"{folder.absolute()} is not a folder: {SHAPE}")
    splits = [_named(folder, names) for names in (TRAINING, VALIDATION, TEST)]
    if splits[0] is None:
        splits = [folder, None, None]
    found = [{} if split is None else _by_class(split) for split in splits]
    for split, by_class in zip(splits, found, strict=True):
        unknown = sorted(set(by_class) - set(found[0]))
        if unknown:
            raise DataError(f"{split}: expected the classes {sorted(found[0])}, got {unknown}, too")
    return found


def _named(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _by_class(folder: Path) -> dict[str, list[Path]]:
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    by_class = {
        path.name: [
            file
            for file in sorted(path.rglob("*"))
            if file.is_file() and not file.name.startswith(".")
        ]
        for path in entries
        if path.is_dir()
    }
    loose = sum(path.is_file() for path in entries)
    if len(by_class) < 2:
        got = f"{len(by_class)} folders and {loose} files" if entries else "nothing"
        raise DataError(f"{folder.absolute()}: {SHAPE}; got {got}")
    return by_class


def _check_counts(classes: tuple[str, ...], labels: Labels) -> None:
    counts = np.bincount(labels, minlength=len(classes))
    few = {name: int(count) for name, count in zip(classes, counts, strict=True) if count < 2}
    if few:
        raise DataError(f"expected at least two readable images to train on of each class; {few}")
