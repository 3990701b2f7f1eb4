"""Run a fully convolutional network on an image of any size: pad, cut into tiles, join."""

from collections.abc import Callable, Iterator

import numpy as np

from service.pixels.preprocess import Floats
from service.pixels.spec import Tiling

Predict = Callable[[Floats], Floats]


def predict_tiled(planes: Floats, predict: Predict, spec: Tiling) -> Floats:
    """Planes (n, height, width, 1) of any size -> the same shape; plane by plane, tile by tile."""
    if max(planes.shape[1:3]) <= spec.tile:
        return _padded(planes, predict, spec)
    result = np.empty_like(planes)
    for rows in _spans(planes.shape[1], spec):
        for columns in _spans(planes.shape[2], spec):
            window = planes[:, rows.outer, columns.outer]
            for plane in range(len(planes)):
                tile = _padded(window[plane : plane + 1], predict, spec)[0]
                result[plane, rows.inner, columns.inner] = tile[rows.crop, columns.crop]
    return result


def _padded(planes: Floats, predict: Predict, spec: Tiling) -> Floats:
    height, width = planes.shape[1:3]
    bottom, right = -height % spec.multiple, -width % spec.multiple
    if bottom or right:
        planes = np.pad(planes, ((0, 0), (0, bottom), (0, right), (0, 0)), mode="reflect")
    return predict(np.ascontiguousarray(planes))[:, :height, :width]


class _Span:
    """One tile along one axis: the part that is read, the part that is kept, and its place."""

    def __init__(self, start: int, stop: int, length: int, spec: Tiling) -> None:
        first, last = max(0, start - spec.halo), min(length, stop + spec.halo)
        self.outer = slice(first, last)
        self.inner = slice(start, stop)
        self.crop = slice(start - first, stop - first)


def _spans(length: int, spec: Tiling) -> Iterator[_Span]:
    step = spec.tile - 2 * spec.halo
    for start in range(0, length, step):
        yield _Span(start, min(start + step, length), length, spec)
