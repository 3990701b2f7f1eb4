import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from service.errors import BadInput
from service.pixels.decode import decode, open_image
from service.pixels.preprocess import Pixels, to_pixels
from service.pixels.spec import Input, KeepSize
from tests.drawing import encode, gradient, noise, pixels
from tests.icc_profiles import SWAPPED
from tests.png_files import RGB, chunk, png

COLOR = Input(shape=(None, None, 3), color="rgb", resize=KeepSize())
IMAGE = noise(24, 20)
PROFILE = b"a\0\0" + zlib.compress(SWAPPED)


def decoded(data: bytes) -> Pixels:
    return to_pixels(decode(open_image(data, max_bytes=10**7, max_pixels=10**6), COLOR))


def png_with(before: bytes = b"", after: bytes = b"") -> bytes:
    return png(pixels(IMAGE).astype(np.uint32), RGB, 8, before=before, after=after)


@pytest.mark.parametrize(
    "damage",
    [
        chunk(b"iCCP", PROFILE, damaged=True),
        chunk(b"iCCP", b"a\0\7" + PROFILE[3:]),
        chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2_000_000))),
        chunk(b"iCCP", b"a\0\0?"),
        chunk(b"iCCP"),
        chunk(b"gAMA", b"\0"),
        chunk(b"cHRM", b"\0"),
        chunk(b"sRGB"),
        chunk(b"pHYs", b"\0"),
        chunk(b"tRNS", b"\0"),
        chunk(b"tRNS", pixels(IMAGE)[0, 0].astype(">u2").tobytes(), damaged=True),
        chunk(b"tEXt", b"comment\0\xff", damaged=True),
        chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(2_000_000))),
        chunk(b"zTXt", b"comment\0\7?"),
        chunk(b"iTXt", b"comment\0\1\0"),
        chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
        chunk(b"acTL", b"\0"),
        chunk(b"vpAg", b"?", damaged=True),
    ],
)
@pytest.mark.parametrize("place", ["before", "after"])
def test_damage_beside_the_pixels_of_a_png_is_ignored(damage: bytes, place: str) -> None:
    data = png_with(**{place: damage})
    np.testing.assert_array_equal(decoded(data), pixels(IMAGE))


def test_what_is_whole_beside_damage_still_counts() -> None:
    clear = chunk(b"tRNS", pixels(IMAGE)[0, 0].astype(">u2").tobytes())
    profile = chunk(b"iCCP", PROFILE)
    damaged = png_with(profile + clear + chunk(b"pHYs", bytes(9), damaged=True))
    np.testing.assert_array_equal(decoded(damaged), decoded(png_with(profile + clear)))
    assert decoded(damaged)[0, 0].tolist() == [255] * 3


def test_damaged_header_of_a_png_is_refused() -> None:
    data = bytearray(png_with())
    data[8 + 8 + 13] ^= 1  # the header's checksum
    with pytest.raises(BadInput, match=r"expected a whole image.*broken one: broken PNG file"):
        decoded(bytes(data))


def test_missing_pixels_are_missed_beside_damage_too() -> None:
    data = png_with(chunk(b"gAMA", b"\0"))
    with pytest.raises(BadInput, match="broken"):
        decoded(data[: len(data) * 3 // 4])
    whole = png_with(after=chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(2_000_000))))
    start = whole.index(b"IDAT") - 4
    length = int.from_bytes(whole[start : start + 4], "big")
    cut = whole[:start] + chunk(b"IDAT", whole[start + 8 : start + 8 + length // 2])
    with pytest.raises(BadInput, match="broken"):
        decoded(cut + whole[start + 12 + length :])


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(body)) + body


@pytest.mark.parametrize(
    "damage",
    [
        segment(0xE0, b"JFIF\0"),
        segment(0xE0, b"JFIF\0\1"),
        segment(0xE0, b"JFIF\0\xff\xff\xff\0\0\0\0\xff\xff"),
        segment(0xE0, b"JFIF\0\1\1\1\0\x48"),
        segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"ICC_PROFILE\0\1\1?"),
        segment(0xE2, b"MPF\0II*\0\xff\xff\xff\xff"),
        segment(0xED, b"Photoshop 3.0\x008BIM\4\4"),
        segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\1?"),
        segment(0xEE, b"Adobe"),
        segment(0xFE, b""),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # as the server does
def test_damage_beside_the_pixels_of_a_jpeg_is_ignored(damage: bytes) -> None:
    whole = encode(gradient(), "JPEG", quality=95)
    start = whole.index(b"\xff\xdb")  # after JFIF's own segment
    data = whole[:2] + damage + whole[start:]
    np.testing.assert_array_equal(decoded(data), decoded(whole))


@pytest.mark.parametrize(
    "data",
    [
        png_with(chunk(b"vpAg") * 50_001),
        png_with(after=chunk(b"vpAg") * 50_001),
        b"\xff\xd8" + segment(0xFE, b"") * 50_001 + encode(IMAGE, "JPEG")[2:],
        b"\xff\xd8" + b"\xff" * 50_001 + encode(IMAGE, "JPEG")[2:],
        b"\xff\xd8\xff\xfe\0\2" + bytes(50_001) + encode(IMAGE, "JPEG")[2:],
    ],
    ids=["chunks before", "chunks after", "segments", "padding", "junk"],
)
def test_file_of_very_many_parts_is_refused_before_pillow_reads_them(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("Pillow was asked"))
    with pytest.raises(BadInput, match=r"expected a .* of at most 50000 .*, got more"):
        decoded(data)
