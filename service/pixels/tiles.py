"""Cut an image of any size for a fully convolutional network: tiles that overlap, and padding."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from service.pixels.preprocess import Floats
from service.pixels.spec import Tiling

Predict = Callable[[Floats], Floats]


class Tile(NamedTuple):
    """One tile: rows and columns that are read, those that are kept, and where these lie in it."""

    outer: tuple[slice, slice]
    inner: tuple[slice, slice]
    crop: tuple[slice, slice]


def cut(height: int, width: int, spec: Tiling) -> Iterator[Tile]:
    """As few tiles as cover the image, all of one size once they are padded.

    One size, because an engine pays for each change of its input's shape.
    """
    for rows in _spans(height, spec):
        for columns in _spans(width, spec):
            outer, inner, crop = zip(rows, columns, strict=True)
            yield Tile(outer, inner, crop)


def network_pixels(height: int, width: int, spec: Tiling) -> int:
    """Pixels that the network computes for one plane: the tiles with their overlap and padding."""
    (rows, tile_height), (columns, tile_width) = _grid(height, spec), _grid(width, spec)
    return rows * tile_height * columns * tile_width


def padded(planes: Floats, spec: Tiling) -> Floats:
    """Planes (n, height, width, 1) with sides that the network takes, filled by reflection."""
    height, width = planes.shape[1:3]
    bottom, right = -height % spec.multiple, -width % spec.multiple
    if bottom or right:
        planes = np.pad(planes, ((0, 0), (0, bottom), (0, right), (0, 0)), mode="reflect")
    return np.ascontiguousarray(planes)


def predict_tiled(planes: Floats, predict: Predict, spec: Tiling) -> Floats:
    """Planes (n, height, width, 1) of any size -> the same shape; plane by plane, tile by tile."""
    result = np.empty_like(planes)
    for tile in cut(planes.shape[1], planes.shape[2], spec):
        for plane, kept in zip(planes, result, strict=True):
            kept[tile.inner] = predict(padded(plane[tile.outer][np.newaxis], spec))[0][tile.crop]
    return result


def _grid(length: int, spec: Tiling) -> tuple[int, int]:
    """How many tiles lie along an axis, and the length of each once it is padded."""
    overlap = 2 * spec.halo
    count = max(1, math.ceil((length - overlap) / (spec.tile - overlap)))
    least = (length + (count - 1) * overlap) / count
    return count, math.ceil(least / spec.multiple) * spec.multiple


def _spans(length: int, spec: Tiling) -> Iterator[tuple[slice, slice, slice]]:
    """Along one axis, for each tile: what is read, what is kept, and where that lies in it."""
    count, size = _grid(length, spec)
    last = math.ceil(length / spec.multiple) * spec.multiple - size
    kept = 0
    for number in range(count):
        start = min(number * (size - 2 * spec.halo), last)
        stop = min(start + size, length)
        end = length if number == count - 1 else stop - spec.halo
        yield slice(start, stop), slice(kept, end), slice(kept - start, end - start)
        kept = end
