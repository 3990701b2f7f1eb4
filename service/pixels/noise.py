"""How strong the noise of an image is, and what it did to black and white."""

import math

import numpy as np

from service.pixels.preprocess import Pixels

MAX_SIGMA = 0.5  # of full scale; texture can look like more
_SAMPLE_BLOCKS = 1 << 14
_LEAST_BLOCKS = 500
_MIDDLE = (64, 192)  # where noise of up to a quarter of full scale is not clipped
# Clipping at black or white leaves at least half of the noise. Where all blocks show less than
# that, those of middle brightness are the edges of a drawing.
_MOST_CLIPPED = 2
_MEDIAN_OF_ABSOLUTES = 0.6745  # of a normal distribution of deviation 1


def noise_sigma(colors: Pixels) -> float:
    """The standard deviation of the noise in (height, width, channels), of full scale 1.

    The median absolute diagonal difference of 2x2 blocks (Donoho and Johnstone 1994), which edges
    and single wrong pixels hardly change; of blocks of middle brightness, where there are enough.
    """
    height, width, channels = colors.shape
    rows, columns = height // 2, width // 2
    step = max(1, math.isqrt(rows * columns // _SAMPLE_BLOCKS))
    blocks = colors[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2, channels)
    blocks = blocks[::step, :, ::step].astype(np.int16)
    (a, b), (c, d) = (
        (blocks[:, 0, :, 0], blocks[:, 0, :, 1]),
        (blocks[:, 1, :, 0], blocks[:, 1, :, 1]),
    )
    diagonal, mean = np.abs(a - b - c + d) / 2, (a + b + c + d) / 4
    middle = diagonal[(mean > _MIDDLE[0]) & (mean < _MIDDLE[1])]
    median = float(np.median(diagonal))
    if middle.size >= _LEAST_BLOCKS:
        median = min(float(np.median(middle)), _MOST_CLIPPED * median)
    return min(MAX_SIGMA, median / _MEDIAN_OF_ABSOLUTES / 255)


def unclipped(sigma: float) -> Pixels:
    """A table (256,): the level whose noisy, clipped version has this mean level.

    Noise beyond black and white is cut off there, so that the mean of noisy black is grey (Foi
    2009, Clipped noisy images).
    """
    levels = np.arange(256)
    if sigma <= 0:
        return levels.astype(np.uint8)
    means = [255 * _clipped_mean(level / 255, sigma) for level in range(256)]
    return np.rint(np.interp(levels, means, levels)).astype(np.uint8)


def _clipped_mean(value: float, sigma: float) -> float:
    """The mean of a normal distribution around `value` that is clipped to 0..1."""
    low, high = -value / sigma, (1 - value) / sigma
    inside = _below(high) - _below(low)
    return value * inside + sigma * (_density(low) - _density(high)) + 1 - _below(high)


def _below(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))


def _density(z: float) -> float:
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
