from collections.abc import Mapping
from copy import deepcopy
from io import BytesIO
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.artifacts.manifest import parse_manifest
from service.errors import BadInput, RequestError, TooLarge
from service.pixels.decode import open_image
from service.pixels.preprocess import Floats
from service.settings import Settings
from service.tasks import TASKS
from service.tasks.denoising import (
    PNG,
    Denoising,
    ExpectedImage,
    Picture,
    check_size,
    split,
    to_png,
)
from service.tasks.task import Options, Run
from tests.drawing import encode, gradient, noise, pixels
from tests.image_files import FILES, STORED, damaged, stored
from tests.service.artifacts.test_manifest import DENOISER

SETTINGS = Settings(workers=1)
PIXELS = {"shape": [None, None, 1], "dtype": "float32", "meaning": "pixels"}


def fields(**changes: Any) -> dict[str, Any]:
    """The fields of a manifest with small tiles."""
    tiling = {"multiple": 4, "tile": 32, "halo": 4}
    manifest = deepcopy(DENOISER)
    manifest["task"]["tiling"] = tiling
    return manifest | {"inputs": {"noisy": PIXELS}, "outputs": {"clean": PIXELS}} | changes


def denoiser() -> Denoising:
    return Denoising(parse_manifest(fields(), TASKS))


def unchanged(batch: Mapping[str, Floats]) -> dict[str, Floats]:
    """An engine that finds no noise."""
    return {"clean": batch["noisy"]}


def inverted(batch: Mapping[str, Floats]) -> dict[str, Floats]:
    """An engine whose answer depends on each pixel alone."""
    return {"clean": 1 - batch["noisy"]}


def opened(data: bytes) -> Image.Image:
    return open_image(data, max_bytes=1_000_000, max_pixels=1_000_000)


def grey(*levels: int, dtype: type[np.unsignedinteger] = np.uint8) -> Image.Image:
    return Image.fromarray(np.array([levels], dtype=dtype))


def smooth(width: int, height: int, channels: int = 3) -> Image.Image:
    """An image whose colours change as slowly as its brightness: a quarter of a side holds them."""
    ramps = [np.linspace(20 + 30 * i, 120 + 30 * i, width) for i in range(channels)]
    levels = np.stack([np.tile(ramp, (height, 1)) for ramp in ramps], axis=2)
    return Image.fromarray(np.rint(levels).astype(np.uint8).squeeze())


def reopened(png: bytes) -> Image.Image:
    image = Image.open(BytesIO(png))
    assert image.format == "PNG"
    return image


@pytest.mark.parametrize(
    ("mode", "count"),
    [("1", 1), ("L", 1), ("LA", 1), ("I;16", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)],
)
def test_channels_are_one_for_grey_and_three_for_colour(mode: str, count: int) -> None:
    image = grey(*[700] * 12, dtype=np.uint16) if mode == "I;16" else noise(12, 1).convert(mode)
    colors, _, answered = split(opened(encode(image, "PNG")))
    assert colors.shape == (1, 12, count)
    assert colors.dtype == np.uint8
    assert answered == ("L" if count == 1 else "RGB")


def test_channels_are_the_colours_in_order() -> None:
    image = Image.new("RGB", (9, 8), (255, 0, 51))
    colors, alpha, _ = split(opened(encode(image, "PNG")))
    assert alpha is None
    assert (colors == [255, 0, 51]).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_grey_that_is_stored_as_colour_has_one_channel_and_is_answered_as_it_came(
    mode: str,
) -> None:
    image = noise(12, 9, 1).convert(mode)
    picture = split(opened(encode(image, "PNG")))
    assert picture.colors.shape == (9, 12, 1)
    np.testing.assert_array_equal(picture.colors, pixels(image.convert("L")))
    came = reopened(to_png(np.asarray(picture.colors, np.uint8), picture.alpha, picture.mode))
    assert came.mode == ("RGBA" if mode == "RGBA" else "RGB")


