"""Anybody's photos: a folder of class folders, read as the service reads a posted image."""

import hashlib
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
SPLITS = (("train", "training"), ("validation", "valid", "val"), ("test",))
HELD_OUT = 0.15  # of each class, for a split that has no folder
MAX_BYTES, MAX_PIXELS = 100_000_000, 100_000_000
SHAPE = (
    "expected a folder with one folder of images for each class, FOLDER/cat/1.jpg, or such in "
    "FOLDER/train and, if you like, FOLDER/validation and FOLDER/test"
)
_CLASS_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,200}")  # what a manifest takes as a label

Files = list[dict[str, list[Path]]]
"""By split, by class."""


@dataclass(frozen=True)
class Photos:
    """Every readable image at the network's size, and which split it belongs to, by index."""

    classes: tuple[str, ...]
    pixels: Pixels
    """(n, height, width, 3); in a file, so that a large folder needs no memory."""
    labels: Labels
    training: Labels
    validation: Labels
    """Held out of what is trained on; decides when training stops."""
    test: Labels
    """What nothing else touches: a folder `validation`, where there is none named `test`."""
    unreadable: tuple[str, ...]
    """Files that are not images, and why."""
    sha256: str
    """Of all names and bytes."""


def read_photos(
    folder: Path, spec: Input, scratch: Path, seed: int, most_of_each: int | None = None
) -> Photos:
    """Read a folder of class folders, or some of each class and split of it.

    Raises DataError that says what was expected.
    """
    files = _files(folder, most_of_each)
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
        """The bytes and the pixels, or why there are none."""
        try:
            size = path.stat().st_size
            if size > MAX_BYTES:
                return b"", DataError(f"expected at most {MAX_BYTES} bytes, got {size}")
            data = path.read_bytes()
        except OSError as error:
            return b"", error
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
            name = os.fsencode(path.relative_to(folder))
            digest.update(b"%b\0%d\0" % (name, len(data)) + data)
            if isinstance(image, Exception):
                unreadable.append(f"{_shown(path)}: {image}")
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
        tuple(unreadable),
        digest.hexdigest(),
    )


def _split(
    classes: tuple[str, ...], of_split: Labels, labels: Labels, seed: int
) -> tuple[Labels, Labels, Labels]:
    """Indices of each split; held out of the training photos where there is no folder."""
    _check_counts("to train on", 2, classes, labels[of_split == 0])
    training, validation, test = (np.flatnonzero(of_split == split) for split in range(3))
    if not len(test):  # the more important of the two
        validation, test = test, validation
    if len(test):
        _check_counts("to test with", 1, classes, labels[test])
    else:
        training, test = _hold_out(training, labels, seed)
    if not len(validation):
        training, validation = _hold_out(training, labels, seed)
    if not len(validation):
        print("Too few photos to hold any out: those to train on decide when training stops")
        validation = training
    return training, validation, test


def _hold_out(indices: Labels, labels: Labels, seed: int) -> tuple[Labels, Labels]:
    rest, held = hold_out_indices(labels[indices], HELD_OUT, seed)
    return indices[rest], indices[held]


def _check_counts(purpose: str, least: int, classes: tuple[str, ...], labels: Labels) -> None:
    counts = np.bincount(labels, minlength=len(classes))
    few = {name: int(n) for name, n in zip(classes, counts, strict=True) if n < least}
    if few:
        raise DataError(f"expected at least {least} readable images {purpose} of each class; {few}")


def _fixed(spec: Input) -> tuple[int, int, int]:
    height, width, channels = spec.shape
    assert height is not None
    assert width is not None
    return height, width, channels


def _shown(path: Path) -> str:
    """A path that can be printed, whatever its bytes are."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _files(folder: Path, most_of_each: int | None) -> Files:
    """Class -> its files, for the folders of training, validation and test."""
    if not folder.is_dir():
        raise DataError(f"{folder.absolute()} is not a folder: {SHAPE}")
    splits = [_named(folder, names) for names in SPLITS]
    if splits[0] is None and any(splits):
        raise DataError(f"{folder.absolute()}: {SHAPE}; got no FOLDER/train")
    if splits[0] is None:
        splits = [folder, None, None]
    else:
        others = sorted(_shown(path) for path in _entries(folder) if path not in splits)
        if others:
            print(f"Not used, beside {splits[0].name}: {', '.join(others)}")
    found: Files = [{} if split is None else _by_class(split, most_of_each) for split in splits]
    for split, by_class in zip(splits, found, strict=True):
        unknown = sorted(set(by_class) - set(found[0]))
        if unknown:
            raise DataError(f"{split}: expected the classes {sorted(found[0])}, got {unknown}, too")
    return found


def _entries(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]


def _named(folder: Path, names: Sequence[str]) -> Path | None:
    """The folder that goes by one of these names, however it is written."""
    found = [path for path in _entries(folder) if path.is_dir() and path.name.casefold() in names]
    if len(found) > 1:
        shown = ", ".join(path.name for path in found)
        raise DataError(f"{folder.absolute()}: expected one of {', '.join(names)}, got {shown}")
    return found[0] if found else None


def _by_class(folder: Path, most_of_each: int | None) -> dict[str, list[Path]]:
    entries = _entries(folder)
    by_class = {
        path.name: [
            file
            for file in sorted(path.rglob("*"))
            if file.is_file() and not file.name.startswith(".")
        ][:most_of_each]
        for path in entries
        if path.is_dir()
    }
    loose = sum(path.is_file() for path in entries)
    if len(by_class) < 2:
        got = f"{len(by_class)} folders and {loose} files" if entries else "nothing"
        raise DataError(f"{folder.absolute()}: {SHAPE}; got {got}")
    for name in by_class:
        if not _CLASS_NAME.fullmatch(name) or not name.isprintable():
            raise DataError(
                f"{folder.absolute()}: expected folders named with up to 200 characters that can "
                f"be printed, got {name!r:.250}"
            )
    return by_class
