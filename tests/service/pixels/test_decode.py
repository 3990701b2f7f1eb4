import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import ExifTags, Image

from service.errors import BadInput, RequestError, TooLarge, UnsupportedImage
from service.pixels.decode import check_image, decode, detach, open_image
from service.pixels.formats import FORMATS
from service.pixels.preprocess import Pixels, to_pixels
from service.pixels.spec import Contain, Cover, FashionMnist, Input, KeepSize, Stretch
from tests.drawing import LOSSLESS, encode, gradient, mean_difference, noise, pixels
from tests.image_files import FILES, STORED, damaged, stored
from tests.server import CHECKOUT

ANY_SIZE_GREY = Input(shape=(None, None, 1), color="grey", resize=KeepSize())
ANY_SIZE_RGB = Input(shape=(None, None, 3), color="rgb", resize=KeepSize())
SMALL_GREY = Input(shape=(28, 28, 1), color="grey", resize=FashionMnist())
SMALL_RGB = Input(shape=(16, 16, 3), color="rgb", resize=Cover())
RESIZED = {
    "cover": SMALL_RGB,
    "contain": Input(shape=(16, 16, 3), color="rgb", resize=Contain(fill=114)),
    "stretch": Input(shape=(16, 16, 3), color="rgb", resize=Stretch()),
    "fashion-mnist": SMALL_GREY,
}


def opened(data: bytes) -> Image.Image:
    return open_image(data, max_bytes=1_000_000, max_pixels=1_000_000)


def decoded(data: bytes, spec: Input = ANY_SIZE_RGB) -> Pixels:
    return to_pixels(decode(opened(data), spec))


def grey(*levels: int, dtype: type[np.unsignedinteger] = np.uint8) -> Image.Image:
    return Image.fromarray(np.array([levels], dtype=dtype))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size, and has no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


@pytest.mark.parametrize("image_format", LOSSLESS)
def test_lossless_format_keeps_every_pixel(image_format: str) -> None:
    image = noise(24, 20)
    data = encode(image, image_format, **LOSSLESS[image_format])
    np.testing.assert_array_equal(decoded(data), pixels(image))


@pytest.mark.parametrize("image_format", [*LOSSLESS, "GIF"])
def test_lossless_format_keeps_every_grey_pixel(image_format: str) -> None:
    image = noise(24, 20, 1)
    data = encode(image, image_format, **LOSSLESS.get(image_format, {}))
    np.testing.assert_array_equal(decoded(data, ANY_SIZE_GREY), pixels(image))


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP", "AVIF"])
def test_lossy_format_stays_close(image_format: str) -> None:
    data = encode(gradient(), image_format, quality=95)
    assert mean_difference(decoded(data), pixels(gradient())) < 4


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF"])
def test_first_frame_stands_for_an_animation(image_format: str) -> None:
    first, second = (Image.new("RGB", (16, 16), color) for color in ("black", "white"))
    data = encode(first, image_format, save_all=True, append_images=[second])
    assert decoded(data).max() == 0


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "GIF", "TIFF"])
def test_one_bit_is_black_or_white(image_format: str) -> None:
    image = grey(0, 255, 255, 0).convert("1")
    assert decoded(encode(image, image_format), ANY_SIZE_GREY).ravel().tolist() == [0, 255, 255, 0]


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
@pytest.mark.parametrize("spec", [ANY_SIZE_GREY, ANY_SIZE_RGB], ids=["grey", "rgb"])
def test_sixteen_bits_are_scaled_to_eight(image_format: str, spec: Input) -> None:
    image = grey(0, 255, 256, 0x7FFF, 0x8000, 0xFFFF, dtype=np.uint16)
    levels = decoded(encode(image, image_format), spec)[0, :, 0].tolist()
    assert levels == [0, 0, 1, 127, 128, 255]


def test_sixteen_bits_in_the_other_byte_order_are_scaled_to_eight() -> None:
    image = Image.frombytes("I;16B", (2, 1), bytes([0x12, 0x34, 0xFF, 0xFF]))
    data = encode(image, "TIFF")
    assert data.startswith(b"MM")
    assert decoded(data, ANY_SIZE_GREY).ravel().tolist() == [0x12, 0xFF]


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "GIF", "TIFF"])
def test_palette_is_looked_up(image_format: str) -> None:
    image = gradient().quantize(16)
    data = encode(image, image_format)
    assert opened(data).mode == "P"
    np.testing.assert_array_equal(decoded(data), pixels(image.convert("RGB")))


