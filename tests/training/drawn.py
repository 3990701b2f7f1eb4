"""Data sets of drawn shapes, in the file formats of the real ones: no test needs a download."""

import gzip
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]

GARMENTS = 10
SIGNS = 6


def shape(label: int, number: int, side: int) -> Image.Image:
    """One grey image: the label is the shape, the number moves it and changes its brightness."""
    image = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(image)
    unit = side / 28
    left, top = (4 + number % 5) * unit, (4 + number // 5 % 5) * unit
    box = [left, top, left + (6 + label % 5 * 2) * unit, top + (8 + label % 3 * 4) * unit]
    (draw.ellipse if label % 2 else draw.rectangle)(box, fill=120 + 7 * (number % 16))
    return image


def shapes(classes: int, each: int, side: int) -> tuple[Images, Labels]:
    """Images (n, side, side), `each` of every class in turn, and their labels (n,)."""
    labels = np.tile(np.arange(classes, dtype=np.uint8), each)
    images = [shape(int(label), number, side) for number, label in enumerate(labels)]
    return np.stack([np.asarray(image) for image in images]), labels


def write_fashion_mnist(folder: Path) -> Images:
    """The four IDX files; returns the training images."""
    folder.mkdir(parents=True, exist_ok=True)
    training = shapes(GARMENTS, 12, 28)
    for split, (images, labels) in {"train": training, "t10k": shapes(GARMENTS, 2, 28)}.items():
        header = struct.pack(">IIII", 2051, *images.shape)
        packed = gzip.compress(header + images.tobytes())
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(packed)
        header = struct.pack(">II", 2049, len(labels))
        packed = gzip.compress(header + labels.tobytes())
        (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(packed)
    return training[0]


def write_mnist(folder: Path) -> None:
    """Keras's `mnist.npz`."""
    folder.mkdir(parents=True, exist_ok=True)
    (x_train, y_train), (x_test, y_test) = shapes(10, 6, 28), shapes(10, 1, 28)
    np.savez(folder / "mnist.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def write_signs(folder: Path) -> None:
    """The two .h5 files of the course: colour, 64x64."""
    import h5py

    folder.mkdir(parents=True, exist_ok=True)
    for split, each in (("train", 8), ("test", 3)):
        images, labels = shapes(SIGNS, each, 64)
        with h5py.File(folder / f"{split}_signs.h5", "w") as file:
            file[f"{split}_set_x"] = np.repeat(images[..., np.newaxis], 3, axis=3)
            file[f"{split}_set_y"] = labels
            file["list_classes"] = np.arange(SIGNS)
