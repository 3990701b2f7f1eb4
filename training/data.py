"""Data sets as arrays: find, read, check and split them."""

import contextlib
import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from service.pixels.preprocess import Floats, preprocess
from service.pixels.spec import Input
from training.errors import DataError

Labels = npt.NDArray[np.int64]
MAX_LABEL_CHARACTERS = 200  # in a manifest


@dataclass(frozen=True)
class Split:
    """Images as the network takes them, (n, height, width, channels), and labels, (n,)."""

    images: Floats
    labels: Labels

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> "Split":
        """The first `count` items."""
        return Split(self.images[:count], self.labels[:count])


def keras_cache(file: str) -> Path:
    """The path of a data set's file in Keras's cache, which KERAS_HOME moves."""
    home = os.environ.get("KERAS_HOME", str(Path.home() / ".keras"))
    return Path(home) / "datasets" / file


def require(path: Path, how_to_get_it: str) -> Path:
    """Return `path` if it is a file; raises DataError that says how to get it."""
    if path.is_dir():
        raise DataError(f"{path.absolute()} is a folder: expected a file. {how_to_get_it}")
    if not path.is_file():
        raise DataError(f"{path.name} is missing: looked for {path.absolute()}. {how_to_get_it}")
    return path


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors while `path` is read into a DataError that names it."""
    try:
        yield
    except (
        OSError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:
        raise DataError(f"{path.absolute()} cannot be read: {error}; download it again") from error


def sha256_of(paths: Iterable[Path]) -> dict[str, str]:
    """File name -> SHA-256 of its bytes."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def prepare(images: npt.NDArray[np.uint8], spec: Input) -> Floats:
    """Preprocess images (n, h, w) or (n, h, w, 3) with the same function as the service."""
    return np.stack([preprocess(Image.fromarray(image), spec) for image in tqdm(images, "prepare")])


def check(images: np.ndarray, shape: tuple[int, ...], labels: Labels, classes: int) -> None:
    """Raise DataError unless every label has an image of `shape` and is a known class."""
    if images.shape != (len(labels), *shape):
        raise DataError(f"expected {len(labels)} images of {shape}, got {images.shape}")
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"expected labels 0 to {classes - 1}, got {np.unique(labels)}")


def check_labels(names: Sequence[str], source: Path) -> None:
    """Raise DataError unless a manifest accepts these class names."""
    for name in names:
        if not 1 <= len(name) <= MAX_LABEL_CHARACTERS or not name.isprintable():
            raise DataError(
                f"{source}: expected printable names of up to {MAX_LABEL_CHARACTERS} "
                f"characters, got {name!r:.250}"
            )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{source}: expected different class names, got {twice} more than once")


def one_hot(labels: Labels, classes: int) -> Floats:
    """Labels (n,) -> (n, classes)."""
    return np.eye(classes, dtype=np.float32)[labels]


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Split off a random validation split with the same share of every class."""
    rest, held = (
        Split(split.images[chosen], split.labels[chosen])
        for chosen in hold_out_indices(split.labels, fraction, seed)
    )
    return rest, held


def hold_out_indices(labels: Labels, fraction: float, seed: int) -> tuple[Labels, Labels]:
    """Indices to keep and to hold out: at least one of each class in both, if there are two."""
    order = np.random.default_rng(seed).permutation(len(labels))
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        held[members[: min(len(members) - 1, max(1, round(fraction * len(members))))]] = True
    return order[~held[order]], order[held[order]]
