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
from service.pixels.preprocess import Floats, to_pixels
from service.settings import Settings
from service.tasks import TASKS
from service.tasks.denoising import (
    PNG,
    Denoising,
    ExpectedImage,
    Planes,
    check_size,
    split,
    to_png,
)
from service.tasks.task import Options
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


def inverted(batch: Mapping[str, Floats]) -> dict[str, Floats]:
    """An engine whose answer depends on each pixel alone."""
    return {"clean": 1 - batch["noisy"]}


def opened(data: bytes) -> Image.Image:
    return open_image(data, max_bytes=1_000_000, max_pixels=1_000_000)


def grey(*levels: int, dtype: type[np.unsignedinteger] = np.uint8) -> Image.Image:
    return Image.fromarray(np.array([levels], dtype=dtype))


def planes_of(image: Image.Image) -> Floats:
    return np.moveaxis(pixels(image), 2, 0)[..., np.newaxis].astype(np.float32) / np.float32(255)


def reopened(png: bytes) -> Image.Image:
    image = Image.open(BytesIO(png))
    assert image.format == "PNG"
    return image


@pytest.mark.parametrize(
    ("mode", "count"),
    [("1", 1), ("L", 1), ("LA", 1), ("I;16", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)],
)
def test_planes_are_one_for_grey_and_three_for_colour(mode: str, count: int) -> None:
    image = grey(*[700] * 12, dtype=np.uint16) if mode == "I;16" else noise(12, 1).convert(mode)
    planes, _ = split(opened(encode(image, "PNG")))
    assert planes.shape == (count, 1, 12, 1)
    assert planes.dtype == np.float32


def test_planes_hold_the_colours_in_order_from_0_to_1() -> None:
    image = Image.new("RGB", (9, 8), (255, 0, 51))
    planes, alpha = split(opened(encode(image, "PNG")))
    assert alpha is None
    assert [plane.min() for plane in planes] == [plane.max() for plane in planes]
    assert [float(plane.max()) for plane in planes] == pytest.approx([1, 0, 0.2])


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_set_apart_and_the_colours_beneath_it_stay(mode: str) -> None:
    image, alpha = noise(12, 9).convert(mode), noise(12, 9, 1, seed=1)
    image.putalpha(alpha)
    planes, kept = split(opened(encode(image, "PNG")))
    assert kept is not None
    np.testing.assert_array_equal(pixels(kept), pixels(alpha))
    np.testing.assert_array_equal(
        np.moveaxis(to_pixels(planes)[..., 0], 0, 2), pixels(image)[..., :-1]
    )


def test_transparent_colour_becomes_alpha() -> None:
    data = encode(grey(1, 2, 1, 3), "PNG", transparency=1)
    _, alpha = split(opened(data))
    assert alpha is not None
    assert pixels(alpha).ravel().tolist() == [0, 255, 0, 255]


@pytest.mark.parametrize("orientation", STORED)
def test_planes_and_alpha_are_upright(orientation: int) -> None:
    image = noise(12, 9, 4)
    planes, alpha = split(opened(stored(image, "PNG", orientation)))
    assert planes.shape == (3, 9, 12, 1)
    assert alpha is not None
    np.testing.assert_array_equal(pixels(alpha), pixels(image.getchannel("A")))


@pytest.mark.parametrize("name", FILES)
def test_planes_of_a_truncated_file_are_refused(name: str) -> None:
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
def test_damaged_bytes_give_planes_or_an_error_of_the_caller(name: str) -> None:
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
def test_planes_come_back_from_the_png_without_loss(channels: int) -> None:
    image = noise(13, 9, channels)
    png = reopened(to_png(planes_of(image), None))
    assert png.mode == image.mode
    np.testing.assert_array_equal(pixels(png), pixels(image))


@pytest.mark.parametrize(("channels", "mode"), [(1, "LA"), (3, "RGBA")])
def test_alpha_is_kept_beside_the_planes(channels: int, mode: str) -> None:
    image, alpha = noise(13, 9, channels), noise(13, 9, 1, seed=1)
    png = reopened(to_png(planes_of(image), alpha))
    assert png.mode == mode
    np.testing.assert_array_equal(pixels(png)[..., :channels], pixels(image))
    np.testing.assert_array_equal(pixels(png)[..., channels:], pixels(alpha))


