"""Sample images, drawn with Pillow: no data-set image is published."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

_OVERSAMPLING = 8


def trousers() -> Image.Image:
    """A pair of trousers as Fashion-MNIST shows one: 28x28, light on black."""
    side = 28 * _OVERSAMPLING
    canvas = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(canvas)

    def at(*points: tuple[float, float]) -> list[tuple[float, float]]:
        return [(x * _OVERSAMPLING, y * _OVERSAMPLING) for x, y in points]

    draw.polygon(at((9, 0), (19, 0), (20.5, 14), (20.5, 28), (16, 28), (14.3, 9), (13.7, 9),
                    (12, 28), (7.5, 28), (7.5, 14)), fill=190)  # fmt: skip
    draw.rectangle(at((9, 0), (19, 1.8)), fill=225)
    draw.line(at((10.2, 3), (9.6, 27)), fill=160, width=_OVERSAMPLING)
    draw.line(at((17.8, 3), (18.4, 27)), fill=160, width=_OVERSAMPLING)
    return canvas.resize((28, 28), Image.Resampling.BOX)


def hand(fingers: int, side: int = 256) -> Image.Image:
    """A hand that shows `fingers` (0 to 5) fingers, upright, on a light wall."""
    skin, shade, wall = (158, 116, 92), (122, 82, 62), (226, 220, 210)
    big = 4 * side
    canvas = Image.new("RGB", (big, big), wall)
    draw = ImageDraw.Draw(canvas)

    def limb(start: tuple[float, float], end: tuple[float, float], width: float) -> None:
        for color, grow in ((shade, 0.012), (skin, 0.0)):
            radius = (width / 2 + grow) * big
            (x0, y0), (x1, y1) = ((p[0] * big, p[1] * big) for p in (start, end))
            draw.line([(x0, y0), (x1, y1)], fill=color, width=round(2 * radius))
            for x, y in ((x0, y0), (x1, y1)):
                draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=color)

    # The data set counts from the index finger; the thumb comes last.
    roots = [(0.41, 0.52), (0.49, 0.50), (0.57, 0.51), (0.64, 0.54)]
    angles, lengths = [-12, -3, 6, 17], [0.30, 0.34, 0.31, 0.25]
    limb((0.53, 0.98), (0.53, 0.70), 0.20)
    for number, (root, angle, length) in enumerate(zip(roots, angles, lengths, strict=True)):
        if number < min(fingers, 4):
            tip = (
                root[0] + length * math.sin(math.radians(angle)),
                root[1] - length * math.cos(math.radians(angle)),
            )
            limb(root, tip, 0.066)
    if fingers == 5:
        limb((0.42, 0.68), (0.25, 0.50), 0.075)
    draw.rounded_rectangle(
        [0.375 * big, 0.48 * big, 0.675 * big, 0.80 * big], 0.08 * big, fill=skin, outline=shade
    )
    for number, root in enumerate(roots):
        if number >= fingers:
            limb((root[0], 0.52), (root[0], 0.60), 0.066)
    if fingers < 5:
        limb((0.40, 0.70), (0.52, 0.64), 0.072)
    blurred = canvas.filter(ImageFilter.GaussianBlur(big / 200))
    return _reaching_in(blurred, wall).resize((side, side), Image.Resampling.BOX)


def _reaching_in(canvas: Image.Image, wall: tuple[int, int, int]) -> Image.Image:
    """Mirror, enlarge, turn and shift a drawing, as a hand that reaches into a photo from below."""
    side, enlarge, turn, shift = canvas.width, 1.2, math.radians(-24), 0.11
    cos, sin = math.cos(turn) / enlarge, math.sin(turn) / enlarge
    center, moved = side / 2, side / 2 + shift * side
    return canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT).transform(
        canvas.size,
        Image.Transform.AFFINE,
        (cos, sin, center - (cos + sin) * moved, -sin, cos, center + (sin - cos) * moved),
        Image.Resampling.BILINEAR,
        fillcolor=wall,
    )


def digit(text: str, size: tuple[int, int] = (28, 28)) -> Image.Image:
    """Text from Pillow's own font, light on black, filling most of `size`."""
    font = ImageFont.load_default(size[1] * 0.9)
    canvas = Image.new("L", size, 0)
    center = size[0] / 2, size[1] / 2
    ImageDraw.Draw(canvas).text(center, text, fill=255, font=font, anchor="mm")
    return canvas


def with_noise(image: Image.Image, sigma: float, seed: int) -> Image.Image:
    """Add Gaussian noise of `sigma` (a fraction of full scale) to a grey image."""
    noise = np.random.default_rng(seed).normal(0, sigma * 255, (image.height, image.width))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
