"""Grey of more than 8 bits a pixel, brought to 8."""

from collections.abc import Callable

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION

# Pillow's own conversion of these modes to 8 bits clips.
SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")

_WHITE_IS_ZERO = 0


def reduction(image: Image.Image) -> Callable[[Image.Image], Image.Image] | None:
    """What brings any rows of this image to 8 bits, mode L or LA; None for one that has them."""
    if image.mode not in SIXTEEN_BIT_MODES:
        return None
    tags = getattr(image, "tag_v2", {})
    shift = tags.get(BITSPERSAMPLE, (16,))[0] - 8  # Pillow leaves 12-bit TIFF in the low bits
    negative = tags.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO
    transparent = image.info.get("transparency")

    def reduced(rows: Image.Image) -> Image.Image:
        samples = np.asarray(rows).astype(np.uint16)
        levels = (samples >> shift).astype(np.uint8)
        grey = Image.fromarray(~levels if negative else levels)
        if transparent is not None:
            # All 16 bits count: a pixel that is as light, but not the same, is opaque.
            grey.putalpha(Image.fromarray(np.uint8(255) * (samples != transparent)))
        return grey

    return reduced
