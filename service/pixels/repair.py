"""Image files without what is damaged beside their pixels, where Pillow refuses the whole file."""

import zlib
from collections.abc import Callable, Iterator
from io import BytesIO

from PIL import Image

from service.errors import BadInput, UnsupportedImage

_CHUNK_FRAME = 12  # bytes of a PNG chunk's length, name and checksum
_MAX_PARTS = 50_000  # chunks of a PNG or segments of a JPEG; Pillow takes 2 us for each
_ANCILLARY = 0x20  # the bit in the first letter of a chunk's name

_BMP_HEADER_SIZE = 14  # where the size of the second header stands
_OS2_HEADER = 12
_BITS = {"1": 1, "L": 8}

# The segments of a JPEG that change how its pixels look, by their first bytes.
_EXIF, _ICC, _ADOBE = b"Exif\0\0", b"ICC_PROFILE\0", b"Adobe"


def repaired(data: bytes, file_format: str) -> Iterator[bytes]:
    """The file with less and less beside its pixels."""
    if file_format == "PNG":
        yield _png(data, lambda _, whole: whole)
        yield _png(data, lambda name, whole: whole and name == b"tRNS")
        yield _png(data, lambda *_: False)
    if file_format == "JPEG":
        yield _jpeg(data, (_EXIF, _ICC, _ADOBE))
        yield _jpeg(data, (_ADOBE,))
        yield _jpeg(data, ())


def without_tail(png: bytes) -> bytes:
    """A PNG without what follows its pixels, EXIF data excepted.

    Pillow checks no checksum there, obeys what must come earlier, and lets damage spoil the image.
    """
    last = png.rfind(b"IDAT")
    length = int.from_bytes(png[last - 4 : last], "big")
    if png.startswith(b"IEND", last + length + 12):
        return png
    seen = False

    def keeps(name: bytes, whole: bool) -> bool:
        nonlocal seen
        seen = seen or name == b"IDAT"
        return not seen or (whole and name == b"eXIf")

    return _png(png, keeps)


def check_parts(data: bytes, file_format: str) -> None:
    """Raise BadInput for more chunks or segments before the pixels than Pillow reads in 0.1 s."""
    if len(data) < _MAX_PARTS:
        return  # it cannot have so many
    if file_format == "PNG":
        for start, _ in _chunks(data):
            if data.startswith(b"IDAT", start + 4):
                break
    elif file_format == "JPEG":
        for _ in _segments(data):
            pass


def _png(data: bytes, keeps: Callable[[bytes, bool], bool]) -> bytes:
    """The critical chunks, and of the others those that `keeps` takes by name and wholeness."""
    kept, end = [data[:8]], 8
    for start, end in _chunks(data):
        name, checksum = data[start + 4 : start + 8], data[end - 4 : end]
        whole = zlib.crc32(data[start + 4 : end - 4]) == int.from_bytes(checksum, "big")
        if keeps(name, whole) or not name[0] & _ANCILLARY:
            kept.append(data[start:end])
    return b"".join([*kept, data[end:]])


def _jpeg(data: bytes, kept: tuple[bytes, ...]) -> bytes:
    """The file without comments and without application segments that do not begin as `kept`."""
    parts, end = [data[:2]], 2
    for start, end in _segments(data):
        marker = data[start + 1]
        told = data[start] == 0xFF and (0xE0 <= marker <= 0xEF or marker == 0xFE)
        if not told or data[start + 4 : end].startswith(kept):
            parts.append(data[start:end])
    return b"".join([*parts, data[end:]])


def _chunks(png: bytes) -> Iterator[tuple[int, int]]:
    """Where each chunk starts and ends."""
    end = 8
    for _ in range(_MAX_PARTS):
        start = end
        if start + _CHUNK_FRAME > len(png):
            return
        end = start + _CHUNK_FRAME + int.from_bytes(png[start : start + 4], "big")
        yield start, end
    raise BadInput(f"expected a PNG of at most {_MAX_PARTS} chunks, got more")


def _segments(jpeg: bytes) -> Iterator[tuple[int, int]]:
    """Where each segment before the pixels starts and ends; of padding and junk each byte."""
    end = 2
    for _ in range(_MAX_PARTS):
        start = end
        if jpeg[start + 1 : start + 2] in (b"\xda", b""):
            return
        padding = jpeg[start] != 0xFF or jpeg[start + 1] == 0xFF
        end += 1 if padding else 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big")
        yield start, end
    raise BadInput(f"expected a JPEG of at most {_MAX_PARTS} segments before its pixels, got more")


def with_its_palette(bmp: Image.Image, data: bytes) -> Image.Image:
    """An opened BMP of 4 or 8 bits whose palette is black and white, or the first greys.

    Pillow takes it for one of 1 or 8 bits without a palette. One more colour that no pixel uses
    makes it look at the palette. Raises UnsupportedImage where that does not help.
    """
    tile = getattr(bmp, "tile", [None])[0]
    old = data[_BMP_HEADER_SIZE] == _OS2_HEADER
    bits = int.from_bytes(data[24:26] if old else data[28:30], "little")
    if tile is None or tile.codec_name != "raw" or _BITS.get(bmp.mode, bits) == bits:
        return bmp
    colors = int.from_bytes(data[46:50], "little") or 1 << bits
    if not old:
        file = BytesIO(data[:46] + (colors + 1).to_bytes(4, "little") + data[50:])
        bmp = Image.open(file, formats=("BMP",))
    if bmp.mode != "P":
        raise UnsupportedImage(f"expected BMP of 1 or 8 bits for a grey palette, got {bits} bits")
    return bmp
