"""What is read comes out as another reader has it; what is not is refused by its name."""

import itertools
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple

import numpy as np
import pytest
import tifffile
from PIL import Image

from service.errors import BadInput, UnsupportedImage
from service.pixels.decode import decode, open_image
from service.pixels.preprocess import to_pixels
from service.pixels.spec import Input, KeepSize
from tests import png_files
from tests.drawing import encode, gradient, noise
from tests.other_reader import Levels, on_white, read_by_vips, without_ink
from tests.tiff_files import (
    CMYK,
    GREY,
    GREY_ON_WHITE,
    ICCLAB,
    LAB,
    PALETTE,
    RGB,
    YCBCR,
    Layout,
    Samples,
    tiff,
)

COLOR = Input(shape=(None, None, 3), color="rgb", resize=KeepSize())
CHANNELS = {GREY_ON_WHITE: 1, GREY: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, LAB: 3, ICCLAB: 3}
NAMES = {
    GREY_ON_WHITE: "grey with white as zero",
    GREY: "grey",
    RGB: "RGB",
    PALETTE: "palette",
    CMYK: "CMYK",
    YCBCR: "YCbCr",
    LAB: "CIE Lab",
    ICCLAB: "ICC Lab",
}
EXTRAS = ((), (0,), (1,), (2,), (2, 0))


def decoded(data: bytes) -> Levels:
    image = open_image(data, max_bytes=10**7, max_pixels=10**6)
    return to_pixels(decode(image, COLOR)).astype(np.float64)


def off(data: bytes, wanted: Levels) -> float:
    """The largest difference in levels."""
    return float(np.abs(decoded(data) - wanted).max())


class Kind(NamedTuple):
    photometric: int
    bits: int
    extra: tuple[int, ...]


KINDS = [
    *(
        Kind(photometric, bits, ())
        for photometric in (GREY_ON_WHITE, GREY)
        for bits in (1, 2, 4, 12)
    ),
    *(Kind(PALETTE, bits, ()) for bits in (1, 2, 4)),
    *(
        Kind(photometric, bits, extra)
        for photometric, bits, extra in itertools.product(list(NAMES)[:6], (8, 16), EXTRAS)
        if (photometric, bits) != (PALETTE, 16)
    ),
]
UNREAD = [
    *(Kind(GREY, bits, ()) for bits in (6, 10, 14, 24, 32)),
    *(Kind(RGB, bits, ()) for bits in (4, 10, 12, 24, 32)),
    *(Kind(CMYK, bits, ()) for bits in (1, 12, 32)),
    Kind(PALETTE, 16, ()),
    *(Kind(photometric, bits, ()) for photometric in (LAB, ICCLAB) for bits in (8, 16)),
]


def layouts(kind: Kind) -> Iterator[Layout]:
    """Every way to store it: 60, less where planes or predictors make no difference."""
    several = CHANNELS[kind.photometric] + len(kind.extra) > 1
    flags = itertools.product((False, True), repeat=5)
    for order, (planar, tiled, deflate, predictor, turned) in itertools.product("<>", flags):
        if (several or not planar) and (not predictor or (deflate and kind.bits in (8, 16))):
            yield Layout(kind.bits, order, planar, tiled, deflate, predictor, turned)
    for order, deflate in itertools.product("<>", (False, True)):
        yield Layout(kind.bits, order, deflate=deflate, big=True)


def drawn(kind: Kind) -> Samples:
    """Random samples; a premultiplied colour is not above its alpha."""
    channels = CHANNELS[kind.photometric]
    shape = (20, 24, channels + len(kind.extra))
    random = np.random.default_rng(kind.bits)
    samples = random.integers(0, 1 << kind.bits, shape).astype(np.uint32)
    if kind.extra == (1,):
        samples[..., :channels] = np.minimum(samples[..., :channels], samples[..., channels:])
    return samples


def colormap(bits: int) -> Samples:
    return np.random.default_rng(1).integers(0, 1 << 16, (3, 1 << bits)).astype(np.uint32)


def meant(kind: Kind, samples: Samples) -> Levels:
    """What the samples mean, by the TIFF 6.0 specification, laid on white."""
    channels = CHANNELS[kind.photometric]
    full = (1 << kind.bits) - 1
    colors = samples[..., :channels] / full
    if kind.photometric == GREY_ON_WHITE:
        colors = 1 - colors
    elif kind.photometric == PALETTE:
        colors = (colormap(kind.bits)[:, samples[..., 0]].transpose(1, 2, 0) >> 8) / 255
    elif kind.photometric == CMYK:
        colors = without_ink(colors)
    elif kind.photometric == YCBCR:
        light, blue, red = np.moveaxis(255 * colors - [0, 128, 128], 2, 0)
        green = light - 0.344136 * blue - 0.714136 * red
        colors = np.stack([light + 1.402 * red, green, light + 1.772 * blue], 2).clip(0, 255) / 255
    if kind.extra[:1] in ((1,), (2,)):
        alpha = samples[..., channels : channels + 1] / full
        return 255 * (colors + 1 - alpha) if kind.extra == (1,) else on_white(colors, alpha)
    return on_white(colors, None)