def test_values_beyond_the_scale_are_clipped() -> None:
    planes = np.array([-0.5, 0.0, 1.0, 1.5], np.float32).reshape(1, 2, 2, 1)
    assert pixels(reopened(to_png(planes, None))).ravel().tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("size", [(8, 8), (33, 41), (77, 9)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_image_is_answered_in_its_own_size_with_its_alpha(
    size: tuple[int, int], channels: int
) -> None:
    task, image = denoiser(), noise(*size, channels)
    item = task.decode(encode(image, "PNG"), SETTINGS)
    (output,) = task.compute([item], inverted)
    answer = task.encode(output, item, Options())
    assert answer.media_type == task.media_type == PNG
    assert answer.labels == ()
    came = answer.image()
    assert (came.size, came.mode) == (image.size, image.mode)
    expected = 255 - pixels(image)
    if channels == 4:
        expected[..., 3] = pixels(image)[..., 3]
    np.testing.assert_array_equal(pixels(came), expected)


def test_each_image_is_computed_by_itself() -> None:
    task = denoiser()
    items = [Planes(planes_of(noise(*size)), None) for size in ((24, 20), (50, 9))]
    outputs = task.compute(items, inverted)
    for item, output in zip(items, outputs, strict=True):
        np.testing.assert_array_equal(output, 1 - item.colors)


def test_sizes_that_are_computed_before_it_is_ready_have_to_be_padded() -> None:
    shapes = [item.colors.shape for item in denoiser().blank_items()]
    assert len(set(shapes)) == 2
    assert all(side % 4 for shape in shapes for side in shape[1:3])


def test_image_of_too_many_pixels_is_refused_before_it_is_unpacked() -> None:
    task, limits = denoiser(), Settings(workers=1, max_denoise_pixels=479)
    cut = encode(gradient(), "PNG")[:200]
    with pytest.raises(TooLarge, match=r"at most 479 pixels to denoise, got 24x20 = 480 pixels"):
        task.from_image(task.open(cut, limits), limits)


def test_tensor_becomes_a_plane() -> None:
    array = np.random.default_rng(1).random((5, 7, 1), dtype=np.float32)
    item = denoiser().from_tensors({"noisy": array})
    assert item.alpha is None
    np.testing.assert_array_equal(item.colors, array[np.newaxis])


@pytest.mark.parametrize(
    ("names", "came"), [([], "none"), (["image"], "image"), (["noisy", "mask"], "noisy, mask")]
)
def test_other_tensors_than_the_networks_are_named(names: list[str], came: str) -> None:
    array = np.zeros((8, 8, 1), np.float32)
    with pytest.raises(BadInput, match=f"expected the input noisy, got {came}$"):
        denoiser().from_tensors(dict.fromkeys(names, array))


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
        denoiser().from_tensors({"noisy": array})
    assert str(caught.value) == (
        f"expected noisy as float32 of shape (height, width, 1), got {dtype} of shape {shape}"
    )


EXPECTED = ExpectedImage(file="sample-expected.png", tolerance=3)
CLEAN = noise(20, 10, 1)


def recorded(file: str) -> Image.Image:
    """The one recorded answer."""
    assert file == EXPECTED.file
    return opened(encode(CLEAN, "PNG"))


@pytest.mark.parametrize("off", [0.0, 2.9, -2.9])
def test_sample_within_the_tolerance_is_as_recorded(off: float) -> None:
    denoiser().check_sample(planes_of(CLEAN) + np.float32(off / 255), EXPECTED, recorded)


def test_values_beyond_the_scale_are_as_recorded() -> None:
    """They are clipped in an answer, too."""
    planes = planes_of(CLEAN)
    planes[planes == 0] = -1
    planes[planes == 1] = 2
    denoiser().check_sample(planes, EXPECTED, recorded)


@pytest.mark.parametrize(("value", "levels"), [(3.5 / 255, "3.5"), (np.nan, "nan")])
def test_one_pixel_that_is_not_as_recorded_is_told(value: float, levels: str) -> None:
    planes = planes_of(CLEAN)
    planes[planes > 0.5] -= np.float32(value)
    message = f"expected sample-expected.png within 3 levels, got {levels} levels off"
    with pytest.raises(ValueError, match=message):
        denoiser().check_sample(planes, EXPECTED, recorded)


def test_sample_of_another_size_is_told() -> None:
    with pytest.raises(
        ValueError, match=r"expected an image of shape \(1, 10, 20, 1\), got \(1, 9"
    ):
        denoiser().check_sample(planes_of(CLEAN)[:, :9], EXPECTED, recorded)


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

    colors = planes_of(noise(60, 30, 1))
    (output,) = denoiser().compute([Planes(colors, None)], run)
    np.testing.assert_array_equal(output, 1 - colors)
    assert len(shapes) > 1
    assert max(side for shape in shapes for side in shape) == 32
