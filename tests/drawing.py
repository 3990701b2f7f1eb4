"""Small images that tests draw for themselves, and their encoding."""

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from service.pixels.preprocess import Pixels

LOSSLESS = {
    "PNG": {},
    "BMP": {},
    "TIFF": {},
    "WEBP": {"lossless": True, "exact": True},
}


def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def gradient(width: int = 24, height: int = 20) -> Image.Image:
    """A smooth colour image without any symmetry: no turn or flip of it looks like another."""
    right = np.linspace(0, 255, width)[np.newaxis, :].repeat(height, axis=0)
    down = np.linspace(0, 200, height)[:, np.newaxis].repeat(width, axis=1)
    return Image.fromarray(np.stack([right, down, (255 - right) / 2], axis=2).astype(np.uint8))


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> Image.Image:
    """An image whose every pixel is random."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def dress() -> Image.Image:
    """A garment as the data set has them: 28x28 grey, light on black, as high as the image."""
    image = Image.new("L", (28, 28), 0)
    draw = ImageDraw.Draw(image)
    draw.polygon([(10, 0), (17, 0), (21, 27), (6, 27)], fill=170)
    draw.rectangle([10, 9, 17, 12], fill=240)
    draw.line([(13, 14), (11, 26)], fill=90)
    return image


def boot() -> Image.Image:
    """Another one: as wide as the image, and centred in its height."""
    image = Image.new("L", (28, 28), 0)
    draw = ImageDraw.Draw(image)
    draw.polygon([(4, 8), (12, 8), (13, 13), (27, 16), (27, 19), (0, 19), (2, 13)], fill=200)
    draw.rectangle([0, 18, 27, 19], fill=120)
    return image


def pixels(image: Image.Image) -> Pixels:
    """An image as an array (height, width, channels)."""
    return np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, -1)


def mean_difference(one: Pixels, other: Pixels) -> float:
    """The mean absolute difference of two images, in levels of 0 to 255."""
    return float(np.abs(one.astype(np.float64) - other).mean())


def image_of(data: bytes) -> Image.Image:
    """An image file's image."""
    return Image.open(BytesIO(data))
