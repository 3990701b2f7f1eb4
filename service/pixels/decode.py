"""Decode posted bytes into a network's input; every error of an input is found here."""

import re
import threading
from io import BytesIO

from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from service.errors import BadInput, TooLarge, UnsupportedImage
from service.pixels.preprocess import Floats, preprocess
from service.pixels.spec import Input

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")

# The first bytes of each format: they tell a broken image from another type of file.
_SIGNATURE = re.compile(
    rb"\x89PNG|\xff\xd8\xff|RIFF.{4}WEBP|BM.{4}\0{4}|GIF8|II[*+]\0|MM\0[*+]", re.DOTALL
)
# A JPEG scaled while it is decoded keeps at least this many times the network's side. Twice is
# enough to resize from. Product photos keep more: a margin that is trimmed may be most of them.
_RESERVE = {"cover": 2, "contain": 2, "stretch": 2, "fashion-mnist": 16}

# Pillow unpacks an opened file's pixels at first use, and that not safely across threads.
_UNPACKING = threading.Lock()

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
    check_image(image, max_pixels)
    return image


def check_image(image: Image.Image, max_pixels: int) -> None:
    """Raise TooLarge for more pixels than that, BadInput for a mode that is not read."""
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise TooLarge(
            f"expected an image of at most {max_pixels} pixels, "
            f"got {image.width}x{image.height} = {pixels} pixels"
        )
    if image.mode not in _MODES and not image.mode.startswith("I;16"):
        raise BadInput(
            "expected grey, palette, RGB or CMYK with 1 to 16 bits a channel, "
            f"got {image.format or 'an image'} of mode {image.mode}"
        )


def detach(image: Image.Image) -> Image.Image:
    """A caller's image for `decode`, which would scale a JPEG in place: a JPEG is copied.

    The caller may give the same image to several threads at once.
    """
    with _UNPACKING:
        unpack(image)
    return image.copy() if isinstance(image, JpegImageFile) else image


def decode(image: Image.Image, spec: Input) -> Floats:
    """An opened image -> the network's input (height, width, channels); raises BadInput."""
    _shrink(image, spec)
    unpack(image)
    return preprocess(image, spec)


def draft_side(image: Image.Image, spec: Input) -> int | None:
    """The least side to which a JPEG may be scaled while it is decoded; None for no scaling."""
    height, width, _ = spec.shape
    reserve = _RESERVE.get(spec.resize.method)
    if not isinstance(image, JpegImageFile) or not reserve or height is None or width is None:
        return None
    return reserve * max(height, width)  # for either orientation: EXIF is applied afterwards


def _shrink(image: Image.Image, spec: Input) -> None:
    """Let libjpeg scale a JPEG down by 2, 4 or 8 while it decodes: fast, and in little memory."""
    side = draft_side(image, spec)
    if side is not None:
        image.draft(None, (side, side))


def unpack(image: Image.Image) -> None:
    """Decode an opened image's pixels; raises BadInput for a broken one."""
    try:
        image.load()
    except Exception as error:  # Pillow's plugins raise many kinds on hostile bytes
        raise BadInput(
            f"expected a whole {image.format} image, got a broken one: {error}"
        ) from error


def _broken(why: object, data: bytes) -> BadInput:
    return BadInput(f"expected a whole image, got {len(data)} bytes of a broken one: {why}")
