"""A kind of model that the project does not have: one number with a unit from an image.

`VITRINE_PLUGINS=tests.extension.regression` adds it to the service.
"""

from collections.abc import Mapping
from typing import Any, Literal

from typing_extensions import TypedDict

from service.artifacts.manifest import Manifest, TaskSpec
from service.part import Part
from service.pixels.preprocess import Floats
from service.tasks import TASKS
from service.tasks.task import Answer, ImageTask, ReadImage


class RegressionSpec(TaskSpec):
    """What the number counts."""

    type: Literal["regression"] = "regression"
    unit: str


class ExpectedValue(Part):
    """The recorded number of the sample."""

    value: float
    tolerance: float


class Measurement(TypedDict):
    """A number and its unit."""

    value: float
    unit: str


class Regression(ImageTask):
    """Measures something in an image."""

    name = "regression"
    summary = "Measure what an image shows."
    spec_type = RegressionSpec
    expected_type = ExpectedValue
    answer_type = Measurement

    @classmethod
    def check(cls, manifest: Manifest) -> None:
        """Raise ValueError where the output is not one number."""
        shapes = [tensor.shape for tensor in manifest.outputs.values()]
        if shapes != [(1,)]:
            raise ValueError(f"expected one output of the shape (1,), got {shapes}")

    def encode(self, output: Mapping[str, Floats], item: Floats, options: Any) -> Answer:
        """The number and its unit."""
        assert isinstance(self.manifest.task, RegressionSpec)
        return Answer({"value": _value(output), "unit": self.manifest.task.unit})

    def check_sample(
        self, output: Mapping[str, Floats], expected: ExpectedValue, read: ReadImage
    ) -> None:
        """The number within the tolerance."""
        came = _value(output)
        if abs(came - expected.value) > expected.tolerance:
            raise ValueError(f"expected {expected.value} (±{expected.tolerance}), got {came}")


def _value(output: Mapping[str, Floats]) -> float:
    (row,) = output.values()
    return round(float(row[0]), 4)


TASKS[Regression.name] = Regression