def test_one_pixel_of_colour_makes_an_image_coloured() -> None:
    image = noise(70, 300, 1).convert("RGB")
    image.putpixel((69, 299), (1, 2, 3))
    assert split(opened(encode(image, "PNG"))).colors.shape == (300, 70, 3)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_set_apart_and_the_colours_beneath_it_stay(mode: str) -> None:
    image, alpha = noise(12, 90).convert(mode), noise(12, 90, 1, seed=1)
    image.putalpha(alpha)
    colors, kept, _ = split(opened(encode(image, "PNG")))
    np.testing.assert_array_equal(kept, pixels(alpha)[..., 0])
    np.testing.assert_array_equal(colors, pixels(image)[..., :-1])


def test_transparent_colour_becomes_alpha() -> None:
    data = encode(grey(1, 2, 1, 3), "PNG", transparency=1)
    _, alpha, _ = split(opened(data))
    assert alpha is not None
    assert alpha.ravel().tolist() == [0, 255, 0, 255]


@pytest.mark.parametrize("orientation", STORED)
def test_colours_and_alpha_are_upright(orientation: int) -> None:
    image = noise(12, 9, 4)
    colors, alpha, _ = split(opened(stored(image, "PNG", orientation)))
    np.testing.assert_array_equal(colors, pixels(image)[..., :3])
    np.testing.assert_array_equal(alpha, pixels(image)[..., 3])


