"""The kinds of model: how each is asked and how its answer is checked; one class each.

TASKS is the table of all. Nobody else asks which kind a model is.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

from PIL import Image, ImageChops, UnidentifiedImageError

from tests.load.pictures import Picture, drawing, photo

JSON = "application/json"
PNG = "image/png"
TOP_K = 3
# How far two answers to one image may lie apart: a batch of another size sums in another order.
SAME_PROBABILITY = 1e-3
SAME_LEVELS = 2  # of 0 to 255

Answer = TypeVar("Answer")


class WrongAnswer(Exception):
    """The right status and something else wrong; texts are few, so that a report can count them."""


@dataclass(frozen=True)
class Cost:
    """What an image costs, of networks with at least some number of parameters."""

    name: str
    max_p99_ms: float
    """The objective."""
    weight: float
    """In the default mix: cheap models are asked more often."""
    min_parameters: int = 0


class Task(ABC, Generic[Answer]):
    """One kind of model. An instance belongs to one model and knows its manifest."""

    name: ClassVar[str]
    """`task.type` in manifests."""
    form_route: ClassVar[str]
    form_fields: ClassVar[Mapping[str, str]] = {}
    """Sent in a form beside the image and the model."""
    media_type: ClassVar[str]
    """Of an answer."""
    max_images: ClassVar[int]
    """In one form to :predict."""
    costs: ClassVar[tuple[Cost, ...]]
    """From few parameters to many."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        self.model: str = manifest["name"]
        parameters = manifest["parameters"]
        self.cost = [cost for cost in self.costs if parameters >= cost.min_parameters][-1]

    @staticmethod
    @abstractmethod
    def drawings() -> list[Picture]:
        """What is sent beside the model's sample."""

    @abstractmethod
    def recorded(self, expected: Mapping[str, Any], folder: Path) -> Answer:
        """The manifest's answer to the sample."""

    @abstractmethod
    def parse_form(self, body: bytes) -> Answer:
        """The answer of the form route; raises WrongAnswer if it is not well formed."""

    @abstractmethod
    def parse_predictions(self, body: bytes, count: int) -> Sequence[Answer]:
        """The answers of :predict to `count` images, in order; raises WrongAnswer."""

    @abstractmethod
    def check(self, picture: Picture, came: Answer, known: Answer | None) -> None:
        """Raise WrongAnswer where an answer does not fit the picture, or the known answer to it."""


@dataclass(frozen=True)
class Scores:
    """Label -> probability, likeliest first, and how far a probability may lie from these."""

    probabilities: Mapping[str, float]
    tolerance: float = SAME_PROBABILITY


