from io import BytesIO
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from service.pixels.preprocess import Floats, Pixels, preprocess, scale, to_pixels
from service.pixels.spec import Contain, Cover, FashionMnist, Input, KeepSize, Scale, Stretch
from tests.drawing import boot, dress, encode, gradient, mean_difference, noise, pixels

FASHION = Input(shape=(28, 28, 1), color="grey", resize=FashionMnist())
COLORS = {"red": 0.299, "lime": 0.587, "blue": 0.114, "white": 1.0, "black": 0.0}
GARMENTS = {"dress": dress(), "boot": boot()}


class Shot(NamedTuple):
    """How many times larger than the data set's form, on what canvas, and where."""

    times: int
    canvas: tuple[int, int]
    at: tuple[int, int]


SHOTS = [
    Shot(20, (900, 1100), (250, 30)),
    Shot(13, (400, 1000), (36, 500)),
    Shot(7, (300, 200), (3, 3)),
]


def prepared(image: Image.Image, spec: Input = FASHION) -> Pixels:
    return to_pixels(preprocess(image, spec))


def photo(
    garment: Image.Image, shot: Shot, resample: Image.Resampling = Image.Resampling.NEAREST
) -> Image.Image:
    """A product photo of a garment of the data set: dark on white, large, off the centre."""
    large = ImageOps.invert(garment).resize((28 * shot.times, 28 * shot.times), resample)
    canvas = Image.new("RGB", shot.canvas, "white")
    canvas.paste(large.convert("RGB"), shot.at)
    return canvas


def cover(height: int, width: int) -> Input:
    return Input(shape=(height, width, 3), color="rgb", resize=Cover())


def stripes(*colors: str, across: bool) -> Image.Image:
    """Stripes of 20 by 20 pixels, side by side or on top of each other."""
    squares = [pixels(Image.new("RGB", (20, 20), color)) for color in colors]
    return Image.fromarray(np.concatenate(squares, axis=1 if across else 0))


@pytest.mark.parametrize("garment", GARMENTS)
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_form_of_the_data_set_reaches_the_network_untouched(garment: str, mode: str) -> None:
    image = GARMENTS[garment]
    np.testing.assert_array_equal(prepared(image.convert(mode)), pixels(image))


def test_sixteen_bit_form_of_the_data_set_reaches_the_network_untouched() -> None:
    image = Image.fromarray(pixels(dress())[..., 0].astype(np.uint16) * 257)
    np.testing.assert_array_equal(prepared(image), pixels(dress()))


def test_network_gets_the_data_set_between_0_and_1() -> None:
    values = preprocess(dress(), FASHION)
    assert values.shape == (28, 28, 1)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, pixels(dress()) / 255, atol=1e-6)


@pytest.mark.parametrize("garment", GARMENTS)
@pytest.mark.parametrize("shot", SHOTS)
def test_product_photo_comes_back_as_the_data_set_has_it(garment: str, shot: Shot) -> None:
    image = photo(GARMENTS[garment], shot)
    np.testing.assert_array_equal(prepared(image), pixels(GARMENTS[garment]))


# Measured: at most 0.07 and 5.2 levels; the garment upside down is at least 34 levels away.
@pytest.mark.parametrize(("quality", "bound"), [(90, 1), (75, 8)])
@pytest.mark.parametrize("garment", GARMENTS)
@pytest.mark.parametrize("shot", SHOTS)
def test_product_photo_in_jpeg_comes_back_nearly_as_the_data_set_has_it(
    garment: str, shot: Shot, quality: int, bound: float
) -> None:
    data = encode(photo(GARMENTS[garment], shot), "JPEG", quality=quality)
    came = prepared(Image.open(BytesIO(data)))
    assert mean_difference(came, pixels(GARMENTS[garment])) < bound


# Measured: at most 8.8 levels, for the edges are soft.
@pytest.mark.parametrize("garment", GARMENTS)
@pytest.mark.parametrize("shot", SHOTS)
def test_soft_product_photo_comes_back_nearly_as_the_data_set_has_it(
    garment: str, shot: Shot
) -> None:
    image = photo(GARMENTS[garment], shot, Image.Resampling.BICUBIC)
    assert mean_difference(prepared(image), pixels(GARMENTS[garment])) < 12


@pytest.mark.parametrize("garment", GARMENTS)
def test_product_photo_cut_out_on_transparent_comes_back(garment: str) -> None:
    image = photo(GARMENTS[garment], SHOTS[0])
    outline = photo(GARMENTS[garment].point(lambda level: 255 * (level > 0)), SHOTS[0])
    image.putalpha(ImageOps.invert(outline.convert("L")))
    np.testing.assert_array_equal(prepared(image), pixels(GARMENTS[garment]))


@pytest.mark.parametrize("garment", GARMENTS)
def test_photo_on_a_dark_background_is_not_negated(garment: str) -> None:
    image = ImageOps.invert(photo(GARMENTS[garment], SHOTS[0]))
    np.testing.assert_array_equal(prepared(image), pixels(GARMENTS[garment]))