@pytest.mark.parametrize("name", FILES)
def test_truncated_file_is_refused(name: str) -> None:
    data = FILES[name]
    with pytest.raises(BadInput, match="broken one"):
        split(opened(data[: len(data) // 2]))


@pytest.mark.parametrize("size", [(8, 8), (8, 100), (100, 8), (50, 20)])
def test_denoiser_takes_sides_from_eight_and_pixels_up_to_the_limit(size: tuple[int, int]) -> None:
    check_size(Image.new("L", size), max_pixels=1000)


@pytest.mark.parametrize("size", [(7, 8), (8, 7), (1, 500)])
def test_denoiser_refuses_a_side_below_eight(size: tuple[int, int]) -> None:
    with pytest.raises(BadInput, match=f"at least 8x8 pixels, got {size[0]}x{size[1]}"):
        check_size(Image.new("L", size), max_pixels=1000)


def test_denoiser_refuses_more_pixels_than_the_limit() -> None:
    with pytest.raises(TooLarge, match=r"at most 1000 pixels .* got 77x13 = 1001 pixels"):
        check_size(Image.new("L", (77, 13)), max_pixels=1000)


# Pillow warns of damage that it survives.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_damaged_bytes_give_a_picture_or_an_error_of_the_caller(name: str) -> None:
    random = Random(name)
    outcomes = set()
    for _ in range(60):
        data = damaged(FILES[name], random)
        try:
            split(opened(data))
            outcomes.add("image")
        except RequestError:
            outcomes.add("error")
    assert "error" in outcomes


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_come_back_from_the_png_without_loss(channels: int) -> None:
    image = noise(13, 9, channels)
    png = reopened(to_png(pixels(image), None, image.mode))
    assert png.mode == image.mode
    np.testing.assert_array_equal(pixels(png), pixels(image))


@pytest.mark.parametrize(("channels", "mode"), [(1, "LA"), (3, "RGBA")])
def test_alpha_is_kept_beside_the_colours(channels: int, mode: str) -> None:
    image, alpha = noise(13, 9, channels), noise(13, 9, 1, seed=1)
    png = reopened(to_png(pixels(image), pixels(alpha)[..., 0], image.mode))
    assert png.mode == mode
    np.testing.assert_array_equal(pixels(png)[..., :channels], pixels(image))
    np.testing.assert_array_equal(pixels(png)[..., channels:], pixels(alpha))


def answered(task: Denoising, image: Image.Image, run: Run) -> Image.Image:
    item = task.decode(encode(image, "PNG"), SETTINGS)
    (output,) = task.compute([item], run)
    answer = task.encode(output, item, Options())
    assert answer.media_type == task.media_type == PNG
    assert answer.labels == ()
    return answer.image()


@pytest.mark.parametrize("size", [(8, 8), (31, 31), (33, 41), (77, 9), (130, 67), (200, 200)])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_image_is_answered_in_its_own_size_with_its_alpha(size: tuple[int, int], mode: str) -> None:
    image = smooth(*size, 1 if mode[0] == "L" else 3)
    if mode[-1] == "A":
        image.putalpha(noise(*size, 1, seed=1))
    came = answered(denoiser(), image, unchanged)
    assert (came.size, came.mode) == (image.size, image.mode)
    colors = len(mode.removesuffix("A"))
    np.testing.assert_array_equal(pixels(came)[..., colors:], pixels(image)[..., colors:])
    off = np.abs(pixels(came)[..., :colors].astype(int) - pixels(image)[..., :colors])
    assert off.max() <= (0 if colors == 1 or min(size) < 32 else 2)


@pytest.mark.parametrize("size", [(31, 31), (100, 31), (31, 100)])
def test_colours_of_a_small_image_are_denoised_at_full_size(size: tuple[int, int]) -> None:
    image = noise(*size)
    came = answered(denoiser(), image, inverted)
    np.testing.assert_array_equal(pixels(came), 255 - pixels(image))


def test_values_beyond_the_scale_are_clipped() -> None:
    def doubled(batch: Mapping[str, Floats]) -> dict[str, Floats]:
        return {"clean": 4 * batch["noisy"] - 1}

    levels = pixels(answered(denoiser(), Image.new("L", (16, 16), 10), doubled))
    assert (levels == 0).all()
    levels = pixels(answered(denoiser(), Image.new("L", (16, 16), 200), doubled))
    assert (levels == 255).all()


def blurred(batch: Mapping[str, Floats]) -> dict[str, Floats]:
    """An engine that takes out noise: the mean of 4x4 pixels."""
    planes = batch["noisy"]
    count, height, width, _ = planes.shape
    blocks = planes.reshape(count, height // 4, 4, width // 4, 4)
    means = np.broadcast_to(blocks.mean(axis=(2, 4), keepdims=True), blocks.shape)
    return {"clean": means.reshape(planes.shape)}


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.3])
@pytest.mark.parametrize("color", [(200, 40, 90), (30, 30, 200), (250, 250, 240), (3, 10, 3)])
def test_noise_is_taken_out_of_colours_and_no_tint_is_left(
    sigma: float, color: tuple[int, int, int]
) -> None:
    clean = np.full((128, 128, 3), color) / 255
    noisy = clean + sigma * np.random.default_rng(0).standard_normal(clean.shape)
    image = Image.fromarray(np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8))
    came = pixels(answered(denoiser(), image, blurred))
    assert np.ptp(came.mean((0, 1)) - color) < 8
    assert came.std((0, 1)).max() < 0.5 * pixels(image).std((0, 1)).min()


@pytest.mark.parametrize(("sigma", "is_of_the_network"), [(0.0, False), (0.3, True)])
def test_colours_are_the_networks_where_noise_is_strong_and_the_images_where_there_is_none(
    sigma: float, is_of_the_network: bool
) -> None:
    def uniform(batch: Mapping[str, Floats]) -> dict[str, Floats]:
        return {"clean": np.full_like(batch["noisy"], 0.5)}

    red = np.full((128, 128, 3), (0.7, 0.4, 0.4))
    noisy = red + sigma * np.random.default_rng(0).standard_normal(red.shape)
    image = Image.fromarray(np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8))
    means = pixels(answered(denoiser(), image, uniform)).mean((0, 1))
    assert (np.ptp(means) < 2) == is_of_the_network


