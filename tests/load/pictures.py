"""What is sent: encoded images, drawn here or read from a folder."""

import random
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
SHAPES_DRAWN = 60


@dataclass(frozen=True)
class Picture:
    """An encoded image; `size` is (width, height) in pixels, turned upright."""

    name: str
    data: bytes
    media_type: str
    size: tuple[int, int]


def read_picture(path: Path, name: str) -> Picture:
    """An image file; raises ValueError for one that Pillow cannot read."""
    data = path.read_bytes()
    try:
        with Image.open(BytesIO(data)) as image:
            media_type = image.get_format_mimetype() or "application/octet-stream"
            return Picture(name, data, media_type, ImageOps.exif_transpose(image).size)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"expected an image, got {path}: {error}") from error


def read_folder(folder: Path) -> list[Picture]:
    """All images in a folder and below it; raises ValueError where there are none."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"expected images ({', '.join(sorted(SUFFIXES))}) in {folder}, got none")
    return [read_picture(path, str(path.relative_to(folder))) for path in paths]


def drawing() -> Picture:
    """A small PNG."""
    return _drawn("drawing", 64, 48, "PNG")


def photo() -> Picture:
    """A JPEG of the size at which photos often come."""
    return _drawn("photo", 500, 375, "JPEG")


def _drawn(name: str, width: int, height: int, image_format: str) -> Picture:
    chance = random.Random(name)
    image = Image.new("RGB", (width, height), (200, 180, 150))
    draw = ImageDraw.Draw(image)
    for _ in range(SHAPES_DRAWN):
        x, y = chance.randrange(width), chance.randrange(height)
        side = chance.randrange(4, max(5, height // 3))
        color = (chance.randrange(256), chance.randrange(256), chance.randrange(256))
        draw.ellipse([x, y, x + side, y + side // 2], fill=color)
    buffer = BytesIO()
    image.save(buffer, image_format)
    return Picture(name, buffer.getvalue(), f"image/{image_format.lower()}", image.size)