def ordinary(kind: Kind, layout: Layout) -> bool:
    """Whether it is among what the documents promise to read."""
    if layout.reversed_bits or layout.planar or (layout.big and layout.order == ">"):
        return False
    if kind.extra not in ((), (2,)) or (kind.extra and kind.photometric not in (GREY, RGB)):
        return False
    if (kind.photometric, kind.bits) in ((GREY_ON_WHITE, 16), (GREY, 12)):
        return layout.order == "<" and not kind.extra
    return kind.bits in {
        GREY_ON_WHITE: (1, 2, 4, 8),
        GREY: (8,) if kind.extra else (1, 2, 4, 8, 16),
        RGB: (8, 16),
        PALETTE: (1, 2, 4, 8),
        CMYK: (8, 16),
        YCBCR: (8,),
    }.get(kind.photometric, ())


def written(kind: Kind, layout: Layout, sample_format: int = 1) -> bytes:
    return tiff(
        drawn(kind),
        kind.photometric,
        layout,
        extra=kind.extra,
        sample_format=sample_format,
        colormap=colormap(kind.bits) if kind.photometric == PALETTE else None,
    )


def read_by_libvips(kind: Kind, layout: Layout) -> bool:
    """Whether libvips reads it right: the first extra channel is alpha to it, for one."""
    whole = not (layout.planar and layout.tiled) and not layout.reversed_bits
    return (
        whole and kind.extra in ((), (1,), (2,)) and kind.bits != 12 and kind.photometric != YCBCR
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind)))
def test_tiff_is_read_right_or_refused_by_name(kind: Kind) -> None:
    wanted = np.broadcast_to(meant(kind, drawn(kind)), (20, 24, 3))
    for layout in layouts(kind):
        data = written(kind, layout)
        try:
            came = decoded(data)
        except UnsupportedImage as error:
            assert_named(error, kind, layout)
            assert not ordinary(kind, layout), layout
            continue
        assert np.abs(came - wanted).max() < 3, layout
        if read_by_libvips(kind, layout):
            assert np.abs(came - read_by_vips(data)).max() < 3, layout


def assert_named(error: UnsupportedImage, kind: Kind, layout: Layout) -> None:
    name = f"got TIFF of {kind.bits} bits a channel, {NAMES[kind.photometric]}"
    big = layout.big and "got TIFF with offsets of 64 bits in big-endian order" in str(error)
    assert big or (name in str(error) and "(not read" in str(error)), str(error)


@pytest.mark.parametrize("kind", UNREAD, ids=lambda kind: "-".join(map(str, kind)))
def test_tiff_of_another_kind_is_refused_by_name(kind: Kind) -> None:
    for layout in (
        Layout(kind.bits),
        Layout(kind.bits, ">", deflate=True),
        Layout(kind.bits, big=True),
    ):
        with pytest.raises(UnsupportedImage) as caught:
            decoded(written(kind, layout))
        assert_named(caught.value, kind, layout)


@pytest.mark.parametrize(("sample_format", "name"), [(2, "signed"), (3, "floating point")])
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_tiff_of_other_numbers_is_refused_by_name(bits: int, sample_format: int, name: str) -> None:
    data = written(Kind(GREY, bits, ()), Layout(bits), sample_format)
    with pytest.raises(UnsupportedImage, match=rf"TIFF of {bits} bits a channel, grey, {name}"):
        decoded(data)


@pytest.mark.parametrize("kind", [Kind(RGB, 16, ()), Kind(GREY, 8, (2,))])
def test_tiff_of_the_tests_is_what_tifffile_reads(kind: Kind) -> None:
    for layout in layouts(kind):
        if not layout.reversed_bits:
            came = tifffile.imread(BytesIO(written(kind, layout)))
            came = np.moveaxis(came, 0, -1) if layout.planar else came
            np.testing.assert_array_equal(came, drawn(kind))


PNGS = [
    (color, bits, clear, interlaced)
    for color, depths in png_files.DEPTHS.items()
    for bits in depths
    for clear in ((False, True) if color in (0, 2, 3) else (False,))
    for interlaced in (False, True)
    if (color, bits, clear) != (png_files.RGB, 16, True)
]


@pytest.mark.parametrize(("color", "bits", "clear", "interlaced"), PNGS)
def test_png_is_what_libvips_reads(color: int, bits: int, clear: bool, interlaced: bool) -> None:
    data = png_of(color, bits, clear, interlaced)
    assert off(data, read_by_vips(data)) < 3