@pytest.mark.parametrize(("sigma", "is_within"), [(0.0, 2), (0.1, 75)])
@pytest.mark.parametrize(
    ("paper", "ink"), [("white", "red"), ("white", "yellow"), ("black", "blue")]
)
def test_thin_line_keeps_its_colour(sigma: float, is_within: int, paper: str, ink: str) -> None:
    drawn = Image.new("RGB", (128, 128), paper)
    for x in range(10, 128, 16):
        drawn.paste(ink, (x, 0, x + 1, 128))
    noisy = pixels(drawn) / 255 + sigma * np.random.default_rng(0).standard_normal((128, 128, 3))
    image = Image.fromarray(np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8))
    came = pixels(answered(denoiser(), image, unchanged))[:, 10].mean(0)
    assert np.abs(came - pixels(drawn)[0, 10]).max() <= is_within


def test_grey_stored_as_colour_is_answered_as_grey_is() -> None:
    task, image = denoiser(), noise(70, 50, 1)
    plain, stored_as_rgb = (answered(task, each, blurred) for each in (image, image.convert("RGB")))
    assert stored_as_rgb.mode == "RGB"
    for channel in stored_as_rgb.split():
        np.testing.assert_array_equal(pixels(channel), pixels(plain))


def computed_pixels(task: Denoising, item: Picture) -> tuple[int, int]:
    """What the network is given for an item, in all and at most at once."""
    given: list[int] = []

    def run(batch: Mapping[str, Floats]) -> dict[str, Floats]:
        given.append(batch["noisy"].size)
        return inverted(batch)

    task.compute([item], run)
    return sum(given), max(given)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (31, 40), (33, 41), (200, 9), (150, 131)])
def test_work_is_what_the_network_is_given_in_pieces_of_at_most_a_tile(
    size: tuple[int, int], channels: int
) -> None:
    task, image = denoiser(), noise(*size, channels)
    item = task.from_image(image, SETTINGS)
    total, largest = computed_pixels(task, item)
    assert task.work(item) == task.expected_work(image) == total
    assert largest <= 32 * 32


def test_colour_costs_a_fifth_more_than_grey() -> None:
    task = denoiser()
    grey_work, colour_work = (
        task.expected_work(Image.new(mode, (800, 800))) for mode in ("L", "RGB")
    )
    assert 1.1 * grey_work < colour_work < 1.25 * grey_work


def test_each_image_is_computed_by_itself() -> None:
    task = denoiser()
    items = [Picture(pixels(noise(*size, 1))) for size in ((24, 20), (50, 9))]
    outputs = task.compute(items, inverted)
    for item, output in zip(items, outputs, strict=True):
        np.testing.assert_array_equal(output, 255 - item.colors)


def test_sizes_that_are_computed_before_it_is_ready_are_padded_ones_and_a_whole_tile() -> None:
    *padded, tile = [item.colors.shape for item in denoiser().blank_items()]
    assert len(set(padded)) == 2
    assert all(side % 4 for shape in padded for side in shape[:2])
    assert tile == (32, 32, 1)


def test_image_of_too_many_pixels_is_refused_before_it_is_unpacked() -> None:
    task, limits = denoiser(), Settings(workers=1, max_denoise_pixels=479)
    cut = encode(gradient(), "PNG")[:200]
    with pytest.raises(TooLarge, match=r"at most 479 pixels to denoise, got 24x20 = 480 pixels"):
        task.open(cut, limits)
    with pytest.raises(TooLarge, match=r"at most 479 pixels to denoise, got 24x20 = 480 pixels"):
        task.from_image(gradient(), limits)
    with pytest.raises(TooLarge, match=r"at most 479 pixels to denoise, got 24x20 = 480 pixels"):
        task.from_tensors({"noisy": np.zeros((20, 24, 1), np.float32)}, limits)


def test_tensor_is_taken_as_it_is() -> None:
    array = np.random.default_rng(1).random((5, 7, 1), dtype=np.float32)
    item = denoiser().from_tensors({"noisy": array}, SETTINGS)
    assert item.alpha is None
    np.testing.assert_array_equal(item.colors, array)
    assert computed_pixels(denoiser(), item)[0] == 8 * 8


