"""Image files as libvips reads them, which shares no code with Pillow's plugins."""

import numpy as np
import numpy.typing as npt
import pyvips

Levels = npt.NDArray[np.float64]


def read_by_vips(data: bytes, *, srgb: bool = False) -> Levels:
    """An image file -> (height, width, 3), laid on white, in levels of 0 to 255 not yet rounded.

    With `srgb`, its profile is applied.
    """
    image = pyvips.Image.new_from_buffer(data, "")
    if srgb:
        image = image.icc_transform("srgb", embedded=True, intent="perceptual")
    samples = image.numpy().reshape(image.height, image.width, image.bands)
    full = {"uchar": 255, "ushort": 65535}[image.format]
    alpha = samples[..., -1:] / full if image.hasalpha() else None
    colors = samples[..., : image.bands - image.hasalpha()] / full
    if image.interpretation == "cmyk":
        colors = without_ink(colors)
    return on_white(colors[..., :3], alpha)


def without_ink(inks: Levels) -> Levels:
    """Cyan, magenta, yellow and black of 0..1 -> red, green and blue, without a profile."""
    return np.asarray((1 - inks[..., :3]) * (1 - inks[..., 3:4]))


def on_white(colors: Levels, alpha: Levels | None) -> Levels:
    """Colours of 0..1, one or three channels, laid on white by alpha -> levels of 0 to 255."""
    if colors.shape[2] == 1:
        colors = colors.repeat(3, axis=2)
    return 255 * (colors if alpha is None else colors * alpha + 1 - alpha)
