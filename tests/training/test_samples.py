"""The drawn samples."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from service.pixels.preprocess import preprocess
from service.pixels.spec import FashionMnist, Input
from training.samples import digit, hand, trousers, with_noise

DRAWN: dict[str, tuple[Callable[[], Image.Image], str, tuple[int, int]]] = {
    "trousers": (trousers, "L", (28, 28)),
    "hand": (lambda: hand(3), "RGB", (256, 256)),
    "small hand": (lambda: hand(3, side=64), "RGB", (64, 64)),
    "digit": (lambda: digit("7"), "L", (28, 28)),
    "word": (lambda: digit("vitrine", (112, 40)), "L", (112, 40)),
    "noisy digit": (lambda: with_noise(digit("7"), 0.3, seed=7), "L", (28, 28)),
}


@pytest.mark.parametrize(("draw", "mode", "size"), DRAWN.values(), ids=DRAWN.keys())
class TestEverySample:
    def test_has_its_mode_and_size(
        self, draw: Callable[[], Image.Image], mode: str, size: tuple[int, int]
    ) -> None:
        assert (draw().mode, draw().size) == (mode, size)

    def test_shows_something(
        self, draw: Callable[[], Image.Image], mode: str, size: tuple[int, int]
    ) -> None:
        assert np.asarray(draw()).std() > 10

    def test_is_the_same_every_time(
        self, draw: Callable[[], Image.Image], mode: str, size: tuple[int, int]
    ) -> None:
        assert draw().tobytes() == draw().tobytes()


def test_trousers_reach_the_network_untouched() -> None:
    spec = Input(shape=(28, 28, 1), color="grey", resize=FashionMnist())
    reached = np.rint(preprocess(trousers(), spec)[..., 0] * 255)
    assert (reached == np.asarray(trousers())).all()


def test_hands_with_more_fingers_hide_more_of_the_wall() -> None:
    wall = np.asarray(hand(0))[0, 0]
    free = [int((np.asarray(hand(fingers)) == wall).all(axis=2).sum()) for fingers in range(6)]
    assert free == sorted(free, reverse=True)
    assert len(set(free)) == 6


def test_digits_differ() -> None:
    assert len({digit(text).tobytes() for text in "0123456789"}) == 10


def test_digit_is_light_on_black() -> None:
    pixels = np.asarray(digit("7"))
    assert pixels[[0, 0, -1, -1], [0, -1, 0, -1]].max() == 0
    assert pixels.max() == 255


@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.15])
def test_noise_has_the_deviation_that_was_asked_for(sigma: float) -> None:
    grey = Image.new("L", (100, 100), 128)  # far from both ends, so that nothing is clipped
    noise = np.asarray(with_noise(grey, sigma, seed=1)) - 128.0
    assert noise.std() / 255 == pytest.approx(sigma, rel=0.03)


def test_noise_stays_between_black_and_white() -> None:
    # Were it to wrap around, black would become nearly white.
    noisy = np.asarray(with_noise(Image.new("L", (100, 100), 0), 0.1, seed=1))
    assert noisy.max() < 128


def test_noise_differs_by_seed() -> None:
    first, second = (with_noise(digit("7"), 0.3, seed).tobytes() for seed in (1, 2))
    assert first != second
