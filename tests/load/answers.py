"""Whether an answer is right: well formed, as recorded, and the same each time."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from typing import Any, cast

from PIL import Image, ImageChops, UnidentifiedImageError

from tests.load.models import Model
from tests.load.pictures import Picture

TOP_K = 3
# How far two answers to one image may lie apart: a batch of another size sums in another order.
SAME_PROBABILITY = 1e-3
SAME_LEVELS = 2  # of 0 to 255
JSON = "application/json"
PNG = "image/png"


class UnexpectedStatus(Exception):
    """An answer with another status than the request deserves."""


class WrongAnswer(Exception):
    """The right status and something else wrong; texts are few, so that a report can count them."""


@dataclass(frozen=True)
class Label:
    """What an image was answered with, or what was recorded; `tolerance` of the probability."""

    label: str
    probability: float
    tolerance: float


@dataclass(frozen=True)
class Pixels:
    """The same, of an image-to-image network; `tolerance` in levels."""

    png: bytes
    tolerance: int


class Answers:
    """Remembers what each image was answered with; a model's sample has its recorded answer."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._labels: dict[tuple[str, bytes], Label] = {}
        self._pixels: dict[tuple[str, bytes], Pixels] = {}
        for model in models.values():
            key, expected = (model.name, model.sample.data), model.expected
            if model.expected_image is not None:
                self._pixels[key] = Pixels(model.expected_image, expected["tolerance"])
            else:
                self._labels[key] = Label(
                    expected["label"], expected["probability"], expected["tolerance"]
                )

    def check_classification(self, model: Model, picture: Picture, body: bytes) -> None:
        """The answer of /classify; raises WrongAnswer."""
        self._check_prediction(model, picture, _identified(model, body))

    def check_predictions(self, model: Model, pictures: Sequence[Picture], body: bytes) -> None:
        """The answer of :predict, one prediction an image, in order; raises WrongAnswer."""
        predictions = _identified(model, body).get("predictions")
        if not isinstance(predictions, list) or len(predictions) != len(pictures):
            raise WrongAnswer(f"{model.name}: expected {len(pictures)} predictions")
        for picture, prediction in zip(pictures, predictions, strict=True):
            self._check_prediction(model, picture, prediction)

    def check_denoised(self, model: Model, picture: Picture, body: bytes) -> None:
        """The answer of /denoise, or of :predict of a denoiser; raises WrongAnswer."""
        key = (model.name, picture.data)
        known = self._pixels.get(key)
        if known is not None and known.png == body:
            return
        came = _opened(model, body)
        if came.size != picture.size:
            raise WrongAnswer(f"{model.name}: expected {picture.size} pixels, got {came.size}")
        if known is None:
            self._pixels[key] = Pixels(body, SAME_LEVELS)
            return
        difference = ImageChops.difference(came, _opened(model, known.png))
        off = max(high for _, high in cast("Iterable[tuple[int, int]]", difference.getextrema()))
        if off > known.tolerance:
            raise WrongAnswer(
                f"{model.name}: expected {picture.name} within {known.tolerance} levels"
            )

    def _check_prediction(self, model: Model, picture: Picture, prediction: Any) -> None:
        came = _probabilities(model, prediction)
        key = (model.name, picture.data)
        known = self._labels.get(key)
        if known is None:
            label, probability = next(iter(came.items()))
            self._labels[key] = Label(label, probability, SAME_PROBABILITY)
            return
        there = came.get(known.label, 0.0)
        # Labels that are as likely may change places from one processor to another.
        changed = max(came.values()) - there > known.tolerance
        if changed or abs(there - known.probability) > known.tolerance:
            best = next(iter(came))
            raise WrongAnswer(
                f"{model.name}: expected {picture.name} as {known.label!r} "
                f"{known.probability:.2f}, got {best!r} {came[best]:.2f}"
            )


def check_status(came: int, status: int, body: bytes, request_id: str) -> None:
    """The status that a request deserves; raises UnexpectedStatus."""
    if came != status:
        text = body.decode(errors="replace").replace(request_id, "…")
        raise UnexpectedStatus(f"expected {status}, got {came}: {text:.150}")


def check_headers(headers: Mapping[str, Any], media_type: str, request_id: str) -> None:
    """The type of an answer, and the id of its request; raises WrongAnswer."""
    came = headers.get("Content-Type", "").partition(";")[0]
    if came != media_type:
        raise WrongAnswer(f"expected Content-Type {media_type}, got {came!r:.80}")
    if headers.get("X-Request-ID") != request_id:
        raise WrongAnswer("expected the X-Request-ID that was sent")


def check_error(model: Model, body: bytes) -> None:
    """The answer to a mistake: one object with a message; raises WrongAnswer."""
    try:
        answer = json.loads(body)
    except ValueError:
        raise WrongAnswer(f"{model.name}: expected JSON") from None
    if not isinstance(answer, dict) or not isinstance(answer.get("error"), str):
        raise WrongAnswer(f"{model.name}: expected an error with a message")


def _identified(model: Model, body: bytes) -> dict[str, Any]:
    """The JSON object of an answer; raises WrongAnswer if it is not this model's."""
    try:
        answer = json.loads(body)
    except ValueError:
        raise WrongAnswer(f"{model.name}: expected JSON") from None
    if not isinstance(answer, dict) or answer.get("model") != model.name:
        raise WrongAnswer(f"{model.name}: expected an answer of this model")
    if not isinstance(answer.get("version"), str):
        raise WrongAnswer(f"{model.name}: expected a version")
    return answer


def _probabilities(model: Model, prediction: Any) -> dict[str, float]:
    """Label -> probability, likeliest first; raises WrongAnswer if it is not well formed."""
    try:
        top = [
            (score["label"], score["probability"], score["index"]) for score in prediction["top"]
        ]
        first = (prediction["label"], prediction["probability"], prediction["index"])
        well_formed = (
            len(top) == min(TOP_K, len(model.labels))
            and top[0] == first
            and all(model.labels[index] == label for label, _, index in top)
            and all(1 >= high[1] >= low[1] >= 0 for high, low in pairwise(top))
        )
    except (KeyError, IndexError, TypeError):
        well_formed = False
    if not well_formed:
        raise WrongAnswer(f"{model.name}: expected a label and the {TOP_K} likeliest, best first")
    return {label: probability for label, probability, _ in top}


def _opened(model: Model, body: bytes) -> Image.Image:
    try:
        with Image.open(BytesIO(body), formats=["PNG"]) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError):
        raise WrongAnswer(f"{model.name}: expected a PNG") from None
