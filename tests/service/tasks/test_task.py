"""What every kind of model has, whichever it is."""

from typing import Any

import numpy as np
import pytest

from service.artifacts.manifest import parse_manifest
from service.errors import BadInput, TooLarge, UnsupportedImage
from service.settings import Settings
from service.tasks import TASKS
from service.tasks.piecewise import PiecewiseTask
from service.tasks.task import JSON, Answer, ImageTask, Options, Task
from tests.drawing import encode, gradient
from tests.service.artifacts.test_manifest import CLASSIFIER, DENOISER

FIELDS = {"classification": CLASSIFIER, "denoising": DENOISER}

LIMITS = Settings(workers=1)

every_task = pytest.mark.parametrize("name", TASKS)


def task(name: str) -> Task[Any, Any]:
    return TASKS[name](parse_manifest(FIELDS[name], TASKS))


@every_task
def test_task_is_known_by_its_own_name(name: str) -> None:
    assert TASKS[name].name == name
    assert TASKS[name].spec_type.model_fields["type"].default == name


@every_task
def test_unknown_parameter_is_named_beside_the_known(name: str) -> None:
    known = ", ".join(TASKS[name].options_type.model_fields)
    expected = f"expected one of {known}" if known else f"{name} takes none"
    with pytest.raises(BadInput) as caught:
        task(name).parse_options({"topk": "3"})
    assert str(caught.value) == f"unknown parameter 'topk'; {expected}"


@every_task
def test_options_without_parameters_are_the_defaults(name: str) -> None:
    made = task(name)
    assert made.parse_options({}) is made.default_options
    assert isinstance(made.default_options, Options)


@every_task
def test_image_is_checked_before_it_is_unpacked(name: str) -> None:
    settings = Settings(workers=1, max_image_bytes=1000, max_image_pixels=480)
    made = task(name)
    assert made.open(encode(gradient(), "PNG"), settings).size == (24, 20)
    with pytest.raises(TooLarge, match="at most 1000 bytes"):
        made.open(bytes(1001), settings)
    with pytest.raises(TooLarge, match="at most 480 pixels"):
        made.decode(encode(gradient(25, 20), "PNG"), settings)
    with pytest.raises(UnsupportedImage, match="of another type"):
        made.decode(b"no image", settings)


@every_task
def test_blank_items_are_what_tensors_become(name: str) -> None:
    made = task(name)
    (tensor,) = made.manifest.inputs
    for item in made.blank_items():
        array = item if isinstance(item, np.ndarray) else item.colors.astype(np.float32)
        same = made.from_tensors({tensor: array}, LIMITS)
        assert type(same) is type(item)


@every_task
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_tensor_that_is_not_finite_is_refused(name: str, value: float) -> None:
    made = task(name)
    (tensor,) = made.manifest.inputs
    array = np.zeros((28, 28, 1), np.float32)
    array[3, 4, 0] = value
    with pytest.raises(BadInput, match=f"expected finite numbers in {tensor}, got NaN or infinity"):
        made.from_tensors({tensor: array}, LIMITS)


@every_task
def test_tasks_that_are_batched_have_items_of_one_shape(name: str) -> None:
    assert TASKS[name].batches is issubclass(TASKS[name], ImageTask)
    assert TASKS[name].batches is not issubclass(TASKS[name], PiecewiseTask)


def test_task_that_schema_1_did_not_know_says_so() -> None:
    class Regression(ImageTask):
        name = "regression"

    with pytest.raises(ValueError, match="a manifest of schema 1 has no task regression"):
        Regression.from_schema_1({})


def test_answer_that_is_an_image_is_opened() -> None:
    answer = Answer(encode(gradient(), "PNG"), "image/png")
    assert answer.image().size == (24, 20)
    assert Answer({"label": "bag"}).media_type == JSON
