"""The interface of a task: everything that depends on the kind of model is in its class."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from PIL import Image

from service.artifacts.manifest import Manifest, TaskSpec
from service.engines.engine import Tensors
from service.errors import BadInput
from service.part import Part
from service.pixels.decode import decode, open_image
from service.pixels.preprocess import Floats

JSON = "application/json"

Item = TypeVar("Item")
Output = TypeVar("Output")
Run = Callable[[Tensors], Mapping[str, Floats]]
"""The engine's `predict`."""
ReadImage = Callable[[str], Image.Image]
"""Opens one of the artifact's own images."""


class ImageLimits(Protocol):
    """Limits on images; the service's settings have them."""

    @property
    def max_image_bytes(self) -> int:
        """Of an encoded image."""
        ...

    @property
    def max_image_pixels(self) -> int:
        """Width times height."""
        ...

    @property
    def max_denoise_pixels(self) -> int:
        """Of an image that is computed at its own size."""
        ...


class Answer(NamedTuple):
    """What a caller gets for one item: an object for JSON, or the bytes of a media type."""

    content: Mapping[str, object] | bytes
    media_type: str = JSON
    labels: tuple[str, ...] = ()
    """Counted in vitrine_predictions_total."""

    def image(self) -> Image.Image:
        """The answer as an image, where it is one."""
        assert isinstance(self.content, bytes)
        return Image.open(BytesIO(self.content))


class Options(Part):
    """What a caller may ask for; fields are parameters, and their defaults are the API's."""