@pytest.mark.parametrize("image_format", ["PNG", "GIF"])
def test_transparent_colour_of_a_palette_becomes_white(image_format: str) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 200, 10, 20, 30, 40, 50])
    image.putdata([0, 1, 2])
    data = encode(image, image_format, transparency=1)
    assert decoded(data)[0].tolist() == [[0, 0, 0], [255, 255, 255], [30, 40, 50]]


def test_half_transparent_colour_of_a_palette_is_laid_on_white() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 50, 50, 50, 30, 40, 50])
    image.putdata([0, 1, 2])
    data = encode(image, "PNG", transparency=bytes([0, 128, 255]))
    levels = decoded(data)[0, :, 2].astype(int).tolist()
    assert levels == [255, pytest.approx(152, abs=1), 50]


def test_transparent_colour_of_a_colour_image_becomes_white() -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [9, 9, 9]]], dtype=np.uint8))
    data = encode(image, "PNG", transparency=(1, 2, 3))
    assert decoded(data)[0].tolist() == [[255, 255, 255], [9, 9, 9]]


@pytest.mark.parametrize("spec", [ANY_SIZE_GREY, ANY_SIZE_RGB], ids=["grey", "rgb"])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
def test_transparent_image_is_laid_on_white(image_format: str, mode: str, spec: Input) -> None:
    image = grey(60, 60, 60).convert(mode)
    image.putalpha(grey(0, 128, 255))
    data = encode(image, image_format, **LOSSLESS[image_format])
    levels = decoded(data, spec)[0, :, 0].astype(int).tolist()
    assert levels == [255, pytest.approx(157, abs=1), 60]


@pytest.mark.parametrize(
    "color", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)]
)
@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
def test_cmyk_has_its_colours(image_format: str, color: tuple[int, int, int]) -> None:
    data = encode(Image.new("RGB", (16, 16), color).convert("CMYK"), image_format)
    assert opened(data).mode == "CMYK"
    assert mean_difference(decoded(data), np.full((16, 16, 3), color, dtype=np.uint8)) < 3


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP"])
def test_every_orientation_gives_the_upright_image(image_format: str, orientation: int) -> None:
    data = stored(gradient(), image_format, orientation)
    np.testing.assert_array_equal(decoded(data), pixels(gradient()))


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("image_format", ["JPEG", "MPO", "AVIF"])
def test_every_orientation_of_a_photo_gives_the_upright_image(
    image_format: str, orientation: int
) -> None:
    data = stored(gradient(), image_format, orientation)
    assert mean_difference(decoded(data), pixels(gradient())) < 4


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "I;16"])
def test_every_mode_is_brought_upright(mode: str, orientation: int) -> None:
    levels = np.arange(6, dtype=np.uint16).reshape(2, 3) * 11_000
    image = (
        Image.fromarray(levels)
        if mode == "I;16"
        else Image.fromarray((levels >> 8).astype(np.uint8)).convert(mode)
    )
    upright = decoded(stored(image, "PNG", 1), ANY_SIZE_GREY)
    np.testing.assert_array_equal(
        decoded(stored(image, "PNG", orientation), ANY_SIZE_GREY), upright
    )


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientation_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encode(gradient(), "PNG", exif=exif)
    np.testing.assert_array_equal(decoded(data), pixels(gradient()))


# Pillow warns of what it skips.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x00\0\0\0\x06\0\0\0\0\0\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0\x06\x06\x06\x06\0\0\0\0",
    ],
)
def test_damaged_exif_leaves_a_photo_as_it_is(exif: bytes) -> None:
    plain, damaged = encode(gradient(), "JPEG"), encode(gradient(), "JPEG", exif=exif)
    np.testing.assert_array_equal(decoded(damaged), decoded(plain))


def test_nothing_is_not_an_image() -> None:
    with pytest.raises(BadInput, match=r"expected an image .* got 0 bytes"):
        opened(b"")


@pytest.mark.parametrize(
    "data",
    [
        b"?",
        b"not an image",
        b'{"image": "data:image/png;base64,iVBORw0KGgo="}',
        b"http://localhost/cat.png",
        bytes(1000),
        encode(gradient(), "PPM"),
        encode(gradient(), "ICO"),
        encode(gradient(), "TGA"),
    ],
    ids=["byte", "text", "JSON", "URL", "zeros", "PPM", "ICO", "TGA"],
)
def test_other_types_are_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedImage, match=f"PNG, JPEG.* got {len(data)} bytes of another"):
        opened(data)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC .not read.: convert it to JPEG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC .not read.: convert it to JPEG"),
        (encode(gradient(), "JPEG2000"), "JPEG 2000 .not read."),
        (encode(gradient(), "JPEG2000", no_jp2=True), "JPEG 2000 .not read."),
        (b"\xff\x0a\xfa\x7f\x01", "JPEG XL .not read."),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL .not read."),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG .not read."),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- a cat -->\n<svg/>", "SVG .not read."),
        (encode(gradient(), "PDF"), "PDF .not read."),
    ],
)
def test_common_type_that_is_not_read_is_named(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedImage, match=f"expected an image .PNG, JPEG.*, got {name}"):
        opened(data)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("part", [0.05, 0.25, 0.5, 0.75])