def png_of(color: int, bits: int, clear: bool, interlaced: bool = False) -> bytes:
    """Random samples; what is transparent is there several times, and its neighbours are, too."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    random = np.random.default_rng(bits)
    samples = random.integers(0, 1 << bits, (11, 13, channels)).astype(np.uint32)
    samples[3:5] = samples[0, 0]
    samples[5] = samples[0, 0] ^ 1
    before = b""
    if color == png_files.PALETTE:
        before = png_files.chunk(b"PLTE", random.bytes(3 << bits))
    if clear and color == png_files.PALETTE:
        before += png_files.chunk(b"tRNS", random.bytes(1 << bits))
    elif clear:
        before += png_files.chunk(b"tRNS", samples[0, 0].astype(">u2").tobytes())
    return png_files.png(samples, color, bits, interlaced=interlaced, before=before)


def test_deep_png_with_a_transparent_colour_is_refused_by_name() -> None:
    data = png_of(png_files.RGB, 16, clear=True)
    with pytest.raises(UnsupportedImage, match="got PNG of 16 bits a channel with a transparent"):
        decoded(data)


def test_transparent_value_of_a_png_with_bits_that_do_not_count_is_read() -> None:
    samples = np.arange(4, dtype=np.uint32).reshape(1, 4, 1)
    clear = png_files.chunk(b"tRNS", b"\xff\xfe")
    data = png_files.png(samples, png_files.GREY, 2, before=clear)
    assert decoded(data)[0, :, 0].tolist() == [0, 85, 255, 255]


def faded() -> Image.Image:
    image = gradient(90, 70)
    image.putalpha(image.getchannel("G"))
    return image


LOSSY = {
    "grey JPEG": encode(gradient(90, 70).convert("L"), "JPEG"),
    "JPEG": encode(gradient(90, 70), "JPEG"),
    "JPEG 4:4:4": encode(gradient(90, 70), "JPEG", subsampling=0),
    "progressive JPEG": encode(gradient(90, 70), "JPEG", progressive=True),
    "RGB JPEG": encode(gradient(90, 70), "JPEG", keep_rgb=True),
    "CMYK JPEG": encode(gradient(90, 70).convert("CMYK"), "JPEG"),
    "WEBP": encode(gradient(90, 70), "WEBP"),
    "transparent WEBP": encode(noise(90, 70, 4), "WEBP"),
    "lossless WEBP": encode(noise(90, 70, 4), "WEBP", lossless=True),
    "AVIF": encode(gradient(90, 70), "AVIF"),
    "transparent AVIF": encode(faded(), "AVIF"),
    "grey AVIF": encode(gradient(90, 70).convert("L"), "AVIF"),
    "TIFF of JPEG": encode(gradient(90, 70), "TIFF", compression="jpeg"),
    "TIFF of grey JPEG": encode(gradient(90, 70).convert("L"), "TIFF", compression="jpeg"),
    "TIFF of YCbCr JPEG": encode(gradient(90, 70).convert("YCbCr"), "TIFF", compression="jpeg"),
    "TIFF of CMYK JPEG": encode(gradient(90, 70).convert("CMYK"), "TIFF", compression="jpeg"),
    "TIFF of a fax": encode(gradient(90, 70).convert("1"), "TIFF", compression="group4"),
    "TIFF of packed bits": encode(noise(90, 70), "TIFF", compression="packbits"),
    "TIFF of LZW": encode(noise(90, 70), "TIFF", compression="tiff_lzw"),
    "GIF": encode(gradient(90, 70), "GIF"),
    "interlaced GIF": encode(noise(90, 70, 1), "GIF", interlace=1),
    "transparent GIF": encode(gradient(90, 70).quantize(9), "GIF", transparency=3),
}


@pytest.mark.parametrize("name", LOSSY)
def test_file_is_what_libvips_reads(name: str) -> None:
    came, other = decoded(LOSSY[name]), read_by_vips(LOSSY[name])
    # Two decoders of a lossy format may round, and spread colours over pixels, in their own ways.
    assert np.abs(came - other).mean() < 1
    assert np.abs(came - other).max() < 12


def test_tiff_of_another_compression_is_refused_by_its_number() -> None:
    data = bytearray(written(Kind(GREY, 8, ()), Layout()))
    at = data.index(struct.pack("<HHIH", 259, 3, 1, 1)) + 8
    data[at : at + 2] = struct.pack("<H", 34712)
    with pytest.raises(UnsupportedImage, match=r"compression 34712 .not read"):
        decoded(bytes(data))


def test_tiff_without_a_size_is_broken_and_not_of_another_kind() -> None:
    data = bytearray(written(Kind(GREY, 8, ()), Layout()))
    at = data.index(struct.pack("<HHI", 256, 4, 1))
    data[at : at + 2] = struct.pack("<H", 254)  # another tag
    with pytest.raises(BadInput, match="a broken one: Missing dimensions"):
        decoded(bytes(data))
