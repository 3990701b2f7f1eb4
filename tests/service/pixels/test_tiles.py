import math

import numpy as np
import pytest

from service.pixels.preprocess import Floats
from service.pixels.spec import Tiling
from service.pixels.tiles import cut, network_pixels, predict_tiled

RADIUS = 3
TILED = Tiling(multiple=4, tile=24, halo=4)
WHOLE = Tiling(multiple=4, tile=4096, halo=4)
SIZES = [(8, 8), (9, 8), (8, 13), (11, 11), (23, 24), (24, 25), (17, 40), (41, 9), (65, 50)]


class Blur:
    """A box blur with zeros around the image: a convolution whose radius is known."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, planes: Floats) -> Floats:
        self.shapes.append(planes.shape)
        around = ((0, 0), (RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0))
        window = (2 * RADIUS + 1, 2 * RADIUS + 1)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(planes, around), window, (1, 2))
        blurred: Floats = windows.mean(axis=(-2, -1), dtype=np.float64).astype(np.float32)
        return blurred


def block_means(planes: Floats) -> Floats:
    """A network that pools by 4 and enlarges again: it depends on where the blocks begin."""
    count, height, width, _ = planes.shape
    blocks = planes.reshape(count, height // 4, 4, width // 4, 4)
    means = np.broadcast_to(blocks.mean(axis=(2, 4), keepdims=True), blocks.shape)
    return means.reshape(planes.shape)


def random_planes(count: int, height: int, width: int) -> Floats:
    return np.random.default_rng(0).random((count, height, width, 1), dtype=np.float32)


@pytest.mark.parametrize("planes", [1, 3])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_tiles_give_the_same_as_the_whole(planes: int, height: int, width: int) -> None:
    image = random_planes(planes, height, width)
    tiled, whole = predict_tiled(image, Blur(), TILED), predict_tiled(image, Blur(), WHOLE)
    assert tiled.shape == image.shape
    np.testing.assert_allclose(tiled, whole, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(24, 24), (64, 40), (48, 96)])
def test_image_of_aligned_sides_gives_what_the_network_gives(height: int, width: int) -> None:
    image = random_planes(3, height, width)
    np.testing.assert_allclose(predict_tiled(image, Blur(), TILED), Blur()(image), atol=1e-6)


def test_sides_are_filled_up_with_their_mirror_image() -> None:
    image = random_planes(1, 10, 13)
    filled = np.pad(image, ((0, 0), (0, 2), (0, 3), (0, 0)), mode="reflect")
    expected = Blur()(filled)[:, :10, :13]
    np.testing.assert_allclose(predict_tiled(image, Blur(), TILED), expected, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_tiles_begin_where_the_blocks_of_the_network_begin(height: int, width: int) -> None:
    image = random_planes(2, height, width)
    tiled, whole = (predict_tiled(image, block_means, spec) for spec in (TILED, WHOLE))
    np.testing.assert_allclose(tiled, whole, atol=1e-6)


def test_halo_smaller_than_the_radius_shows_seams() -> None:
    image = random_planes(1, 64, 64)
    without_halo = Tiling(multiple=4, tile=24, halo=0)
    assert np.abs(predict_tiled(image, Blur(), without_halo) - Blur()(image)).max() > 0.01


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_network_gets_only_sides_that_it_takes(height: int, width: int) -> None:
    blur = Blur()
    predict_tiled(random_planes(3, height, width), blur, TILED)
    sides = {side for shape in blur.shapes for side in shape[1:3]}
    assert all(side % TILED.multiple == 0 and side <= TILED.tile for side in sides)


def test_network_gets_one_tile_of_one_plane_at_a_time() -> None:
    blur = Blur()
    predict_tiled(random_planes(3, 25, 8), blur, TILED)
    assert {shape[0] for shape in blur.shapes} == {1}


@pytest.mark.parametrize(("height", "width"), [*SIZES, (41, 40), (199, 61), (25, 1000)])
def test_all_tiles_of_an_image_have_one_size(height: int, width: int) -> None:
    blur = Blur()
    predict_tiled(random_planes(1, height, width), blur, TILED)
    assert len(set(blur.shapes)) == 1


@pytest.mark.parametrize(("height", "width"), [*SIZES, (41, 40), (199, 61), (25, 1000)])
def test_pixels_of_the_network_are_known_before(height: int, width: int) -> None:
    blur = Blur()
    predict_tiled(random_planes(1, height, width), blur, TILED)
    assert network_pixels(height, width, TILED) == sum(math.prod(each) for each in blur.shapes)


@pytest.mark.parametrize(
    ("length", "tiles"), [(8, 1), (24, 1), (25, 2), (40, 2), (41, 3), (56, 3), (57, 4)]
)
def test_tiles_are_as_few_as_cover_the_image(length: int, tiles: int) -> None:
    assert len(list(cut(length, 8, TILED))) == len(list(cut(8, length, TILED))) == tiles


def test_tiles_overlap_by_the_halo_on_each_side() -> None:
    for tile in cut(199, 61, TILED):
        for outer, inner, length in zip(tile.outer, tile.inner, (199, 61), strict=True):
            assert inner.start - outer.start >= TILED.halo or outer.start == 0
            assert outer.stop - inner.stop >= TILED.halo or outer.stop == length


def test_input_is_left_as_it_was() -> None:
    image = random_planes(1, 50, 50)
    before = image.copy()
    predict_tiled(image, Blur(), TILED)
    np.testing.assert_array_equal(image, before)