def test_truncated_file_is_refused(name: str, part: float) -> None:
    data = FILES[name]
    cut = data[: max(12, int(len(data) * part))]
    with pytest.raises(BadInput, match=r"expected a whole .*image, got .*broken one"):
        decoded(cut)


@pytest.mark.parametrize(
    "data", [b"\x89PNG", b"\xff\xd8\xff", b"GIF89a", b"BM1234\0\0\0\0", b"II*\0", b"MM\0*"]
)
def test_signature_alone_is_a_broken_image(data: bytes) -> None:
    with pytest.raises(BadInput, match=f"expected a whole image, got {len(data)} bytes"):
        opened(data)


def test_image_of_as_many_bytes_as_allowed_is_read() -> None:
    data = FILES["PNG"]
    assert open_image(data, max_bytes=len(data), max_pixels=1000).size == (24, 20)


def test_image_of_one_byte_more_is_too_large() -> None:
    size = len(FILES["PNG"])
    with pytest.raises(TooLarge, match=f"at most {size - 1} bytes, got {size} bytes"):
        open_image(FILES["PNG"], max_bytes=size - 1, max_pixels=1000)


def test_image_of_as_many_pixels_as_allowed_is_read() -> None:
    assert open_image(FILES["PNG"], max_bytes=10_000, max_pixels=24 * 20).size == (24, 20)


def test_image_of_one_pixel_more_is_too_large() -> None:
    with pytest.raises(TooLarge, match="at most 479 pixels, got 24x20 = 480 pixels"):
        open_image(FILES["PNG"], max_bytes=10_000, max_pixels=479)


def test_claimed_size_is_refused_before_unpacking(monkeypatch: pytest.MonkeyPatch) -> None:
    # The service turns Pillow's own limit off, since its setting may allow more.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(TooLarge, match="got 60000x60000 = 3600000000 pixels"):
        opened(png_header(60_000, 60_000))


@pytest.mark.parametrize("spec", [SMALL_GREY, ANY_SIZE_RGB])
def test_palette_image_without_its_palette_is_a_broken_image(spec: Input) -> None:
    whole = encode(gradient().quantize(16), "PNG")
    at = whole.index(b"PLTE")
    length = int.from_bytes(whole[at - 4 : at], "big")
    without = whole[: at - 4] + whole[at + length + 8 :]
    with pytest.raises(BadInput, match="got one without its palette"):
        decode(open_image(without, 10_000, 10_000), spec)


def test_claimed_size_without_pixels_is_a_broken_image() -> None:
    with pytest.raises(BadInput, match="expected a whole PNG image, got a broken one"):
        decoded(png_header(600, 600))


@pytest.mark.parametrize("data", [b"RIFF\x24\0\0\0WAVEfmt ", b"BMW is a make of cars", b"RIFF"])
def test_other_file_with_a_similar_beginning_is_not_an_image(data: bytes) -> None:
    with pytest.raises(UnsupportedImage, match="of another type"):
        opened(data)


def test_lab_is_refused() -> None:
    data = encode(Image.new("LAB", (30, 20)), "TIFF")
    with pytest.raises(UnsupportedImage, match="got TIFF of 8 bits a channel, CIE Lab"):
        opened(data)


def test_size_above_pillows_own_limit_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(TooLarge, match="expected an image of at most 1000000 pixels"):
        opened(png_header(60_000, 60_000))


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "JPEG"])
def test_damaged_exif_is_ignored(image_format: str) -> None:
    data = encode(Image.new("L", (28, 28), 90), image_format, exif=b"Exif\0\0garbage")
    assert decoded(data, ANY_SIZE_GREY).mean() == pytest.approx(90, abs=1)


def twelve_bit_tiff(level: int) -> bytes:
    """A row of four grey pixels of 12 bits, two in three bytes."""
    pair = bytes([level >> 4, (level & 15) << 4 | level >> 8, level & 255])
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 110), (277, 1), (279, 6)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return (b"II*\0" + struct.pack("<I", 8) + directory).ljust(110, b"\0") + pair * 2