def test_small_image_on_a_light_background_is_taken_as_a_photo() -> None:
    np.testing.assert_array_equal(prepared(ImageOps.invert(dress())), pixels(dress()))


def test_margin_within_the_tolerance_is_trimmed() -> None:
    image = Image.new("L", (100, 100), 255)
    draw = ImageDraw.Draw(image)
    draw.rectangle([20, 20, 79, 79], fill=250)
    draw.rectangle([36, 36, 63, 63], fill=100)
    assert prepared(image).min() == 255 - 100


def test_margin_beyond_the_tolerance_is_kept() -> None:
    image = Image.new("L", (100, 100), 255)
    draw = ImageDraw.Draw(image)
    draw.rectangle([22, 22, 77, 77], fill=230)
    draw.rectangle([36, 36, 63, 63], fill=100)
    came = prepared(image)[..., 0]
    assert (came[0, 0], came[7, 7], came[20, 20], came[21, 21]) == (25, 155, 155, 25)


def test_photo_of_less_contrast_than_the_tolerance_is_kept_whole() -> None:
    image = Image.new("L", (100, 100), 255)
    ImageDraw.Draw(image).rectangle([25, 25, 74, 74], fill=250)
    came = prepared(image)[..., 0]
    assert (came[0, 0], came[14, 14], came[27, 27]) == (0, 5, 0)


def test_fine_detail_is_averaged() -> None:
    image = Image.new("L", (100, 100), 0)
    image.paste(
        Image.fromarray(np.indices((56, 56)).sum(axis=0).astype(np.uint8) % 2 * 200), (9, 9)
    )
    assert set(prepared(image).ravel().tolist()) == {100}