@pytest.mark.parametrize(
    ("names", "came"), [([], "none"), (["image"], "image"), (["noisy", "mask"], "noisy, mask")]
)
def test_other_tensors_than_the_networks_are_named(names: list[str], came: str) -> None:
    array = np.zeros((8, 8, 1), np.float32)
    with pytest.raises(BadInput, match=f"expected the input noisy, got {came}$"):
        denoiser().from_tensors(dict.fromkeys(names, array), SETTINGS)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((8, 8, 3), "float32"),
        ((1, 8, 8, 1), "float32"),
        ((8, 8), "float32"),
        ((8, 8, 1), "float64"),
        ((8, 8, 1), "uint8"),
    ],
)
def test_tensor_of_another_shape_or_type_is_refused(shape: tuple[int, ...], dtype: str) -> None:
    array: Any = np.zeros(shape, dtype)
    with pytest.raises(BadInput) as caught:
        denoiser().from_tensors({"noisy": array}, SETTINGS)
    assert str(caught.value) == (
        f"expected noisy as float32 of shape (height, width, 1), got {dtype} of shape {shape}"
    )


EXPECTED = ExpectedImage(file="sample-expected.png", tolerance=3)
CLEAN = noise(20, 10, 1)


def recorded(file: str) -> Image.Image:
    """The one recorded answer."""
    assert file == EXPECTED.file
    return opened(encode(CLEAN, "PNG"))


@pytest.mark.parametrize("off", [0, 3, -3])
def test_sample_within_the_tolerance_is_as_recorded(off: int) -> None:
    levels = np.clip(pixels(CLEAN).astype(int) + off, 0, 255).astype(np.uint8)
    denoiser().check_sample(levels, EXPECTED, recorded)


def test_one_pixel_that_is_not_as_recorded_is_told() -> None:
    levels = pixels(CLEAN).copy()
    levels[4, 5] += np.uint8(4) if levels[4, 5] < 128 else np.uint8(252)
    message = "expected sample-expected.png within 3 levels, got 4 levels off"
    with pytest.raises(ValueError, match=message):
        denoiser().check_sample(levels, EXPECTED, recorded)


def test_sample_of_another_size_is_told() -> None:
    with pytest.raises(ValueError, match=r"expected an image of shape \(10, 20, 1\), got \(9, 20"):
        denoiser().check_sample(pixels(CLEAN)[:9], EXPECTED, recorded)


FIXED = {"shape": [8, 8, 1], "dtype": "float32", "meaning": "pixels"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": {"noisy": FIXED}}, "expected one input of grey pixels of any size, got"),
        ({"outputs": {"clean": FIXED}}, "expected one output of grey pixels of any size, got"),
        ({"outputs": {"clean": PIXELS | {"meaning": "noise"}}}, r"got \[\('noise', \(None, None"),
        ({"inputs": {"noisy": PIXELS, "sigma": PIXELS}}, "expected one input of grey pixels"),
        ({"outputs": {"clean": PIXELS, "noise": PIXELS}}, "expected one output of grey pixels"),
        (
            {"input": DENOISER["input"] | {"color": "rgb", "shape": [None, None, 3]}},
            r"that is kept, scaled to 0\.\.1; got \(None, None, 3\) rgb",
        ),
        ({"input": DENOISER["input"] | {"scale": {"mean": 0.5}}}, r"scaled to 0\.\.1"),
        ({"input": DENOISER["input"] | {"shape": [64, 64, 1]}}, "pixels of any size that is kept"),
    ],
)
def test_anything_but_grey_pixels_of_any_size_is_refused(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        parse_manifest(fields(**changes), TASKS)


def test_tiling_of_the_manifest_is_what_is_computed() -> None:
    shapes: list[tuple[int, ...]] = []

    def run(batch: Mapping[str, Floats]) -> dict[str, Floats]:
        shapes.append(batch["noisy"].shape)
        return inverted(batch)

    colors = pixels(noise(60, 30, 1))
    (output,) = denoiser().compute([Picture(colors)], run)
    np.testing.assert_array_equal(output, 255 - colors)
    assert len(shapes) > 1
    assert max(side for shape in shapes for side in shape) == 32
