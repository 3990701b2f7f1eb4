import numpy as np
import pytest

from service.pixels.luma import SHRINK, Chroma, brightness, detail, is_grey, shrunk
from service.pixels.preprocess import Floats, Pixels, scale
from service.pixels.spec import Scale
from tests.drawing import noise, pixels

SIZES = [(32, 32), (33, 35), (40, 300), (301, 37)]


def colors_of(height: int, width: int, channels: int = 3) -> Pixels:
    return pixels(noise(width, height, channels))


def chroma_of(colors: Pixels) -> Chroma:
    return Chroma(scale(shrunk(colors), Scale()))


def whole(bright: Floats, chroma: Chroma) -> Floats:
    height, width = bright.shape
    return chroma.added_to(bright, slice(0, height), slice(0, width))


def test_weights_of_brightness_are_those_of_bt_601() -> None:
    primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert brightness(primaries)[0].tolist() == pytest.approx([0.299, 0.587, 0.114, 1])


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_shrunk_colours_are_the_means_of_blocks(height: int, width: int) -> None:
    colors = colors_of(height, width)
    small = shrunk(colors)
    assert small.shape == (-(-height // SHRINK), -(-width // SHRINK), 3)
    blocks = colors[:32, :32].reshape(8, 4, 8, 4, 3)
    np.testing.assert_allclose(small[:8, :8], blocks.mean((1, 3)), atol=0.51)
    last = colors[(small.shape[0] - 1) * 4 :, (small.shape[1] - 1) * 4 :].mean((0, 1))
    np.testing.assert_allclose(small[-1, -1], last, atol=1)


def test_colour_that_is_the_same_everywhere_comes_back() -> None:
    colors = np.full((37, 50, 3), (200, 30, 90), np.uint8)
    chroma = chroma_of(colors)
    np.testing.assert_allclose(whole(brightness(colors), chroma) * 255, colors, atol=1e-3)


def test_grey_has_no_colour_added() -> None:
    small = np.repeat(np.random.default_rng(0).random((9, 9, 1), np.float32), 3, axis=2)
    joined = whole(np.full((36, 36), 0.5, np.float32), Chroma(small))
    np.testing.assert_allclose(joined, 0.5, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_parts_are_joined_as_the_whole_is(height: int, width: int) -> None:
    colors = colors_of(height, width)
    bright, chroma = brightness(colors), chroma_of(colors)
    rows, columns = slice(13, height), slice(7, width - 2)
    part = chroma.added_to(bright[rows, columns], rows, columns)
    np.testing.assert_allclose(part, whole(bright, chroma)[rows, columns], atol=1e-4)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_one_pixel_of_colour_is_seen(height: int, width: int) -> None:
    colors = np.repeat(colors_of(height, width, 1), 3, axis=2)
    assert is_grey(colors)
    colors[-1, -1, 1] ^= 1
    assert not is_grey(colors)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_without_noise_the_colours_are_the_images_own(height: int, width: int) -> None:
    colors = colors_of(height, width)
    joined = whole(brightness(colors), chroma_of(colors))
    np.testing.assert_allclose((joined + detail(colors, joined, 0.0)) * 255, colors, atol=1e-3)


def test_of_noise_alone_little_is_kept() -> None:
    sigma = 0.1
    noise_alone = 0.5 + sigma * np.random.default_rng(0).standard_normal((200, 200, 3))
    colors = np.rint(np.clip(noise_alone, 0, 1) * 255).astype(np.uint8)
    joined = whole(brightness(colors), chroma_of(colors))
    assert detail(colors, joined, sigma).std() < 0.2 * sigma
