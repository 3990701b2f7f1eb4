"""From a decoded image to the network's input: the function that training and service share."""

from collections.abc import Mapping
from typing import assert_never, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageOps

from service.pixels.flatten import flatten
from service.pixels.spec import Contain, Cover, FashionMnist, Input, KeepSize, Scale, Stretch

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def preprocess(image: Image.Image, spec: Input) -> Floats:
    """Apply the whole of `spec` to an image of any size and mode -> (height, width, channels)."""
    return scale(resize(flatten(image, spec), spec), spec.scale)


def scale(pixels: Pixels, spec: Scale) -> Floats:
    """Pixels 0..255, of any shape -> float32 as the network was trained on.

    Three means or deviations need three channels as the last axis.
    """
    scaled = pixels.astype(np.float32)
    scaled /= np.float32(spec.divisor)
    if spec.mean != 0.0 or spec.deviation != 1.0:
        scaled -= np.asarray(spec.mean, np.float32)
        scaled /= np.asarray(spec.deviation, np.float32)
    return scaled


def to_pixels(values: Floats) -> Pixels:
    """Values 0..1, of any shape -> 0..255."""
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def resize(image: Image.Image, spec: Input) -> Pixels:
    """Bring a flat image to the network's size -> (height, width, channels) uint8."""
    height, width, _ = spec.shape
    resized = _resized(image, (width or image.width, height or image.height), spec)
    pixels = np.frombuffer(resized.tobytes(), np.uint8)
    pixels = pixels.reshape(resized.height, resized.width, -1)
    return np.ascontiguousarray(pixels[..., ::-1]) if spec.color == "bgr" else pixels


def _resized(image: Image.Image, size: tuple[int, int], spec: Input) -> Image.Image:
    match spec.resize:
        case KeepSize():
            return image
        case Cover():
            return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
        case Contain(fill=fill):
            return _centred(image, size, fill, Image.Resampling.BILINEAR)
        case Stretch():
            return image.resize(size, Image.Resampling.BILINEAR)
        case FashionMnist() as procedure:
            return _fashion_mnist(image, size, procedure)
        case _:
            assert_never(spec.resize)


def _centred(
    image: Image.Image, size: tuple[int, int], fill: int, resample: Image.Resampling
) -> Image.Image:
    """The whole image, as large as fits into `size`, on a canvas of the grey level `fill`."""
    factor = min(size[0] / image.width, size[1] / image.height)
    fitted = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    canvas = Image.new(image.mode, size, (fill,) * len(image.getbands()))
    corner = (size[0] - fitted[0]) // 2, (size[1] - fitted[1]) // 2
    canvas.paste(image.resize(fitted, resample), corner)
    return canvas


def _fashion_mnist(image: Image.Image, size: tuple[int, int], spec: FashionMnist) -> Image.Image:
    background = _corner_median(image)
    if image.size == size and background < spec.dark_below:
        return image
    garment = image.crop(_box_unlike(image, background, spec.trim_tolerance))
    canvas = _centred(garment, size, background, Image.Resampling.BOX)
    return ImageOps.invert(canvas) if background >= spec.dark_below else canvas


def _corner_median(image: Image.Image) -> int:
    width, height = image.size
    right, bottom = width - 1, height - 1
    level = cast(Mapping[tuple[int, int], int], image.load())
    corners = sorted((level[0, 0], level[right, 0], level[0, bottom], level[right, bottom]))
    return (corners[1] + corners[2]) // 2


def _box_unlike(image: Image.Image, background: int, tolerance: float) -> tuple[int, int, int, int]:
    """The smallest (left, top, right, bottom) that holds every pixel unlike the background."""
    difference = ImageChops.difference(image, Image.new("L", image.size, background))
    unlike = difference.point([255 * (level > tolerance * 255) for level in range(256)])
    return unlike.getbbox() or (0, 0, image.width, image.height)
