"""Classification: one image -> labels with probabilities."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NotRequired

import numpy as np
from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from service.artifacts.manifest import Label, Manifest, TaskSpec
from service.part import Part
from service.pixels.preprocess import Floats
from service.tasks.task import (
    Answer,
    ImageTask,
    Options,
    ReadImage,
    whole_number_from_1,
)

# The objective for larger networks is a second, for all others a quarter of a second.
_LARGE_PARAMETERS = 5_000_000


class ClassificationSpec(TaskSpec):
    """The labels, in the order of the network's output."""

    type: Literal["classification"] = "classification"
    labels: tuple[Label, ...] = Field(min_length=1)
    multi_label: bool = False
    """Whether an image may have several labels: then each probability stands for itself."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """With several labels, the probability from which an image has one."""


class ExpectedLabel(Part):
    """The likeliest label of the sample."""

    label: str
    index: int = Field(ge=0)
    probability: float = Field(ge=0, le=1)
    tolerance: float = Field(default=0.02, ge=0, le=1)


class ClassificationOptions(Options):
    """How much of the answer is wanted."""

    top_k: Annotated[
        int,
        Field(ge=1, description="How many of the likeliest classes to return, at most all"),
        BeforeValidator(whole_number_from_1("top_k")),
    ] = 3


class Score(TypedDict):
    """One class and its probability."""

    label: str
    index: int
    probability: float


class Prediction(Score):
    """The likeliest class, and the `top_k` likeliest, best first."""

    top: list[Score]
    labels: NotRequired[
        Annotated[
            list[str], Field(description="Only of a network for several labels: all that there are")
        ]
    ]


class Classification(ImageTask):
    """Names what an image shows."""

    name = "classification"
    verb = "classify"
    summary = "Name what an image shows."
    default_model = "fashion-mnist"
    spec_type = ClassificationSpec
    expected_type = ExpectedLabel
    options_type: ClassVar[type[Options]] = ClassificationOptions
    answer_type = Prediction
    example: ClassVar[Mapping[str, object]] = {
        "label": "Trouser",
        "index": 1,
        "probability": 0.91,
        "top": [
            {"label": "Trouser", "index": 1, "probability": 0.91},
            {"label": "Pullover", "index": 2, "probability": 0.01},
        ],
    }

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        assert isinstance(manifest.task, ClassificationSpec)
        self.spec = manifest.task
        (self._output,) = (
            name for name, tensor in manifest.outputs.items() if tensor.meaning in _MEANINGS
        )
        self._activate = _activation(manifest.outputs[self._output].meaning, self.spec.multi_label)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the network's output."""
        return self.spec.labels

    @classmethod
    def check(cls, manifest: Manifest) -> None:
        """Raise ValueError where labels, output, input and sample do not fit together."""
        spec, expected = manifest.task, manifest.sample.expected
        assert isinstance(spec, ClassificationSpec)
        assert isinstance(expected, ExpectedLabel)
        if None in manifest.input.shape or len(set(spec.labels)) < len(spec.labels):
            raise ValueError("expected a fixed size of input, and labels that differ")
        shapes = [tensor.shape for tensor in manifest.inputs.values()]
        if shapes != [manifest.input.shape]:
            raise ValueError(
                f"expected one tensor of input of the shape {manifest.input.shape}, got {shapes}"
            )
        scores = [each.shape for each in manifest.outputs.values() if each.meaning in _MEANINGS]
        if scores != [(len(spec.labels),)]:
            raise ValueError(
                f"expected one output of {' or '.join(_MEANINGS)} for each of {len(spec.labels)} "
                f"labels, got {scores}"
            )
        if expected.label not in spec.labels[expected.index : expected.index + 1]:
            raise ValueError(
                f"expected the sample's label {expected.label!r} at index {expected.index}, "
                f"got the labels {spec.labels}"
            )

    @classmethod
    def from_schema_1(cls, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """The labels as the task's, the one input and the one output by name."""
        shape, output = manifest["input"]["shape"], manifest["output"]
        is_large = manifest["parameters"] > _LARGE_PARAMETERS
        return {
            "task": {"type": cls.name, "labels": manifest["labels"]},
            "inputs": {"image": {"shape": shape, "dtype": "float32", "meaning": "pixels"}},
            "outputs": {"probabilities": output},
            "latency_objective_s": 1.0 if is_large else 0.25,
        }

    def encode(
        self, output: Mapping[str, Floats], item: Floats, options: ClassificationOptions
    ) -> Answer:
        """The `top_k` likeliest classes, at most all, best first."""
        prediction = self.predict(output, options.top_k)
        if self.spec.multi_label:
            return Answer(prediction, labels=tuple(prediction["labels"]))
        return Answer(prediction, labels=(prediction["label"],))

    def predict(self, output: Mapping[str, Floats], top_k: int) -> Prediction:
        """A row of the network's output -> the likeliest classes."""
        probabilities = self._activate(output[self._output])
        labels = self.spec.labels
        order = (-probabilities).argsort(kind="stable")[:top_k]
        top: list[Score] = [
            {"label": labels[index], "index": index, "probability": round(probability, 6)}
            for index, probability in zip(
                order.tolist(), probabilities[order].tolist(), strict=True
            )
        ]
        prediction: Prediction = {**top[0], "top": top}  # type: ignore[typeddict-item]  # `labels`
        if self.spec.multi_label:
            above = np.flatnonzero(probabilities >= self.spec.threshold)
            prediction["labels"] = [labels[index] for index in above]
        return prediction

    def check_sample(
        self, output: Mapping[str, Floats], expected: ExpectedLabel, read: ReadImage
    ) -> None:
        """Raise ValueError unless the label's probability is as recorded, and none clearly higher.

        Two labels that are equally likely may change places from one processor to another.
        """
        scores = output[self._output]
        if scores.shape != self.manifest.outputs[self._output].shape:
            raise ValueError(
                f"expected {self._output} of shape "
                f"{self.manifest.outputs[self._output].shape}, got {scores.shape}"
            )
        best = self.predict(output, 1)
        there = float(self._activate(scores)[expected.index])
        close = abs(there - expected.probability) <= expected.tolerance
        if best["probability"] - there > expected.tolerance or not close:
            raise ValueError(
                f"expected {expected.label!r} with probability {expected.probability} "
                f"(within {expected.tolerance}), got {best['label']!r} with {best['probability']}"
            )


_MEANINGS = ("probabilities", "logits")


def _activation(meaning: str, multi_label: bool) -> Any:
    """The function from the network's output (classes,) to probabilities (classes,)."""
    if meaning == "probabilities":
        return lambda probabilities: probabilities
    return sigmoid if multi_label else softmax


def softmax(logits: Floats) -> Floats:
    """Logits (classes,) -> probabilities that sum to 1."""
    powers = np.exp(logits - logits.max())
    probabilities: Floats = powers / powers.sum()
    return probabilities


def sigmoid(logits: Floats) -> Floats:
    """Logits (classes,) -> probabilities, each for itself; no logit overflows."""
    probabilities: Floats = (0.5 * (1 + np.tanh(0.5 * logits))).astype(np.float32)
    return probabilities
