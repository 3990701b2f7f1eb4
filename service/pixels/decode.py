"""Decode posted bytes into a network's input; every error of an input is found here."""

import threading
from contextlib import suppress
from io import BytesIO

from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from service.errors import BadInput, RequestError, TooLarge, UnsupportedImage
from service.pixels.avif import check_pictures, first_of_sequence
from service.pixels.depth import SIXTEEN_BIT_MODES
from service.pixels.flatten import COVERED
from service.pixels.formats import FORMATS, foreign_name, format_of, kind_of, misread, why_unread
from service.pixels.preprocess import Floats, preprocess
from service.pixels.repair import check_parts, repaired, with_its_palette, without_tail
from service.pixels.spec import Input

# A JPEG scaled while it is decoded keeps at least this many times the network's side. Twice is
# enough to resize from. Product photos keep more: a margin that is trimmed may be most of them.
_RESERVE = {"cover": 2, "contain": 2, "stretch": 2, "fashion-mnist": 16}

# Pillow unpacks an opened file's pixels at first use, and that not safely across threads.
_UNPACKING = threading.Lock()

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", *SIXTEEN_BIT_MODES)
_READ = "grey, palette, RGB or CMYK with 1 to 16 bits a channel"

# What Pillow multiplies the samples of a grey PNG by, but not the one that is transparent.
_GREY_STEPS = {"L;2": (3, 85), "L;4": (15, 17), "L": (255, 1)}


def open_image(data: bytes, max_bytes: int, max_pixels: int) -> Image.Image:
    """Read an image's header and check its type and size, without decoding the pixels.

    Raises BadInput, TooLarge or UnsupportedImage.
    """
    if not data:
        raise BadInput(f"expected an image ({', '.join(FORMATS)}), got 0 bytes")
    if len(data) > max_bytes:
        raise TooLarge(f"expected an image of at most {max_bytes} bytes, got {len(data)} bytes")
    file_format = format_of(data)
    if file_format is None:
        name = foreign_name(data) or f"{len(data)} bytes of another type"
        raise UnsupportedImage(f"expected an image ({', '.join(FORMATS)}), got {name}")
    try:
        image = _open(data, file_format)
    except RequestError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, where it is the lower one
        raise TooLarge(f"expected an image of at most {max_pixels} pixels: {error}") from error
    except Exception as error:  # Pillow's plugins raise many kinds on hostile bytes
        reason, whole = why_unread(data, file_format)
        if whole:
            raise UnsupportedImage(f"expected {_READ}, got {reason}") from error
        raise _broken(reason, data) from error
    check_image(image, max_pixels)
    if file_format == "AVIF":
        try:
            check_pictures(data, image.width * image.height)
        except ValueError as error:
            raise _broken(error, data) from error
    return image


def _open(data: bytes, file_format: str) -> Image.Image:
    """Open a file, or what is left of it without damage that does not concern its pixels."""
    check_parts(data, file_format)
    if file_format == "PNG":
        data = without_tail(data)
    elif file_format == "AVIF":
        data = first_of_sequence(data)
    try:
        image = Image.open(BytesIO(data), formats=(file_format,))
    except Image.DecompressionBombError:
        raise
    except Exception:
        for less in repaired(data, file_format):
            with suppress(Exception):
                return Image.open(BytesIO(less), formats=(file_format,))
        raise
    return with_its_palette(image, data) if file_format == "BMP" else image


def check_image(image: Image.Image, max_pixels: int) -> None:
    """Raise TooLarge for more pixels than that, UnsupportedImage for what is not read right."""
    width, height = image.size
    if width * height > max_pixels:
        raise TooLarge(
            f"expected an image of at most {max_pixels} pixels, "
            f"got {width}x{height} = {width * height} pixels"
        )
    name = misread(image)
    if name is None and image.mode not in _MODES:
        name = kind_of(image)
    if name is not None:
        raise UnsupportedImage(f"expected {_READ}, got {name} (not read)")


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
    if not isinstance(image, JpegImageFile):
        return None
    height, width, _ = spec.shape
    reserve = _RESERVE.get(spec.resize.method)
    if not reserve or height is None or width is None:
        return None
    return reserve * max(height, width)  # for either orientation: EXIF is applied afterwards


def _shrink(image: Image.Image, spec: Input) -> None:
    """Let libjpeg scale a JPEG down by 2, 4 or 8 while it decodes: fast, and in little memory."""
    side = draft_side(image, spec)
    if side is not None:
        image.draft(None, (side, side))


def unpack(image: Image.Image) -> None:
    """Decode an opened image's pixels; raises BadInput for a broken one."""
    tiles = getattr(image, "tile", ())
    try:
        image.load()
    except Exception as error:  # Pillow's plugins raise many kinds on hostile bytes
        if "unknown raw mode" in str(error):
            raise UnsupportedImage(
                f"expected {_READ}, got {kind_of(image)} (not read: {error})"
            ) from error
        raise BadInput(
            f"expected a whole {image.format} image, got a broken one: {error}"
        ) from error
    if image.mode in ("P", "PA") and image.palette is None:
        raise BadInput(f"expected a whole {image.format} image, got one without its palette")
    if tiles:
        _complete(image, tiles[0])


def _complete(image: Image.Image, tile: ImageFile._Tile) -> None:
    """Add what Pillow leaves out of a newly unpacked image: transparency that it got wrong."""
    clear = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "L" and clear is not None:
        mask, step = _GREY_STEPS[str(tile.args)]
        image.info["transparency"] = (clear & mask) * step
    elif image.format == "GIF" and clear is None and tile.extents != (0, 0, *image.size):
        image.info[COVERED] = tile.extents  # what a GIF does not draw is transparent


def _broken(why: object, data: bytes) -> BadInput:
    return BadInput(f"expected a whole image, got {len(data)} bytes of a broken one: {why}")