@pytest.mark.parametrize(("level", "expected"), [(0, 0), (0x800, 0x80), (0xFFF, 0xFF)])
def test_twelve_bits_are_scaled_to_eight(level: int, expected: int) -> None:
    assert decoded(twelve_bit_tiff(level), ANY_SIZE_GREY).flatten().tolist() == [expected] * 4


@pytest.mark.parametrize("mode", ["I", "F"])
def test_thirty_two_bits_are_refused(mode: str) -> None:
    data = encode(gradient().convert("L").convert(mode), "TIFF")
    with pytest.raises(UnsupportedImage, match="got TIFF of 32 bits a channel, grey"):
        opened(data)


# Pillow warns of damage that it survives.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_damaged_bytes_give_an_image_or_an_error_of_the_caller(name: str) -> None:
    random = Random(name)
    outcomes = set()
    for _ in range(60):
        data = damaged(FILES[name], random)
        for spec in (SMALL_GREY, SMALL_RGB):
            try:
                decode(opened(data), spec)
                outcomes.add("image")
            except RequestError:
                outcomes.add("error")
    assert "error" in outcomes


def test_formats_are_those_that_the_tests_cover() -> None:
    assert set(FORMATS) <= set(FILES)


BIG = gradient().resize((1600, 1200), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("spec", RESIZED.values(), ids=RESIZED.keys())
def test_big_jpeg_gives_what_it_gives_without_being_scaled_while_it_is_decoded(
    spec: Input, progressive: bool
) -> None:
    data = encode(BIG, "JPEG", progressive=progressive)
    as_png = encode(Image.open(BytesIO(data)), "PNG")
    scaled, whole = (decode(open_image(each, 10**8, 10**8), spec) for each in (data, as_png))
    assert scaled.shape == whole.shape
    assert np.abs(scaled - whole).mean() < 0.01
    assert np.abs(scaled - whole).max() < 0.05


@pytest.mark.parametrize(
    ("size", "decoded"),
    [
        ((1600, 1200), (200, 150)),  # libjpeg scales by no more than 8
        ((256, 260), (32, 33)),
        ((250, 260), (63, 65)),
        ((255, 200), (64, 50)),
        ((64, 300), (32, 150)),
        ((63, 300), (63, 300)),
        ((31, 31), (31, 31)),
    ],
)
@pytest.mark.parametrize("method", ["cover", "contain", "stretch"])
def test_jpeg_is_scaled_while_it_is_decoded_to_no_less_than_twice_the_networks_side(
    size: tuple[int, int], decoded: tuple[int, int], method: str
) -> None:
    image = open_image(encode(gradient().resize(size), "JPEG"), 10**8, 10**8)
    decode(image, RESIZED[method])
    assert image.size == decoded


@pytest.mark.parametrize("orientation", STORED)
def test_big_jpeg_is_upright_although_it_is_scaled(orientation: int) -> None:
    turn = STORED[orientation]
    stored = BIG if turn is None else BIG.transpose(turn)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    upright = decode(open_image(encode(BIG, "JPEG"), 10**8, 10**8), SMALL_RGB)
    came = decode(open_image(encode(stored, "JPEG", exif=exif), 10**8, 10**8), SMALL_RGB)
    assert np.abs(came - upright).max() < 0.05


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak of the memory")
def test_jpeg_of_50_megapixels_takes_at_most_60_mb(tmp_path: Path) -> None:
    gradient().resize((8160, 6120)).save(tmp_path / "big.jpg", quality=90)
    code = """
import sys
from pathlib import Path
from service.pixels.decode import decode, open_image
from service.pixels.spec import Cover, Input

def peak_bytes():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])

spec = Input(shape=(224, 224, 3), color="rgb", resize=Cover())
before = peak_bytes()
data = Path(sys.argv[1]).read_bytes()
decode(open_image(data, 10**8, 10**8), spec)
print(peak_bytes() - before)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "big.jpg")],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(ran.stdout) < 60e6


def test_opened_image_of_too_many_pixels_is_too_large() -> None:
    check_image(gradient(), max_pixels=480)
    with pytest.raises(TooLarge, match="at most 479 pixels, got 24x20 = 480 pixels"):
        check_image(gradient(), max_pixels=479)


@pytest.mark.parametrize("mode", ["LAB", "HSV", "I", "F"])
def test_opened_image_of_another_mode_is_refused(mode: str) -> None:
    with pytest.raises(UnsupportedImage, match=f"1 to 16 bits .* got an image of mode {mode}"):
        check_image(Image.new(mode, (9, 9)), max_pixels=1000)


@pytest.mark.parametrize("image_format", ["JPEG", "MPO"])
def test_callers_jpeg_stays_as_it_was(image_format: str) -> None:
    data = encode(BIG, image_format)
    mine = Image.open(BytesIO(data))
    decode(detach(mine), SMALL_RGB)
    assert mine.size == BIG.size
    np.testing.assert_array_equal(pixels(mine), pixels(Image.open(BytesIO(data))))


@pytest.mark.parametrize("orientation", STORED)
def test_callers_jpeg_is_upright_for_the_network(orientation: int) -> None:
    data = stored(BIG, "JPEG", orientation)
    came = decode(detach(Image.open(BytesIO(data))), SMALL_RGB)
    assert np.abs(came - decode(BIG.copy(), SMALL_RGB)).max() < 0.05


def test_callers_other_images_are_not_copied() -> None:
    for image in (gradient(), Image.open(BytesIO(FILES["PNG"]))):
        assert detach(image) is image


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_several_threads_may_decode_one_image_of_the_caller(image_format: str) -> None:
    data = encode(noise(900, 900, 1), image_format)
    spec = RESIZED["stretch"]
    wanted = decode(detach(Image.open(BytesIO(data))), spec)
    with ThreadPoolExecutor(4) as threads:
        for _ in range(5):
            mine = Image.open(BytesIO(data))
            for came in threads.map(lambda image: decode(detach(image), spec), [mine] * 4):
                np.testing.assert_array_equal(came, wanted)


def test_callers_broken_jpeg_is_refused() -> None:
    image = Image.open(BytesIO(encode(BIG, "JPEG")[:2000]))
    with pytest.raises(BadInput, match="expected a whole JPEG image, got a broken one"):
        detach(image)


def gif_on_a_larger_canvas(gif: bytes) -> bytes:
    """A GIF of 6x4 pixels, put at (3, 2) of 10x8."""
    data = bytearray(gif)
    frame = data.index(struct.pack("<BHHHH", 0x2C, 0, 0, 6, 4))
    data[6:10] = struct.pack("<HH", 10, 8)
    data[frame + 1 : frame + 5] = struct.pack("<HH", 3, 2)
    return bytes(data)


@pytest.mark.parametrize("options", [{}, {"transparency": 1}])
@pytest.mark.parametrize("colors", [4, 256])
def test_canvas_that_a_gif_leaves_uncovered_is_white(
    colors: int, options: dict[str, object]
) -> None:
    whole = encode(noise(6, 4).quantize(colors), "GIF", **options)
    wanted = np.full((8, 10, 3), 255, np.uint8)
    wanted[2:6, 3:9] = decoded(whole)
    np.testing.assert_array_equal(decoded(gif_on_a_larger_canvas(whole)), wanted)


def test_bmp_whose_palette_is_black_and_white_is_read() -> None:
    assert decoded(bmp(8, [0, 255], b"\0\1\1\0"))[0, :, 0].tolist() == [0, 255, 255, 0]
    assert decoded(bmp(4, [0, 255], b"\x01\x10\0\0"))[0, :, 0].tolist() == [0, 255, 255, 0]


def test_bmp_whose_palette_is_the_first_greys_is_read() -> None:
    pixels = b"\x0f\x81\0\0"
    assert decoded(bmp(4, list(range(16)), pixels))[0, :, 0].tolist() == [0, 15, 8, 1]


def bmp(bits: int, palette: list[int], row: bytes, compression: int = 0) -> bytes:
    """A row of four pixels of a grey palette."""
    start = 54 + 4 * len(palette)
    head = struct.pack("<2sIHHI", b"BM", start + len(row), 0, 0, start)
    size = struct.pack("<IiiHHIIiiII", 40, 4, 1, 1, bits, compression, 4, 0, 0, len(palette), 0)
    colors = b"".join(bytes([level, level, level, 0]) for level in palette)
    return head + size + colors + row


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (bmp(8, [0], bytes(4), compression=4), "Unsupported BMP compression"),
        (bmp(32, [1] * 3, bytes(16), compression=3), "Unsupported BMP bitfields"),
        (bmp(64, [0] * 4, bytes(64)), "Unsupported BMP pixel depth"),
    ],
)
def test_bmp_of_a_kind_that_is_not_read_is_named(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedImage, match=f"got BMP .not read: {name}"):
        opened(data)
