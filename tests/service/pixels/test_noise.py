import numpy as np
import pytest

from service.pixels.noise import MAX_SIGMA, noise_sigma, unclipped
from service.pixels.preprocess import Pixels


def noisy(level: float, sigma: float, channels: int = 3) -> Pixels:
    """One level, 0..1, with noise, clipped and stored in 8 bits."""
    random = np.random.default_rng(0)
    values = level + sigma * random.standard_normal((200, 300, channels))
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.1, 0.2, 0.3])
def test_sigma_is_that_of_the_noise(sigma: float, channels: int) -> None:
    assert noise_sigma(noisy(0.5, sigma, channels)) == pytest.approx(sigma, rel=0.15)


def test_image_without_noise_has_none() -> None:
    ramp = np.tile(np.arange(200, dtype=np.uint8)[:, np.newaxis, np.newaxis], (1, 300, 3))
    assert noise_sigma(ramp) == 0


def test_edges_and_single_wrong_pixels_are_no_noise() -> None:
    image = noisy(0.5, 0.05)
    image[:, 150:] //= 2
    image[::9, ::9] = 255
    assert noise_sigma(image) == pytest.approx(0.05, rel=0.3)


def test_noise_is_measured_where_it_is_not_clipped() -> None:
    image = np.concatenate([noisy(0, 0.2), noisy(0.5, 0.2), noisy(1, 0.2)])
    assert noise_sigma(image) == pytest.approx(0.2, rel=0.15)


def test_edges_of_a_drawing_on_white_are_no_noise() -> None:
    image = noisy(1, 0)
    image[::8, ::8] = 0
    assert noise_sigma(image) == 0


@pytest.mark.parametrize("size", [(2, 2), (3, 5), (8, 8), (9, 4000)])
def test_image_of_any_size_has_a_sigma_of_at_most_half(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    image = 255 * random.integers(0, 2, (*size, 3)).astype(np.uint8)
    assert 0 <= noise_sigma(image) <= MAX_SIGMA


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.3])
@pytest.mark.parametrize("level", [0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
def test_level_of_noise_that_was_clipped_is_found_again(level: float, sigma: float) -> None:
    mean = round(float(noisy(level, sigma).mean()))
    # A level near black or white moves the mean by half as much as one between.
    assert unclipped(sigma)[mean] == pytest.approx(level * 255, abs=3)


@pytest.mark.parametrize("sigma", [0.0, 0.01, 0.2, 0.5])
def test_darker_stays_darker(sigma: float) -> None:
    table = unclipped(sigma).astype(int)
    assert (np.diff(table) >= 0).all()
    assert (table[0], table[127], table[255]) == (0, pytest.approx(127, abs=1), 255)


def test_without_noise_nothing_changes() -> None:
    np.testing.assert_array_equal(unclipped(0.0), np.arange(256))
