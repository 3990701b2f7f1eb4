"""What decoding an image takes in memory, known from its opened header.

tests/service/pixels/test_cost.py measures every format and mode against these figures.
"""

from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from service.pixels.decode import draft_side
from service.pixels.spec import Input

# Bytes a pixel of Pillow's own images.
_MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
_OTHER_MODE_BYTES = 4

# Bytes a pixel that decoders take beside that where they unpack the whole image at once.
_WHOLE_IMAGE_BYTES = {
    "WEBP": 17,  # two canvases, a copy of one, and libwebp's own planes
    "AVIF": 10,  # the planes in YUV, and a copy in RGBA
}
_RLE_BYTES = 4  # Pillow's decoder of a compressed BMP is in Python
_COEFFICIENT_BYTES = 2  # libjpeg's, for each sample of an image in several scans

# Bytes a pixel, of the size at which an image is unpacked, to flatten and to resize it.
_OWN_BYTES = 5

_TILE_WIDTH, _TILE_HEIGHT, _ROWS_PER_STRIP = 322, 323, 278
_BITS, _SAMPLES, _PLANAR, _PHOTOMETRIC = 258, 277, 284, 262
_ORIENTATION = 274
_SEPARATE, _YCBCR = 2, 6


def decode_bytes(image: Image.Image, spec: Input) -> int:
    """The most bytes that an opened image takes while it becomes the network's input."""
    factor = _draft_factor(image, spec)
    return unpack_bytes(image, factor) + _pixels(image, factor) * _OWN_BYTES


def unpack_bytes(image: Image.Image, factor: int = 1) -> int:
    """The most bytes that `image.load()` takes; of a JPEG, where it is scaled down by `factor`."""
    pixels = image.width * image.height
    needed = _pixels(image, factor) * _MODE_BYTES.get(image.mode, _OTHER_MODE_BYTES)
    codec = (
        image.tile[0].codec_name if isinstance(image, ImageFile.ImageFile) and image.tile else ""
    )
    if isinstance(image, JpegImageFile):
        if codec and _has_several_scans(image):
            needed += _coefficients(image) * _COEFFICIENT_BYTES
    elif isinstance(image, TiffImageFile):
        if _tag(image, _ORIENTATION, 1) != 1:
            needed *= 2  # Pillow turns it, into a second image
        if codec == "libtiff":
            needed += _piece_bytes(image)
    elif codec == "bmp_rle":
        needed += pixels * _RLE_BYTES
    else:
        needed += pixels * _WHOLE_IMAGE_BYTES.get(image.format or "", 0)
    return needed


def _pixels(image: Image.Image, factor: int) -> int:
    return -(-image.width // factor) * -(-image.height // factor)


def _draft_factor(image: Image.Image, spec: Input) -> int:
    side = draft_side(image, spec)
    if side is None:
        return 1
    return next((each for each in (8, 4, 2) if min(image.size) // side >= each), 1)


def _has_several_scans(image: JpegImageFile) -> bool:
    """Whether libjpeg keeps the coefficients of the whole image until its last scan has come.

    So it does for a progressive image, and for one whose first scan lacks a channel: Pillow has
    read to the end of that scan's header, which ends in the channels and three bytes.
    """
    if "progressive" in image.info:
        return True
    assert image.fp is not None  # it is not unpacked yet
    length = 6 + 2 * image.layers
    end = image.fp.tell()
    image.fp.seek(max(0, end - length))
    header = image.fp.read(length)
    return header[:3] != bytes([0, length, image.layers])


def _coefficients(image: JpegImageFile) -> int:
    """The samples of all channels; some have fewer than the image has pixels."""
    across = max(1, *(layer[1] for layer in image.layer))  # 0 is nonsense that libjpeg refuses
    down = max(1, *(layer[2] for layer in image.layer))
    return sum(
        -(-image.width * layer[1] // across) * -(-image.height * layer[2] // down)
        for layer in image.layer
    )


def _piece_bytes(image: TiffImageFile) -> int:
    """A strip or a tile, which libtiff unpacks whole; a tile may be larger than the image."""
    samples = 1 if _tag(image, _PLANAR, 1) == _SEPARATE else _tag(image, _SAMPLES, 1)
    bits = _tag(image, _BITS, 1) * samples
    if _tag(image, _PHOTOMETRIC, 0) == _YCBCR:
        bits = max(bits, 32)  # libtiff makes RGBA of it
    if _TILE_WIDTH in image.tag_v2:
        width, height = _tag(image, _TILE_WIDTH, 0), _tag(image, _TILE_HEIGHT, 0)
    else:
        width = image.width
        height = min(image.height, _tag(image, _ROWS_PER_STRIP, image.height))
    return width * height * bits // 8


def _tag(image: TiffImageFile, number: int, default: int) -> int:
    value = image.tag_v2.get(number, default)
    first = value[0] if isinstance(value, tuple) and value else value
    return first if isinstance(first, int) else default
