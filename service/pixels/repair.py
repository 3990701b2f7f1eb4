"""Image files without what is damaged beside their pixels, where Pillow refuses the whole file."""

import zlib
from collections.abc import Callable, Iterator
from io import BytesIO

from PIL import Image

from service.errors import UnsupportedImage

_CHUNK_FRAME = 12  # bytes of a PNG chunk's length, name and checksum

_BMP_HEADER_SIZE = 14  # where the size of the second header stands
_OS2_HEADER = 12
_BITS = {"1": 1, "L": 8}

# The segments of a JPEG that change how its pixels look, by their first bytes.
_EXIF, _ICC, _ADOBE = b"Exif\0\0", b"ICC_PROFILE\0", b"Adobe"


def repaired(data: bytes, file_format: str | None) -> Iterator[bytes]:
    """The file with less and less beside its pixels."""
    if file_format == "PNG":
        yield _png(data, lambda _, whole: whole)
        yield _png(data, lambda name, whole: whole and name == b"tRNS")
    if file_format == "JPEG":
        yield _jpeg(data, (_EXIF, _ICC, _ADOBE))
        yield _jpeg(data, (_ADOBE,))


def _png(data: bytes, keeps: Callable[[bytes, bool], bool]) -> bytes:
    """All critical chunks, and of the others those that `keeps` takes by name and wholeness."""
    kept = [data[:8]]
    start = 8
    while start + _CHUNK_FRAME <= len(data):
        end = start + _CHUNK_FRAME + int.from_bytes(data[start : start + 4], "big")
        name, body = data[start + 4 : start + 8], data[start + 4 : end - 4]
        ancillary = bool(name[0] & 0x20)
        if not ancillary or keeps(
            name, zlib.crc32(body) == int.from_bytes(data[end - 4 : end], "big")
        ):
            kept.append(data[start:end])
        start = end
    return b"".join(kept)


def _jpeg(data: bytes, kept: tuple[bytes, ...]) -> bytes:
    """The file without comments and without application segments that do not begin as `kept`."""
    parts = [data[:2]]
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF and data[start + 1] != 0xDA:
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        marker = data[start + 1]
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or data[start + 4 : end].startswith(kept):
            parts.append(data[start:end])
        start = end
    return b"".join([*parts, data[start:]])


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
