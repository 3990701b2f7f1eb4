"""From a decoded image to the network's input: the function that training and service share."""

from collections.abc import Callable, Mapping, Sequence
from typing import assert_never, cast

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageChops, ImageOps

from service.pixels.color import to_srgb
from service.pixels.depth import SIXTEEN_BIT_MODES, reduction
from service.pixels.spec import Contain, Cover, FashionMnist, Input, KeepSize, Scale, Stretch

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

# An image is brought into the network's colours in strips of rows of about so many pixels: what is
# needed on the way is held for one strip only.
_STRIP_PIXELS = 1 << 16

# The area of a GIF's canvas that its first frame covers, where it is not all: in `Image.info`.
COVERED = "covered"

# EXIF orientation -> the operation that turns the image upright. Pillow's own exif_transpose also
# rewrites the EXIF data, which fails if they are damaged, and it copies images that are upright.
_TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Where a strip of rows goes: whether rows become columns, and whether the first becomes the last.
_ON_THEIR_SIDE = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
_FROM_THE_END = (
    Image.Transpose.ROTATE_180,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
)


def preprocess(image: Image.Image, spec: Input) -> Floats:
    """Apply the whole of `spec` to an image of any size and mode -> (height, width, channels)."""
    return scale(resize(flatten(image, spec), spec), spec.scale)


def scale(pixels: Pixels, spec: Scale) -> Floats:
    """Pixels 0..255, of any shape -> float32 as the network was trained on.

    Three means or deviations need three channels as the last axis.
    """
    scaled = pixels.astype(np.float32)
    scaled /= np.float32(spec.divisor)
    if spec.mean != 0.0 or spec.deviation != 1.0:
        scaled -= np.asarray(spec.mean, np.float32)
        scaled /= np.asarray(spec.deviation, np.float32)
    return scaled


def to_pixels(values: Floats) -> Pixels:
    """Values 0..1, of any shape -> 0..255."""
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def flatten(image: Image.Image, spec: Input) -> Image.Image:
    """Upright, opaque, in sRGB, 8 bits a channel: mode L for grey, RGB for colour in any order.

    Beside the image itself it takes 4 bytes a pixel, 1 for grey, and nothing if it is flat already.
    """
    mode = "L" if spec.color == "grey" else "RGB"
    shown = _shown(image)
    turn = _turn(image)
    if shown is None and turn is None and not image.has_transparency_data and image.mode == mode:
        return image

    def paint(rows: Image.Image, top: int) -> tuple[Image.Image]:
        flat = opaque(shown(rows, top) if shown else rows)
        return (flat if flat.mode == mode else flat.convert(mode),)

    (flat,) = _painted(image, turn, (mode,), paint)
    return flat


