from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from service.pixels.encode import encode_planes, encode_scores

from service.pixels.preprocess import Floats
from tests.drawing import noise, pixels

LABELS = ("bag", "coat", "dress", "shirt")


def scores(*values: float) -> Floats:
    return np.array(values, dtype=np.float32)


def planes_of(image: Image.Image) -> Floats:
    return np.moveaxis(pixels(image), 2, 0)[..., np.newaxis].astype(np.float32) / np.float32(255)


def reopened(png: bytes) -> Image.Image:
    image = Image.open(BytesIO(png))
    assert image.format == "PNG"
    return image


def test_likeliest_classes_come_best_first() -> None:
    prediction = encode_scores(scores(0.1, 0.2, 0.6, 0.1), LABELS, 2)
    assert prediction["top"] == [
        {"label": "dress", "index": 2, "probability": 0.6},
        {"label": "coat", "index": 1, "probability": 0.2},
    ]


def test_prediction_repeats_the_first_of_its_top() -> None:
    prediction = encode_scores(scores(0.1, 0.7, 0.1, 0.1), LABELS, 3)
    best = prediction["top"][0]
    assert prediction == {**best, "top": prediction["top"]}
    assert best == {"label": "coat", "index": 1, "probability": 0.7}


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (3, 3), (4, 4), (5, 4), (999_999_999, 4)])
def test_top_has_as_many_as_asked_for_and_there_are(top_k: int, count: int) -> None:
    assert len(encode_scores(scores(0.4, 0.3, 0.2, 0.1), LABELS, top_k)["top"]) == count


def test_ties_keep_the_order_of_the_labels() -> None:
    labels = tuple(str(number) for number in range(100))
    prediction = encode_scores(scores(*[0.25, 0.75] * 50), labels, 100)
    order = [score["index"] for score in prediction["top"]]
    assert order == [*range(1, 100, 2), *range(0, 100, 2)]


def test_probability_is_a_plain_number_of_six_digits() -> None:
    probability = encode_scores(scores(1 / 3, 0, 0, 0), LABELS, 1)["probability"]
    assert type(probability) is float
    assert probability == 0.333333


@pytest.mark.parametrize("channels", [1, 3])
def test_planes_come_back_from_the_png_without_loss(channels: int) -> None:
    image = noise(13, 9, channels)
    png = reopened(encode_planes(planes_of(image), None))
    assert png.mode == image.mode
    np.testing.assert_array_equal(pixels(png), pixels(image))


@pytest.mark.parametrize(("channels", "mode"), [(1, "LA"), (3, "RGBA")])
def test_alpha_is_kept_beside_the_planes(channels: int, mode: str) -> None:
    image, alpha = noise(13, 9, channels), noise(13, 9, 1, seed=1)
    png = reopened(encode_planes(planes_of(image), alpha))
    assert png.mode == mode
    np.testing.assert_array_equal(pixels(png)[..., :channels], pixels(image))
    np.testing.assert_array_equal(pixels(png)[..., channels:], pixels(alpha))


def test_values_beyond_the_scale_are_clipped() -> None:
    planes = scores(-0.5, 0.0, 1.0, 1.5).reshape(1, 2, 2, 1)
    assert pixels(reopened(encode_planes(planes, None))).ravel().tolist() == [0, 0, 255, 255]