class Task(ABC, Generic[Item, Output]):
    """One kind of model. An instance belongs to one model and knows its manifest.

    To add one, write a subclass in its own file and add it to TASKS.
    """

    name: ClassVar[str]
    """Its name in manifests, metrics and documents."""
    verb: ClassVar[str | None] = None
    """The path of its form route, as in POST /classify; None for none."""
    summary: ClassVar[str]
    """What the form route does, for the API document."""
    default_model: ClassVar[str | None] = None
    """The model that answers where none is named and several could."""
    media_type: ClassVar[str] = JSON
    batches: ClassVar[bool] = True
    """Whether items have one shape, so that the engine takes several at once."""
    spec_type: ClassVar[type[TaskSpec]]
    """Its part of the manifest."""
    expected_type: ClassVar[type[Part]]
    """The recorded answer to the sample."""
    options_type: ClassVar[type[Options]] = Options
    answer_type: ClassVar[Any] = bytes
    """The TypedDict of a JSON answer."""
    example: ClassVar[Mapping[str, object] | None] = None
    """A JSON answer, for the API document."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.default_options = self.options_type()

    @property
    def labels(self) -> tuple[str, ...]:
        """The names that answers may give, for the metrics."""
        return ()

    @classmethod
    @abstractmethod
    def check(cls, manifest: Manifest) -> None:
        """Raise ValueError where the manifest's parts contradict each other."""

    @classmethod
    def from_schema_1(cls, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """The fields `task`, `inputs` and `outputs` of a manifest of schema 1.

        Raises ValueError where that schema did not know the task.
        """
        raise ValueError(f"a manifest of schema 1 has no task {cls.name}")

    def open(self, data: bytes, limits: ImageLimits) -> Image.Image:
        """Read an image's header and check its type and size; raises RequestError."""
        return open_image(data, limits.max_image_bytes, limits.max_image_pixels)

    @abstractmethod
    def from_image(self, image: Image.Image, limits: ImageLimits) -> Item:
        """An opened image -> an item; raises RequestError."""

    @abstractmethod
    def item_bytes(self, image: Image.Image) -> int:
        """The most bytes that the item of an opened image takes until it is answered."""

    @abstractmethod
    def from_tensors(self, tensors: Tensors, limits: ImageLimits) -> Item:
        """The network's inputs for one item, as the manifest names them; raises RequestError."""

    def decode(self, data: bytes, limits: ImageLimits) -> Item:
        """Encoded image -> an item; raises RequestError."""
        return self.from_image(self.open(data, limits), limits)

    @abstractmethod
    def blank_items(self) -> Sequence[Item]:
        """Items to compute before the model is ready: one, or some of different sizes."""

    @abstractmethod
    def compute(self, items: Sequence[Item], run: Run) -> Sequence[Output]:
        """One output for each item, in the same order."""

    @abstractmethod
    def encode(self, output: Output, item: Item, options: Any) -> Answer:
        """What the caller gets."""

    @abstractmethod
    def check_sample(self, output: Output, expected: Any, read: ReadImage) -> None:
        """Raise ValueError where the output for the sample is not the recorded answer."""

    def parse_options(self, parameters: Mapping[str, str]) -> Options:
        """Options from text; raises BadInput for one that is unknown or unusable."""
        if not parameters:
            return self.default_options
        unknown = [name for name in parameters if name not in self.options_type.model_fields]
        if unknown:
            known = ", ".join(self.options_type.model_fields)
            expected = f"expected one of {known}" if known else f"{self.name} takes none"
            raise BadInput(f"unknown parameter {unknown[0]!r:.80}; {expected}")
        return self.options_type.model_validate(dict(parameters))


class ImageTask(Task[Floats, dict[str, Floats]]):
    """A task whose item is one preprocessed image, and whose output is a row of each output."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        (self._input,) = manifest.inputs
        values = math.prod(side or 0 for side in manifest.input.shape)
        self._item_bytes = values * np.dtype(manifest.input.dtype).itemsize

    def from_image(self, image: Image.Image, limits: ImageLimits) -> Floats:
        """An opened image -> (height, width, channels)."""
        return decode(image, self.manifest.input)

    def item_bytes(self, image: Image.Image) -> int:
        """Of the network's input, whatever the image's size."""
        return self._item_bytes

    def from_tensors(self, tensors: Tensors, limits: ImageLimits) -> Floats:
        """The one input, (height, width, channels)."""
        name, spec = self._input, self.manifest.inputs[self._input]
        array = only_input(tensors, name)
        if array.dtype != np.float32 or array.shape != spec.shape:
            raise BadInput(
                f"expected {name} as {spec.dtype} of shape {spec.shape}, "
                f"got {array.dtype} of shape {array.shape}"
            )
        check_finite(name, array)
        return array

    def blank_items(self) -> Sequence[Floats]:
        """One of zeros."""
        return [np.zeros(self.manifest.input.shape, np.float32)]  # type: ignore[arg-type]

    def compute(self, items: Sequence[Floats], run: Run) -> Sequence[dict[str, Floats]]:
        """All items in one batch."""
        batch = np.stack(items) if len(items) > 1 else items[0][np.newaxis]
        outputs = run({self._input: batch})
        return [{key: rows[i] for key, rows in outputs.items()} for i in range(len(items))]


def only_input(tensors: Tensors, name: str) -> Floats:
    """The one tensor of this name; raises BadInput where it is missing or not alone."""
    array = tensors.get(name)
    if len(tensors) != 1 or array is None:
        raise BadInput(f"expected the input {name}, got {', '.join(tensors) or 'none'}")
    return array


def check_finite(name: str, array: Floats) -> None:
    """Raise BadInput for an input with NaN or infinity, which would look like a broken engine."""
    if not np.isfinite(array).all():
        raise BadInput(f"expected finite numbers in {name}, got NaN or infinity")


def whole_number_from_1(name: str) -> Callable[[object], int]:
    """A validator for a parameter in text; it raises BadInput for anything but 1, 2, …."""

    def validate(value: object) -> int:
        text = str(value)
        digits = text.lstrip("0")
        if not text.isascii() or not text.isdecimal() or not digits:
            raise BadInput(f"expected {name} as a whole number of at least 1, got {value!r:.80}")
        return int(digits[:9])  # more than any network has classes, however many digits follow

    return validate
