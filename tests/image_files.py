"""An image in every format that is read, and stored under every EXIF orientation."""

from random import Random

import numpy as np
from PIL import ExifTags, Image

from tests.drawing import LOSSLESS, encode, gradient, noise
from tests.icc_profiles import DISPLAY_P3

# How an upright image is stored under each EXIF orientation.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
FILES = {
    "PNG": encode(gradient(), "PNG"),
    "palette PNG": encode(gradient().quantize(16), "PNG"),
    "transparent PNG": encode(noise(24, 20, 4), "PNG"),
    "16-bit PNG": encode(Image.fromarray(np.arange(480, dtype=np.uint16).reshape(20, 24)), "PNG"),
    "JPEG": encode(gradient(), "JPEG"),
    "progressive JPEG": encode(gradient(), "JPEG", progressive=True),
    "CMYK JPEG": encode(gradient().convert("CMYK"), "JPEG"),
    "WEBP": encode(gradient(), "WEBP"),
    "BMP": encode(gradient(), "BMP"),
    "GIF": encode(gradient(), "GIF"),
    "TIFF": encode(gradient(), "TIFF"),
    "16-bit TIFF": encode(Image.fromarray(np.arange(480, dtype=np.uint16).reshape(20, 24)), "TIFF"),
    "compressed TIFF": encode(gradient(), "TIFF", compression="tiff_lzw"),
    "AVIF": encode(gradient(), "AVIF"),
    "transparent AVIF": encode(noise(24, 20, 4), "AVIF"),
    "PNG with a profile": encode(gradient(), "PNG", icc_profile=DISPLAY_P3),
}


def stored(image: Image.Image, image_format: str, orientation: int) -> bytes:
    turn = STORED[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    turned = image if turn is None else image.transpose(turn)
    return encode(turned, image_format, exif=exif, **LOSSLESS.get(image_format, {"quality": 100}))


def damaged(file: bytes, random: Random) -> bytes:
    """The file with one to six bits turned over."""
    data = bytearray(file)
    for _ in range(random.randint(1, 6)):
        # Half of the damage goes to the header, where it does most.
        end = len(data) if random.random() < 0.5 else min(len(data), 120)
        data[random.randrange(end)] ^= 1 << random.randrange(8)
    return bytes(data)
