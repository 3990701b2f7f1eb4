import struct
import time

import numpy as np
import pytest
from PIL import Image

from service.errors import BadInput, TooLarge
from service.pixels.avif import Bits, check_pictures
from service.pixels.decode import open_image, unpack
from tests.drawing import encode, gradient, noise, pixels

LARGE = encode(Image.new("RGB", (2000, 1500), "teal"), "AVIF", speed=10)


def opened(data: bytes) -> Image.Image:
    image = open_image(data, max_bytes=20_000_000, max_pixels=4_000_000)
    unpack(image)
    return image


def saying(data: bytes, width: int, height: int) -> bytes:
    """The file with another size in its box `ispe`, which is not that of its picture."""
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), name) + body


def test_picture_larger_than_the_file_says_is_refused_before_it_is_decoded() -> None:
    assert opened(LARGE).size == (2000, 1500)
    with pytest.raises(BadInput, match="it says 64 pixels, its pictures have 3000000"):
        open_image(saying(LARGE, 8, 8), max_bytes=10**7, max_pixels=10**6)


def test_size_is_refused_before_the_picture_is_decoded() -> None:
    with pytest.raises(TooLarge, match="at most 4000000 pixels, got 2100x2000"):
        opened(saying(LARGE, 2100, 2000))


@pytest.mark.parametrize(
    "image",
    [gradient(640, 480), noise(70, 50, 4), gradient().convert("L"), noise(1, 1)],
    ids=["colour", "transparent", "grey", "pixel"],
)
@pytest.mark.parametrize(
    "options", [{}, {"subsampling": "4:4:4", "quality": 100}, {"tile_rows": 2}]
)
def test_ordinary_picture_is_read(image: Image.Image, options: dict[str, object]) -> None:
    assert opened(encode(image, "AVIF", speed=10, **options)).size == image.size


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_animation_is_opened_as_its_first_frame(mode: str) -> None:
    frames = [Image.new(mode, (64, 48), color) for color in ("red", "lime", "blue")]
    data = encode(frames[0], "AVIF", save_all=True, append_images=frames[1:])
    assert data[8:12] == b"avis"
    image = opened(data)
    assert getattr(image, "n_frames") == 1  # noqa: B009  # only some images have it
    assert np.abs(pixels(image).astype(int)[..., :3] - [255, 0, 0]).max() < 4


@pytest.mark.parametrize(
    "boxes",
    [
        box(b"free", b"") * 1_200_000,
        box(b"meta", bytes(4) + box(b"iloc", bytes(10_000_000))),
        box(b"meta", bytes(4) + box(b"iinf", bytes(6) + box(b"infe", b"\2") * 900_000)),
        struct.pack(">I4s", 4, b"free"),
        struct.pack(">I4s", 0, b"free"),
        struct.pack(">I4sQ", 1, b"free", 9),
    ],
    ids=["boxes", "locations", "items", "short", "endless", "long"],
)
def test_hostile_boxes_end_soon(boxes: bytes) -> None:
    started = time.process_time()
    with pytest.raises(BadInput, match="broken"):
        opened(LARGE[: LARGE.index(b"meta") - 4] + boxes)
    assert time.process_time() - started < 5


def test_bits_are_read_from_the_front() -> None:
    bits = Bits(b"\xa5\x0f")
    assert [bits.read(4), bits.flag(), bits.read(3), bits.read(8)] == [10, False, 5, 15]
    with pytest.raises(ValueError, match="early"):
        bits.read(1)


def meta(items: int, places: bytes) -> bytes:
    """An index of pictures, all at the same places of the file."""
    entry = b"\2" + bytes(3) + b"%b\0\0av01\0"
    entries = [box(b"infe", entry % struct.pack(">H", item)) for item in range(items)]
    listed = box(b"iinf", bytes(4) + struct.pack(">H", items) + b"".join(entries))
    located = [struct.pack(">HHH", item, 0, 1) + places for item in range(items)]
    head = bytes(4) + b"\x44\0" + struct.pack(">H", items)
    return box(b"meta", bytes(4) + listed + box(b"iloc", head + b"".join(located)))


ONE = len(meta(1, bytes(8)))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (box(b"free", b"") * 5001, "more than 5000 boxes"),
        (meta(4900, struct.pack(">II", 0, 9)), "index is too long"),
        (meta(9, struct.pack(">II", 0, 0)), "one in another"),
        (meta(1, struct.pack(">II", ONE, 0)) + b"\x12\0" * 1001, "more than 1000 blocks"),
    ],
    ids=["boxes", "index", "overlap", "blocks"],
)
def test_index_that_would_take_long_to_read_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_pictures(data, pixels=10**6)
