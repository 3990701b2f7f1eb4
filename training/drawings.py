"""Sample images for photo classifiers, drawn with Pillow: 256x256, in colour."""

from PIL import Image, ImageDraw, ImageFilter

SIDE = 256
_OVERSAMPLING = 4
_BIG = SIDE * _OVERSAMPLING

Point = tuple[float, float]
Color = tuple[int, int, int]


class _Canvas:
    """Draws in fractions of the side."""

    def __init__(self, background: Color) -> None:
        self._image = Image.new("RGB", (_BIG, _BIG), background)
        self._draw = ImageDraw.Draw(self._image)

    def polygon(self, *points: Point, fill: Color) -> None:
        self._draw.polygon(_at(*points), fill=fill)

    def ellipse(self, left_top: Point, right_bottom: Point, fill: Color) -> None:
        self._draw.ellipse(_at(left_top, right_bottom), fill=fill)

    def line(self, *points: Point, fill: Color, width: float = 0.01) -> None:
        self._draw.line(_at(*points), fill=fill, width=round(width * _BIG), joint="curve")

    def finished(self) -> Image.Image:
        soft = self._image.filter(ImageFilter.GaussianBlur(_BIG / 250))
        return soft.resize((SIDE, SIDE), Image.Resampling.BOX)


def _at(*points: Point) -> list[Point]:
    return [(x * _BIG, y * _BIG) for x, y in points]


def goldfish() -> Image.Image:
    """A goldfish in blue water, seen from the side."""
    orange, dark, light = (238, 120, 24), (196, 78, 10), (255, 176, 72)
    canvas = _Canvas((38, 92, 128))
    canvas.polygon((0.66, 0.5), (0.93, 0.26), (0.88, 0.5), (0.93, 0.76), fill=dark)
    canvas.polygon((0.36, 0.36), (0.5, 0.18), (0.66, 0.40), fill=dark)
    canvas.polygon((0.42, 0.64), (0.52, 0.80), (0.58, 0.62), fill=dark)
    canvas.ellipse((0.12, 0.30), (0.74, 0.70), orange)
    canvas.ellipse((0.18, 0.50), (0.62, 0.68), light)
    canvas.line((0.33, 0.36), (0.37, 0.44), (0.37, 0.56), (0.33, 0.64), fill=dark)
    canvas.ellipse((0.19, 0.41), (0.25, 0.47), (250, 240, 220))
    canvas.ellipse((0.205, 0.42), (0.24, 0.455), (20, 16, 12))
    return canvas.finished()


def cat() -> Image.Image:
    """A tabby cat that looks at the camera."""
    coat, dark, pale, pink = (150, 122, 92), (84, 66, 50), (226, 212, 192), (206, 132, 124)
    canvas = _Canvas((176, 168, 152))
    canvas.ellipse((0.16, 0.62), (0.84, 1.3), coat)
    canvas.ellipse((0.36, 0.74), (0.64, 1.2), pale)
    for middle, outwards in ((0.32, -1), (0.68, 1)):
        outer, inner = middle + outwards * 0.12, middle - outwards * 0.14
        canvas.polygon((outer, 0.08), (outer, 0.42), (inner, 0.24), fill=coat)
        canvas.polygon((outer, 0.15), (outer, 0.36), (middle - outwards * 0.06, 0.26), fill=pink)
        for y in (0.70, 0.80, 0.90):
            canvas.line((outer, y + 0.05), (middle, y), fill=dark, width=0.025)
    canvas.ellipse((0.18, 0.20), (0.82, 0.74), coat)
    for x in (0.42, 0.5, 0.58):
        canvas.line((x, 0.22), (0.5 + (x - 0.5) * 0.6, 0.36), fill=dark, width=0.025)
    for left, right in ((0.19, 0.31), (0.81, 0.69)):
        for y in (0.46, 0.54):
            canvas.line((left, y), (right, y + 0.02), fill=dark, width=0.018)
    for x in (0.37, 0.63):
        canvas.ellipse((x - 0.075, 0.38), (x + 0.075, 0.50), (40, 32, 26))
        canvas.ellipse((x - 0.065, 0.388), (x + 0.065, 0.492), (186, 190, 92))
        canvas.ellipse((x - 0.018, 0.39), (x + 0.018, 0.49), (12, 12, 12))
        canvas.ellipse((x - 0.03, 0.40), (x - 0.012, 0.42), (250, 250, 250))
    canvas.ellipse((0.38, 0.53), (0.52, 0.68), pale)
    canvas.ellipse((0.48, 0.53), (0.62, 0.68), pale)
    canvas.polygon((0.455, 0.525), (0.545, 0.525), (0.5, 0.575), fill=pink)
    canvas.line((0.5, 0.57), (0.5, 0.61), fill=dark, width=0.008)
    canvas.line((0.42, 0.62), (0.46, 0.64), (0.5, 0.61), (0.54, 0.64), (0.58, 0.62), fill=dark)
    for end in (0.55, 0.61, 0.67):
        canvas.line((0.41, 0.60), (0.10, end), fill=(240, 236, 228), width=0.005)
        canvas.line((0.59, 0.60), (0.90, end), fill=(240, 236, 228), width=0.005)
    return canvas.finished()


def t_shirt() -> Image.Image:
    """A blue T-shirt laid out on a wooden floor."""
    blue, seam = (44, 84, 148), (28, 58, 110)
    canvas = _Canvas((188, 158, 120))
    for board in range(1, 5):
        canvas.line((board / 5, 0), (board / 5, 1), fill=(160, 130, 94), width=0.006)
    canvas.polygon(
        *((0.36, 0.14), (0.64, 0.14), (0.92, 0.30), (0.82, 0.46), (0.72, 0.40), (0.73, 0.90)),
        *((0.27, 0.90), (0.28, 0.40), (0.18, 0.46), (0.08, 0.30)),
        fill=blue,
    )
    canvas.ellipse((0.38, 0.07), (0.62, 0.22), seam)
    canvas.ellipse((0.40, 0.05), (0.60, 0.19), (188, 158, 120))
    for left, right in (((0.28, 0.40), (0.30, 0.24)), ((0.72, 0.40), (0.70, 0.24))):
        canvas.line(left, right, fill=seam, width=0.008)
    canvas.line((0.27, 0.87), (0.73, 0.87), fill=seam, width=0.006)
    return canvas.finished()


def shapes() -> Image.Image:
    """A disc, a square and a triangle: for classes of which nothing is known."""
    canvas = _Canvas((228, 226, 220))
    canvas.ellipse((0.10, 0.12), (0.52, 0.54), (200, 60, 50))
    canvas.polygon((0.58, 0.20), (0.90, 0.20), (0.90, 0.52), (0.58, 0.52), fill=(50, 90, 180))
    canvas.polygon((0.28, 0.92), (0.50, 0.56), (0.74, 0.92), fill=(60, 150, 80))
    return canvas.finished()