def separate(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Upright colours in sRGB, mode L or RGB, and alpha, mode L, of an unpacked image.

    Beside the image itself it takes at most 5 bytes a pixel.
    """
    mode = "L" if image.mode in ("1", "L", "LA", *SIXTEEN_BIT_MODES) else "RGB"
    shown, turn = _shown(image), _turn(image)
    if image.has_transparency_data or COVERED in image.info:

        def paint(rows: Image.Image, top: int) -> tuple[Image.Image, Image.Image]:
            layer = (shown(rows, top) if shown else rows).convert("RGBA")
            return layer.convert(mode), layer.getchannel("A")

        colors, alpha = _painted(image, turn, (mode, "L"), paint)
        return colors, alpha
    if shown is None and turn is None and image.mode == mode:
        return image, None
    (colors,) = _painted(
        image,
        turn,
        (mode,),
        lambda rows, top: ((shown(rows, top) if shown else rows).convert(mode),),
    )
    return colors, None


def _shown(image: Image.Image) -> Callable[[Image.Image, int], Image.Image] | None:
    """What gives rows of this image, from the row `top` on, 8 bits and the colours of sRGB.

    None where there is nothing to do.
    """
    reduced, converted = reduction(image), to_srgb(image)
    covered: tuple[int, int, int, int] | None = image.info.get(COVERED)
    if reduced is None and converted is None and covered is None:
        return None

    def shown(rows: Image.Image, top: int) -> Image.Image:
        if reduced is not None:
            rows = reduced(rows)
        if covered is not None:
            rows = _uncovered(rows, covered, top)
        if converted is not None:
            plain = rows.mode in ("L", "LA", "RGB", "RGBA", "CMYK") and (
                "transparency" not in rows.info
            )
            if not plain:
                rows = rows.convert("RGBA" if rows.has_transparency_data else "RGB")
            rows = converted(rows)
        return rows

    return shown


def _uncovered(rows: Image.Image, covered: tuple[int, int, int, int], top: int) -> Image.Image:
    """Rows from `top` on, transparent outside of what is covered (left, top, right, bottom)."""
    rows = rows.convert("RGBA")
    clear = Image.new("RGBA", rows.size)
    left, upper, right, lower = covered
    box = left, max(upper - top, 0), right, min(lower - top, rows.height)
    if box[1] < box[3]:
        clear.paste(rows.crop(box), box[:2])
    return clear


def _painted(
    image: Image.Image,
    turn: Image.Transpose | None,
    modes: Sequence[str],
    paint: Callable[[Image.Image, int], Sequence[Image.Image]],
) -> list[Image.Image]:
    """Images of the given modes, painted strip by strip and brought upright on the way."""
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    if rows >= height:
        return [layer if turn is None else layer.transpose(turn) for layer in paint(image, 0)]
    size = (height, width) if turn in _ON_THEIR_SIDE else (width, height)
    painted = [Image.new(mode, size) for mode in modes]
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        layers = paint(image.crop((0, top, width, bottom)), top)
        start = height - bottom if turn in _FROM_THE_END else top
        corner = (start, 0) if turn in _ON_THEIR_SIDE else (0, start)
        for whole, layer in zip(painted, layers, strict=True):
            whole.paste(layer if turn is None else layer.transpose(turn), corner)
    return painted


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What brings the image upright, by its EXIF data."""
    return _TURNS.get(_orientation(image))


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # the EXIF data are damaged, the image itself may be fine
        return None


def opaque(image: Image.Image) -> Image.Image:
    """Lay a transparent image on white, the background of a product photo."""
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def resize(image: Image.Image, spec: Input) -> Pixels:
    """Bring a flat image to the network's size -> (height, width, channels) uint8."""
    height, width, _ = spec.shape
    resized = _resized(image, (width or image.width, height or image.height), spec)
    pixels = np.frombuffer(resized.tobytes(), np.uint8)
    pixels = pixels.reshape(resized.height, resized.width, -1)
    return np.ascontiguousarray(pixels[..., ::-1]) if spec.color == "bgr" else pixels


def _resized(image: Image.Image, size: tuple[int, int], spec: Input) -> Image.Image:
    match spec.resize:
        case KeepSize():
            return image
        case Cover():
            return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
        case Contain(fill=fill):
            return _centred(image, size, fill, Image.Resampling.BILINEAR)
        case Stretch():
            return image.resize(size, Image.Resampling.BILINEAR)
        case FashionMnist() as procedure:
            return _fashion_mnist(image, size, procedure)
        case _:
            assert_never(spec.resize)


def _centred(
    image: Image.Image, size: tuple[int, int], fill: int, resample: Image.Resampling
) -> Image.Image:
    """The whole image, as large as fits into `size`, on a canvas of the grey level `fill`."""
    factor = min(size[0] / image.width, size[1] / image.height)
    fitted = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    canvas = Image.new(image.mode, size, (fill,) * len(image.getbands()))
    corner = (size[0] - fitted[0]) // 2, (size[1] - fitted[1]) // 2
    canvas.paste(image.resize(fitted, resample), corner)
    return canvas


def _fashion_mnist(image: Image.Image, size: tuple[int, int], spec: FashionMnist) -> Image.Image:
    background = _corner_median(image)
    if image.size == size and background < spec.dark_below:
        return image
    garment = image.crop(_box_unlike(image, background, spec.trim_tolerance))
    canvas = _centred(garment, size, background, Image.Resampling.BOX)
    return ImageOps.invert(canvas) if background >= spec.dark_below else canvas


def _corner_median(image: Image.Image) -> int:
    right, bottom = image.width - 1, image.height - 1
    level = cast(Mapping[tuple[int, int], int], image.load())
    corners = sorted((level[0, 0], level[right, 0], level[0, bottom], level[right, bottom]))
    return (corners[1] + corners[2]) // 2


def _box_unlike(image: Image.Image, background: int, tolerance: float) -> tuple[int, int, int, int]:
    """The smallest (left, top, right, bottom) that holds every pixel unlike the background."""
    difference = ImageChops.difference(image, Image.new("L", image.size, background))
    unlike = difference.point([255 * (level > tolerance * 255) for level in range(256)])
    return unlike.getbbox() or (0, 0, image.width, image.height)
