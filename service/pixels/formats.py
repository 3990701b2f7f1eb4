"""Which image files are read, and the names of those that are not."""

import re
from io import BytesIO

from PIL import Image
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COMPRESSION,
    EXTRASAMPLES,
    FILLORDER,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    ImageFileDirectory_v2,
    TiffImageFile,
)

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")

# The first bytes of each: they tell a broken image from another type of file.
_SIGNATURE = re.compile(
    rb"(?P<PNG>\x89PNG)|(?P<JPEG>\xff\xd8\xff)|(?P<WEBP>RIFF.{4}WEBP)|(?P<BMP>BM.{4}\0{4})"
    rb"|(?P<GIF>GIF8)|(?P<TIFF>II[*+]\0|MM\0[*+])|(?P<AVIF>.{4}ftyp(?:avi[fs]|mif1|msf1))",
    re.DOTALL,
)
_FOREIGN = re.compile(
    rb"(?P<JPEG_2000>\0\0\0\x0cjP  |\xff\x4f\xff\x51)|(?P<JPEG_XL>\0\0\0\x0cJXL |\xff\x0a)"
    rb"|(?P<PDF>%PDF-)|(?P<SVG>(?:\xef\xbb\xbf)?\s*<(?:svg\b|[?!].{0,1000}?<svg\b))",
    re.DOTALL,
)
# Of the brands that a file of HEIF's container lists, those of HEIC and of AVIF.
_HEIC_BRAND = re.compile(rb"he[iv][cmsx]")
_AVIF_BRAND = re.compile(rb"avi[fs]")

# What Pillow says of a file that is whole, but not of a kind that it reads. A number is that of a
# TIFF's compression, and the index that of a plane which it has no name for.
_NOT_READ = re.compile(
    r"unsupported|not (?:yet )?supported|cannot handle|unknown (?:pixel|raw) mode"
    r"|^\d+$|string index out of range",
    re.I,
)
_BIG_TIFF_BIG_ENDIAN = b"MM\0+"

_PHOTOMETRICS = {
    0: "grey with white as zero",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "a mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIE Lab",
    9: "ICC Lab",
    10: "ITU Lab",
    32803: "a camera's raw filter array",
    34892: "a camera's raw colours",
}
_YCBCR = 6
_PAIRS = ("LA", "PA", "La")
_SAMPLE_FORMATS = {2: "signed", 3: "floating point", 5: "complex", 6: "complex"}


def format_of(data: bytes) -> str | None:
    """The one of FORMATS that the first bytes announce, or None."""
    match = _SIGNATURE.match(data)
    if match is None or (match.lastgroup == "AVIF" and _is_heic(data)):
        return None
    return match.lastgroup


def foreign_name(data: bytes) -> str | None:
    """The name of a common type of image that is not read, with what to do about it, or None."""
    if _is_heic(data):
        return (
            "HEIC (not read): convert it to JPEG, which an iPhone takes itself if its camera's "
            "format is set to 'Most Compatible'"
        )
    match = _FOREIGN.match(data)
    return f"{match.lastgroup.replace('_', ' ')} (not read)" if match and match.lastgroup else None


def _is_heic(data: bytes) -> bool:
    brands = data[8 : int.from_bytes(data[:4], "big")][:200] if data[4:8] == b"ftyp" else b""
    return bool(_HEIC_BRAND.search(brands)) and not _AVIF_BRAND.search(brands)


def why_unread(data: bytes, file_format: str) -> tuple[str, bool]:
    """What the plugin says of a file that it did not open, and whether the file may be whole.

    `Image.open` keeps the reason to itself.
    """
    try:
        Image.OPEN[file_format][0](BytesIO(data), "")
    except Exception as error:  # Pillow's plugins raise many kinds on hostile bytes
        reason = str(error)[:120]
    else:
        reason = "its header cannot be read"
    if data.startswith(_BIG_TIFF_BIG_ENDIAN):
        return "TIFF with offsets of 64 bits in big-endian order (not read)", True
    if not _NOT_READ.search(reason):
        return reason, False
    name = _tiff_name(data) if file_format == "TIFF" else None
    return f"{name or file_format} (not read: {reason})", True


def kind_of(image: Image.Image) -> str:
    """What an opened image is, in words."""
    if isinstance(image, TiffImageFile):
        return _described(image.tag_v2)
    return f"{image.format or 'an image'} of mode {image.mode}"


def misread(image: Image.Image) -> str | None:
    """The name of what Pillow opens but does not read right, or None."""
    if isinstance(image, TiffImageFile):
        return _misread_tiff(image)
    if image.format == "PNG" and image.mode == "RGB" and "transparency" in image.info:
        # The transparent colour has 16 bits a channel, the pixels come with 8.
        deep = any(tile.args == "RGB;16B" for tile in getattr(image, "tile", ()))
        return "PNG of 16 bits a channel with a transparent colour" if deep else None
    return None


def _misread_tiff(image: TiffImageFile) -> str | None:
    tags = image.tag_v2
    if not set(tags.get(SAMPLEFORMAT, (1,))) <= {1, 4}:
        return _described(tags)
    extra = tags.get(EXTRASAMPLES, ())
    unused = 0 if any(extra) else len(extra)  # of those Pillow leaves out
    samples = tags.get(SAMPLESPERPIXEL, 1)
    if tags.get(PLANAR_CONFIGURATION, 1) == 2 and samples > 1:
        by_libtiff = image.info.get("compression") != "raw"
        read = image.mode in ("RGB", "RGBA", "CMYK") or (by_libtiff and image.mode not in _PAIRS)
        read = read and samples - unused == len(image.getbands())
        read = read and not (extra and tags.get(PHOTOMETRIC_INTERPRETATION) == _YCBCR)
        if not by_libtiff:
            plain = set(tags[BITSPERSAMPLE]) == {8} and tags.get(FILLORDER, 1) == 1
            read = read and plain and 1 not in extra
        return None if read else _described(tags)
    return None


def _tiff_name(data: bytes) -> str | None:
    """What a whole TIFF is of, by its first directory; None if that is damaged."""
    try:
        tags = ImageFileDirectory_v2(data[:16] if data[2] == 43 else data[:8])
        file = BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        return _described(tags)
    except Exception:  # Pillow raises many kinds on hostile bytes
        return None


def _described(tags: ImageFileDirectory_v2) -> str:
    bits = sorted(set(tags[BITSPERSAMPLE])) if BITSPERSAMPLE in tags else [1]
    photometric = tags.get(PHOTOMETRIC_INTERPRETATION, 0)
    parts = [
        f"TIFF of {', '.join(map(str, bits))} bits a channel",
        _PHOTOMETRICS.get(photometric, f"photometric interpretation {photometric}"),
        *sorted(
            {
                _SAMPLE_FORMATS[each]
                for each in tags.get(SAMPLEFORMAT, ())
                if each in _SAMPLE_FORMATS
            }
        ),
    ]
    if EXTRASAMPLES in tags:
        parts.append("with extra channels")
    if tags.get(PLANAR_CONFIGURATION, 1) == 2:
        parts.append("in separate planes")
    if tags.get(FILLORDER, 1) == 2:
        parts.append("with reversed bits")
    if tags.prefix == b"MM":
        parts.append("big-endian")
    if tags.get(COMPRESSION, 1) != 1:
        parts.append(f"compression {tags[COMPRESSION]}")
    return ", ".join(parts)[:200]
