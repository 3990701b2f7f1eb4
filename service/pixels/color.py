"""ICC profiles: the colours of an image, brought to sRGB."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 4_000_000  # those of presses have 0.5 to 3 MB

# What a profile must describe for an image of each mode.
_SPACES = {
    **dict.fromkeys(("1", "L", "LA", "I;16", "I;16L", "I;16B", "I;16N"), "GRAY"),
    **dict.fromkeys(("P", "PA", "RGB", "RGBA", "YCbCr"), "RGB"),
    "CMYK": "CMYK",
}

Conversion = Callable[[Image.Image], Image.Image]

_MAX_CACHED = 8  # a press's takes up to 2 MB
_cached: OrderedDict[bytes, Conversion | None] = OrderedDict()
_caching = threading.Lock()


def to_srgb(image: Image.Image) -> Conversion | None:
    """What brings any rows of this image to sRGB; they come as L, LA, RGB, RGBA or CMYK.

    None without a profile, and for one that is damaged, too large, made for another kind of image
    or sRGB itself.
    """
    profile = image.info.get("icc_profile")
    space = _SPACES.get(image.mode)
    if not isinstance(profile, bytes) or space is None or len(profile) > MAX_PROFILE_BYTES:
        return None
    key = hashlib.blake2b(profile, digest_size=16, salt=space.encode()).digest()
    with _caching:
        if key in _cached:
            _cached.move_to_end(key)
            return _cached[key]
    conversion = _conversion(profile, space)
    with _caching:
        _cached[key] = conversion
        if len(_cached) > _MAX_CACHED:
            _cached.popitem(last=False)
    return conversion


def _conversion(profile: bytes, space: str) -> Conversion | None:
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if source.profile.xcolor_space.strip() != space:
            return None
        if space == "GRAY":
            return _grey(source)
        if space == "CMYK":
            return _transform(source, "CMYK", "RGB").apply
        return _color(source)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None


def _transform(source: ImageCms.ImageCmsProfile, mode: str, to: str) -> ImageCms.ImageCmsTransform:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return ImageCms.ImageCmsTransform(source, srgb, mode, to)


def _grey(source: ImageCms.ImageCmsProfile) -> Conversion | None:
    """One level for each of 256: grey stays grey."""
    levels = Image.fromarray(np.arange(256, dtype=np.uint8)[np.newaxis])
    table = list(_transform(source, "L", "RGB").apply(levels).getchannel("G").tobytes())
    if _close(np.array(table), np.arange(256)):
        return None

    def convert(rows: Image.Image) -> Image.Image:
        colors = len(rows.getbands()) - rows.has_transparency_data
        return rows.point(table * colors + list(range(256)) * rows.has_transparency_data)

    return convert


def _color(source: ImageCms.ImageCmsProfile) -> Conversion | None:
    opaque, transparent = (_transform(source, mode, mode) for mode in ("RGB", "RGBA"))
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    probe = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
    if _close(np.asarray(opaque.apply(Image.fromarray(probe))), probe):
        return None

    def convert(rows: Image.Image) -> Image.Image:
        if rows.mode == "RGBA":
            return transparent.apply(rows)
        return opaque.apply(rows if rows.mode == "RGB" else rows.convert("RGB"))

    return convert


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether they differ by rounding only: then the profile is sRGB by another name."""
    return bool(np.abs(one.astype(int) - other).max() <= 1)
