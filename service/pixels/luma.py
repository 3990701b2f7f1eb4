"""Colour as brightness at full size and what is added to it for each channel at a quarter.

Of colours that change faster than that, what is more than noise is kept as it came.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.pixels.preprocess import Floats, Pixels

SHRINK = 4
"""How many times smaller each side of the colours is."""
WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_STRIP_ROWS = 64 * SHRINK
# White noise of variance 1 in each channel has so much in the three that brightness leaves.
_NOISE_ENERGY = 2.34
_CERTAIN = 2.0  # times the noise's energy: less is taken for noise
_LEAST_ENERGY = 1e-9


def is_grey(colors: Pixels) -> bool:
    """Whether the channels of (height, width, channels) are equal everywhere."""
    strips = (colors[top : top + _STRIP_ROWS] for top in range(0, len(colors), _STRIP_ROWS))
    return all((strip == strip[..., :1]).all() for strip in strips)


def brightness(colors: Pixels) -> Floats:
    """Red, green and blue (height, width, 3) -> (height, width) in 0..1."""
    return colors @ (WEIGHTS / np.float32(255))


def shrunk(colors: Pixels) -> Pixels:
    """The mean of each 4x4 pixels (height, width, 3), in strips: the last ones may have fewer."""
    height, width, _ = colors.shape
    small = np.empty((-(-height // SHRINK), -(-width // SHRINK), 3), np.uint8)
    for top in range(0, height, _STRIP_ROWS):
        strip = Image.fromarray(colors[top : top + _STRIP_ROWS]).reduce(SHRINK)
        small[top // SHRINK :][: strip.height] = np.asarray(strip)
    return small


class Chroma:
    """What is added to the brightness for red, green and blue; smooth between its pixels."""

    def __init__(self, colors: Floats) -> None:
        """From colours at a quarter of each side, (height, width, 3) in 0..1."""
        added = colors - (colors @ WEIGHTS)[..., np.newaxis]
        self._planes = [Image.fromarray(np.ascontiguousarray(added[..., i])) for i in range(3)]

    def added_to(self, bright: Floats, rows: slice, columns: slice) -> Floats:
        """The colours of a part of the image (its rows and columns), (height, width, 3)."""
        left, top, right, bottom = columns.start, rows.start, columns.stop, rows.stop
        box = (left / SHRINK, top / SHRINK, right / SHRINK, bottom / SHRINK)
        size = (right - left, bottom - top)
        colors: npt.NDArray[np.float32] = np.empty((*bright.shape, 3), np.float32)
        for i, plane in enumerate(self._planes):
            added = np.asarray(plane.resize(size, Image.Resampling.BILINEAR, box))
            np.add(bright, added, out=colors[..., i])
        return colors


def detail(colors: Pixels, joined: Floats, sigma: float) -> Floats:
    """What smooth colours miss of the image's own, as far as it is more than its noise.

    `joined` is the brightness of `colors` with the smooth colours added; all are
    (height, width, 3). Without it a thin red line would be brown.
    """
    missed = colors * np.float32(1 / 255) - joined
    energy = _mean_of_neighbours(np.einsum("hwc,hwc->hw", missed, missed))
    noise = np.float32(_CERTAIN * _NOISE_ENERGY * sigma**2)
    missed *= np.maximum(0, 1 - noise / np.maximum(energy, _LEAST_ENERGY))[..., np.newaxis]
    return missed


def _mean_of_neighbours(values: Floats) -> Floats:
    """Of each 3x3 values; beyond the edge lie those at the edge."""
    wide = np.pad(values, 1, mode="edge")
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    means: Floats = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / np.float32(9)
    return means
