"""From an image of any mode to upright colours in sRGB of 8 bits, opaque or with alpha apart."""

from collections.abc import Callable, Sequence

from PIL import ExifTags, Image

from service.pixels.color import to_srgb
from service.pixels.depth import SIXTEEN_BIT_MODES, reduction
from service.pixels.spec import Input

# An image is brought into the network's colours in strips of rows of about so many pixels: what is
# needed on the way is held for one strip only.
_STRIP_PIXELS = 1 << 16

# The area of a GIF's canvas that its first frame covers, where it is not all: in `Image.info`.
COVERED = "covered"
# What makes an image of mode L or RGB other than flat, by its names in `Image.info`.
_CHANGES = frozenset(("icc_profile", "transparency", COVERED))

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


def flatten(image: Image.Image, spec: Input) -> Image.Image:
    """Upright, opaque, in sRGB, 8 bits a channel: mode L for grey, RGB for colour in any order.

    Beside the image itself it takes 4 bytes a pixel, 1 for grey, and nothing if it is flat already.
    """
    mode = "L" if spec.color == "grey" else "RGB"
    turn = _turn(image)
    if turn is None and image.mode == mode and _CHANGES.isdisjoint(image.info):
        return image
    shown = _shown(image)

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
    if not image.info and image.format == "PNG":  # then there are none, and asking takes 5 us
        return None
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