def test_garment_is_centred_and_fills_its_longest_side() -> None:
    image = Image.new("L", (300, 200), 255)
    ImageDraw.Draw(image).rectangle([10, 10, 149, 79], fill=0)
    came = prepared(image)[..., 0]
    filled = np.zeros((28, 28), dtype=np.uint8)
    filled[7:21] = 255
    np.testing.assert_array_equal(came, filled)


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (2, 5000), (1, 1), (1, 28), (27, 29)])
@pytest.mark.parametrize("level", [0, 127, 128, 255])
def test_image_of_one_colour_stays_one_colour(size: tuple[int, int], level: int) -> None:
    expected = level if level < 128 else 255 - level
    came = prepared(Image.new("L", size, level))
    assert came.shape == (28, 28, 1)
    assert set(came.ravel().tolist()) == {expected}


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1)])
def test_line_of_extreme_proportions_becomes_a_line(size: tuple[int, int]) -> None:
    image = Image.new("L", size, 255)
    image.paste(0, (size[0] // 5, size[1] // 5, size[0] * 4 // 5 or 1, size[1] * 4 // 5 or 1))
    came = prepared(image)[..., 0]
    line = came[:, 13] if size[0] == 1 else came[13]
    assert line.tolist() == [255] * 28
    assert int(came.sum()) == 28 * 255


@pytest.mark.parametrize("across", [True, False])
def test_cover_cuts_out_the_centre(across: bool) -> None:
    came = prepared(stripes("red", "lime", "blue", across=across), cover(20, 20))
    assert came.reshape(-1, 3).tolist() == [[0, 255, 0]] * 400


@pytest.mark.parametrize("size", [(40, 40), (7, 7), (1, 5000), (5000, 1), (640, 480)])
def test_cover_gives_the_size_of_the_network(size: tuple[int, int]) -> None:
    assert prepared(Image.new("RGB", size, "teal"), cover(16, 24)).shape == (16, 24, 3)


def test_cover_leaves_an_image_of_the_right_size_untouched() -> None:
    np.testing.assert_array_equal(prepared(noise(24, 16), cover(16, 24)), pixels(noise(24, 16)))


def contain(height: int, width: int, fill: int = 0) -> Input:
    return Input(shape=(height, width, 3), color="rgb", resize=Contain(fill=fill))


@pytest.mark.parametrize(
    ("size", "fitted", "corner"),
    [
        ((80, 40), (32, 16), (0, 0)),
        ((40, 80), (8, 16), (12, 0)),
        ((90, 15), (32, 5), (0, 5)),  # 11 rows are left: 5 above, 6 below
        ((8, 8), (16, 16), (8, 0)),  # enlarged
        ((5000, 1), (32, 1), (0, 7)),
        ((1, 5000), (1, 16), (15, 0)),
    ],
)
def test_contain_pads_the_whole_image_to_the_size_of_the_network(
    size: tuple[int, int], fitted: tuple[int, int], corner: tuple[int, int]
) -> None:
    image = gradient(*size)
    expected = np.full((16, 32, 3), 114, np.uint8)
    (left, top), (width, height) = corner, fitted
    inside = image.resize(fitted, Image.Resampling.BILINEAR)
    expected[top : top + height, left : left + width] = pixels(inside)
    np.testing.assert_array_equal(prepared(image, contain(16, 32, fill=114)), expected)


def test_contain_pads_grey_with_black_by_default() -> None:
    spec = Input(shape=(8, 8, 1), color="grey", resize=Contain())
    came = prepared(Image.new("RGB", (40, 20), "white"), spec)[..., 0]
    assert came[:, 0].tolist() == [0, 0, 255, 255, 255, 255, 0, 0]


@pytest.mark.parametrize("size", [(80, 40), (7, 50), (32, 16), (1, 5000)])
def test_stretch_resizes_each_side_by_itself(size: tuple[int, int]) -> None:
    image = gradient(*size)
    spec = Input(shape=(16, 32, 3), color="rgb", resize=Stretch())
    by_hand = image.resize((32, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(prepared(image, spec), pixels(by_hand))


def test_bgr_is_rgb_backwards() -> None:
    spec = Input(shape=(None, None, 3), color="bgr", resize=KeepSize())
    image = gradient(33, 17)
    np.testing.assert_array_equal(prepared(image, spec), pixels(image)[..., ::-1])


def test_bgr_of_a_grey_image_has_three_channels() -> None:
    spec = Input(shape=(20, 24, 3), color="bgr", resize=Cover())
    grey = gradient().convert("L")
    np.testing.assert_array_equal(prepared(grey, spec), pixels(grey).repeat(3, axis=2))


def test_preprocessing_of_kerass_vgg16_can_be_written_as_data() -> None:
    # keras.applications.vgg16.preprocess_input: BGR, each channel's ImageNet mean subtracted.
    scale = Scale(divisor=1.0, mean=(103.939, 116.779, 123.68))
    spec = Input(shape=(20, 24, 3), color="bgr", resize=Stretch(), scale=scale)
    by_hand = pixels(gradient())[..., ::-1].astype(np.float32) - [103.939, 116.779, 123.68]
    np.testing.assert_allclose(preprocess(gradient(), spec), by_hand, atol=1e-4)


def test_preprocessing_of_pytorchs_imagenet_networks_can_be_written_as_data() -> None:
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    spec = Input(
        shape=(20, 24, 3),
        color="rgb",
        resize=Cover(),
        scale=Scale(mean=mean, deviation=deviation),
    )
    by_hand = (pixels(gradient()).astype(np.float32) / 255 - mean) / deviation
    np.testing.assert_allclose(preprocess(gradient(), spec), by_hand, atol=1e-5)


@pytest.mark.parametrize(("color", "channels"), [("grey", 1), ("rgb", 3), ("bgr", 3)])
def test_kept_size_is_that_of_the_image(color: str, channels: int) -> None:
    spec = Input.model_validate(
        {"shape": (None, None, channels), "color": color, "resize": {"method": "keep"}}
    )
    assert preprocess(gradient(33, 17), spec).shape == (17, 33, channels)


def test_kept_size_keeps_the_pixels() -> None:
    spec = Input(shape=(None, None, 3), color="rgb", resize=KeepSize())
    np.testing.assert_array_equal(prepared(gradient(33, 17), spec), pixels(gradient(33, 17)))


def test_grey_is_the_weighted_mean_of_the_colours() -> None:
    spec = Input(shape=(None, None, 1), color="grey", resize=KeepSize())
    levels = [int(prepared(Image.new("RGB", (1, 1), name), spec)[0, 0, 0]) for name in COLORS]
    assert levels == [round(255 * weight) for weight in COLORS.values()]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (Scale(), [0.0, 0.2, 1.0]),
        (Scale(divisor=1.0), [0.0, 51.0, 255.0]),
        (Scale(divisor=127.5, mean=1.0), [-1.0, -0.6, 1.0]),
        (Scale(mean=0.5, deviation=0.25), [-2.0, -1.2, 2.0]),
        (Scale(deviation=2.0), [0.0, 0.1, 0.5]),
    ],
)
def test_scale_divides_then_takes_the_mean_off_then_divides_by_the_deviation(
    spec: Scale, expected: list[float]
) -> None:
    scaled = scale(np.array([0, 51, 255], dtype=np.uint8), spec)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, expected, atol=1e-6)


def test_every_level_survives_scaling_and_back() -> None:
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_pixels(scale(levels, Scale())), levels)


@pytest.mark.parametrize(
    ("value", "level"), [(-1.0, 0), (0.0, 0), (0.5, 128), (0.998, 254), (1.0, 255), (7.0, 255)]
)
def test_pixels_are_rounded_and_clipped(value: float, level: int) -> None:
    values: Floats = np.array([value], dtype=np.float32)
    assert to_pixels(values).tolist() == [level]


def test_image_is_left_as_it_was() -> None:
    image = noise(40, 50, 4)
    before = image.copy()
    preprocess(image, FASHION)
    assert image == before
