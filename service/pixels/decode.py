"""Decode posted bytes into an image or a network's input; all errors of inputs are found here."""

import re
from io import BytesIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from service.errors import BadInput, TooLarge, UnsupportedImage
from service.pixels.preprocess import Floats, preprocess, scale, upright
from service.pixels.spec import Input, Scale

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MIN_DENOISE_SIDE = 8

# The first bytes of each format: they tell a broken image from another type of file.
_SIGNATURE = re.compile(
    rb"\x89PNG|\xff\xd8\xff|RIFF.{4}WEBP|BM.{4}\0{4}|GIF8|II[*+]\0|MM\0[*+]", re.DOTALL
)
# A JPEG scaled while it is decoded keeps at least this many times the network's side. Twice is
# enough to resize from. Product photos keep more: a margin that is trimmed may be most of them.
_RESERVE = {"cover": 2, "contain": 2, "stretch": 2, "fashion-mnist": 16}

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def open_image(data: bytes, max_bytes: int, max_pixels: int) -> Image.Image:
    """Read an image's header and check its type and size, without decoding the pixels.

    Raises BadInput, TooLarge or UnsupportedImage.
    """
    if not data:
        raise BadInput(f"expected an image ({', '.join(FORMATS)}), got 0 bytes")
    if len(data) > max_bytes:
        raise TooLarge(f"expected an image of at most {max_bytes} bytes, got {len(data)} bytes")
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:  # Pillow's own limit, where it is the lower one
        raise TooLarge(f"expected an image of at most {max_pixels} pixels: {error}") from error
    except Exception as error:  # Pillow's plugins raise many kinds on hostile bytes
        if not _SIGNATURE.match(data):
            raise UnsupportedImage(
                f"expected an image ({', '.join(FORMATS)}), got {len(data)} bytes of another type"
            ) from error
        unread = isinstance(error, UnidentifiedImageError)
        raise _broken("its header cannot be read" if unread else error, data) from error
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise TooLarge(
            f"expected an image of at most {max_pixels} pixels, "
            f"got {image.width}x{image.height} = {pixels} pixels"
        )
    if image.mode not in _MODES and not image.mode.startswith("I;16"):
        raise BadInput(
            "expected grey, palette, RGB or CMYK with 1 to 16 bits a channel, "
            f"got {image.format} of mode {image.mode}"
        )
    return image


def decode(image: Image.Image, spec: Input) -> Floats:
    """An opened image -> the network's input (height, width, channels); raises BadInput."""
    _shrink(image, spec)
    _unpack(image)
    return preprocess(image, spec)


def check_denoise_size(image: Image.Image, max_pixels: int) -> None:
    """Raise BadInput or TooLarge for an image that is too small or too large to denoise."""
    if min(image.size) < MIN_DENOISE_SIDE:
        raise BadInput(
            f"expected an image of at least {MIN_DENOISE_SIDE}x{MIN_DENOISE_SIDE} pixels, "
            f"got {image.width}x{image.height}"
        )
    if image.width * image.height > max_pixels:
        raise TooLarge(
            f"expected at most {max_pixels} pixels to denoise, "
            f"got {image.width}x{image.height} = {image.width * image.height} pixels"
        )


def decode_planes(image: Image.Image) -> tuple[Floats, Image.Image | None]:
    """An opened image -> its colour planes (1 or 3, height, width, 1) in 0..1, and its alpha."""
    _unpack(image)
    image = upright(image)
    colors = "L" if image.mode in ("1", "L", "LA") else "RGB"
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    image = image.convert(colors)
    pixels = np.asarray(image).reshape(image.height, image.width, -1)
    return scale(np.moveaxis(pixels, 2, 0)[..., np.newaxis], Scale()), alpha


def _shrink(image: Image.Image, spec: Input) -> None:
    """Let libjpeg scale a JPEG down by 2, 4 or 8 while it decodes: fast, and in little memory."""
    height, width, _ = spec.shape
    reserve = _RESERVE.get(spec.resize.method)
    if isinstance(image, JpegImageFile) and reserve and height is not None and width is not None:
        side = reserve * max(height, width)  # for either orientation: EXIF is applied afterwards
        image.draft(None, (side, side))


def _unpack(image: Image.Image) -> None:
    try:
        image.load()
    except Exception as error:  # Pillow's plugins raise many kinds on hostile bytes
        raise BadInput(
            f"expected a whole {image.format} image, got a broken one: {error}"
        ) from error


def _broken(why: object, data: bytes) -> BadInput:
    return BadInput(f"expected a whole image, got {len(data)} bytes of a broken one: {why}")