class Classification(Task[Scores]):
    """Answers with the likeliest labels."""

    name = "classification"
    form_route = "/classify"
    form_fields: ClassVar[Mapping[str, str]] = {"top_k": str(TOP_K)}
    media_type = JSON
    max_images = 6
    costs = (
        Cost("small", max_p99_ms=250, weight=8),
        Cost("large", max_p99_ms=1000, weight=1, min_parameters=1_000_000),  # as VGG16 is
    )

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        super().__init__(manifest)
        self.labels: tuple[str, ...] = tuple(manifest["task"]["labels"])

    @staticmethod
    def drawings() -> list[Picture]:
        """A small one, and one of a photo's size."""
        return [drawing(), photo()]

    def recorded(self, expected: Mapping[str, Any], folder: Path) -> Scores:
        """The likeliest label."""
        return Scores({expected["label"]: expected["probability"]}, expected["tolerance"])

    def parse_form(self, body: bytes) -> Scores:
        """The answer of /classify."""
        return self._scores(self._identified(body))

    def parse_predictions(self, body: bytes, count: int) -> Sequence[Scores]:
        """One prediction for each image."""
        predictions = self._identified(body).get("predictions")
        if not isinstance(predictions, list) or len(predictions) != count:
            raise WrongAnswer(f"{self.model}: expected {count} predictions")
        return [self._scores(prediction) for prediction in predictions]

    def check(self, picture: Picture, came: Scores, known: Scores | None) -> None:
        """The known label's probability, and no other label that is clearly likelier."""
        if known is None:
            return
        label, probability = next(iter(known.probabilities.items()))
        there = came.probabilities.get(label, 0.0)
        # Labels that are as likely may change places from one processor to another.
        changed = max(came.probabilities.values()) - there > known.tolerance
        if changed or abs(there - probability) > known.tolerance:
            best, best_probability = next(iter(came.probabilities.items()))
            raise WrongAnswer(
                f"{self.model}: expected {picture.name} as {label!r} "
                f"{probability:.2f}, got {best!r} {best_probability:.2f}"
            )

    def _identified(self, body: bytes) -> dict[str, Any]:
        """The JSON object of an answer; raises WrongAnswer if it is not this model's."""
        try:
            answer = json.loads(body)
        except ValueError:
            raise WrongAnswer(f"{self.model}: expected JSON") from None
        if not isinstance(answer, dict) or answer.get("model") != self.model:
            raise WrongAnswer(f"{self.model}: expected an answer of this model")
        if not isinstance(answer.get("version"), str):
            raise WrongAnswer(f"{self.model}: expected a version")
        return answer

    def _scores(self, prediction: Any) -> Scores:
        try:
            top = [
                (each["label"], each["probability"], each["index"]) for each in prediction["top"]
            ]
            first = (prediction["label"], prediction["probability"], prediction["index"])
            well_formed = (
                len(top) == min(TOP_K, len(self.labels))
                and top[0] == first
                and all(self.labels[index] == label for label, _, index in top)
                and all(1 >= high[1] >= low[1] >= 0 for high, low in pairwise(top))
            )
        except (KeyError, IndexError, TypeError):
            well_formed = False
        if not well_formed:
            raise WrongAnswer(
                f"{self.model}: expected a label and the {TOP_K} likeliest, best first"
            )
        return Scores({label: probability for label, probability, _ in top})


@dataclass(frozen=True)
class Png:
    """An encoded image, and how many levels of 0 to 255 a pixel may lie from it."""

    data: bytes
    tolerance: int = SAME_LEVELS


class Denoising(Task[Png]):
    """Answers with an image of the same size."""

    name = "denoising"
    form_route = "/denoise"
    media_type = PNG
    max_images = 1
    costs = (Cost("denoising", max_p99_ms=1000, weight=2),)  # of small images

    @staticmethod
    def drawings() -> list[Picture]:
        """A small one: to denoise a photo takes hundreds of times what a small image takes."""
        return [drawing()]

    def recorded(self, expected: Mapping[str, Any], folder: Path) -> Png:
        """The denoised sample."""
        return Png((folder / expected["file"]).read_bytes(), expected["tolerance"])

    def parse_form(self, body: bytes) -> Png:
        """The answer of /denoise, which `check` opens."""
        return Png(body)

    def parse_predictions(self, body: bytes, count: int) -> Sequence[Png]:
        """The one image."""
        return [Png(body)]

    def check(self, picture: Picture, came: Png, known: Png | None) -> None:
        """A PNG of the picture's size, every pixel within the tolerance of the known one's."""
        if known is not None and known.data == came.data:
            return
        image = self._opened(came)
        if image.size != picture.size:
            raise WrongAnswer(f"{self.model}: expected {picture.size} pixels, got {image.size}")
        if known is None:
            return
        difference = ImageChops.difference(image, self._opened(known))
        off = max(high for _, high in cast("Iterable[tuple[int, int]]", difference.getextrema()))
        if off > known.tolerance:
            raise WrongAnswer(
                f"{self.model}: expected {picture.name} within {known.tolerance} levels"
            )

    def _opened(self, png: Png) -> Image.Image:
        try:
            with Image.open(BytesIO(png.data), formats=["PNG"]) as image:
                return image.convert("RGB")
        except (UnidentifiedImageError, OSError):
            raise WrongAnswer(f"{self.model}: expected a PNG") from None


TASKS: dict[str, type[Task[Any]]] = {task.name: task for task in (Classification, Denoising)}
COSTS = {cost.name: cost for task in TASKS.values() for cost in task.costs}
"""Of all tasks, by name."""
