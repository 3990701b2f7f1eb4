import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.artifacts.manifest import parse_manifest
from service.errors import BadInput
from service.pixels.preprocess import Floats
from service.settings import Settings
from service.tasks import TASKS
from service.tasks.classification import (
    Classification,
    ClassificationOptions,
    ExpectedLabel,
    Prediction,
    sigmoid,
    softmax,
)
from service.tasks.task import JSON, Answer
from tests.drawing import encode, gradient
from tests.service.artifacts.test_manifest import CLASSIFIER

LABELS = ("bag", "coat", "dress", "shirt")
SETTINGS = Settings(workers=1)
BLANK = np.zeros((4, 4, 1), np.float32)


def fields(
    labels: tuple[str, ...] = LABELS, meaning: str = "probabilities", **task: Any
) -> dict[str, Any]:
    """The fields of a manifest for 4x4 grey images, whose one output is called `scores`."""
    pixels = {"shape": [4, 4, 1], "dtype": "float32", "meaning": "pixels"}
    return deepcopy(CLASSIFIER) | {
        "task": {"type": "classification", "labels": labels, **task},
        "input": {"shape": [4, 4, 1], "color": "grey", "resize": {"method": "cover"}},
        "inputs": {"image": pixels},
        "outputs": {"scores": {"shape": [len(labels)], "meaning": meaning}},
        "sample": {
            "file": "sample.png",
            "expected": {"label": labels[-1], "index": len(labels) - 1, "probability": 0.9},
        },
    }


def classifier(
    labels: tuple[str, ...] = LABELS, meaning: str = "probabilities", **task: Any
) -> Classification:
    return Classification(parse_manifest(fields(labels, meaning, **task), TASKS))


def scores(*values: float) -> dict[str, Floats]:
    """A row of the network's output."""
    return {"scores": np.array(values, dtype=np.float32)}


def probabilities(prediction: Prediction) -> dict[str, float]:
    return {score["label"]: score["probability"] for score in prediction["top"]}


def test_likeliest_classes_come_best_first() -> None:
    prediction = classifier().predict(scores(0.1, 0.2, 0.6, 0.1), 2)
    assert prediction["top"] == [
        {"label": "dress", "index": 2, "probability": 0.6},
        {"label": "coat", "index": 1, "probability": 0.2},
    ]


def test_prediction_repeats_the_first_of_its_top() -> None:
    prediction = classifier().predict(scores(0.1, 0.7, 0.1, 0.1), 3)
    best = prediction["top"][0]
    assert prediction == {**best, "top": prediction["top"]}
    assert best == {"label": "coat", "index": 1, "probability": 0.7}


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (3, 3), (4, 4), (5, 4), (999_999_999, 4)])
def test_top_has_as_many_as_asked_for_and_there_are(top_k: int, count: int) -> None:
    assert len(classifier().predict(scores(0.4, 0.3, 0.2, 0.1), top_k)["top"]) == count


def test_ties_keep_the_order_of_the_labels() -> None:
    labels = tuple(str(number) for number in range(100))
    prediction = classifier(labels).predict(scores(*[0.25, 0.75] * 50), 100)
    order = [score["index"] for score in prediction["top"]]
    assert order == [*range(1, 100, 2), *range(0, 100, 2)]


def test_probability_is_a_plain_number_of_six_digits() -> None:
    probability = classifier().predict(scores(1 / 3, 0, 0, 0), 1)["probability"]
    assert type(probability) is float
    assert probability == 0.333333


def test_answer_is_an_object_and_counts_the_best_label() -> None:
    task = classifier()
    output = scores(0.1, 0.7, 0.2, 0.0)
    answer = task.encode(output, BLANK, ClassificationOptions(top_k=2))
    assert answer == Answer(dict(task.predict(output, 2)), JSON, ("coat",))
    assert json.loads(json.dumps(answer.content)) == answer.content


def test_logits_become_probabilities_by_softmax() -> None:
    prediction = classifier(meaning="logits").predict(scores(0.0, np.log(2), np.log(4), 0.0), 4)
    expected = {"bag": 0.125, "coat": 0.25, "dress": 0.5, "shirt": 0.125}
    assert probabilities(prediction) == pytest.approx(expected, abs=1e-6)
    assert "labels" not in prediction


def test_logits_of_several_labels_become_probabilities_by_sigmoid() -> None:
    task = classifier(meaning="logits", multi_label=True)
    prediction = task.predict(scores(0.0, np.log(3), -np.log(3), -50.0), 4)
    expected = {"bag": 0.5, "coat": 0.75, "dress": 0.25, "shirt": 0.0}
    assert probabilities(prediction) == pytest.approx(expected, abs=1e-6)
    assert prediction["labels"] == ["bag", "coat"]  # at the threshold is enough


def test_probabilities_of_several_labels_stay_as_they_are() -> None:
    task = classifier(multi_label=True)
    prediction = task.predict(scores(0.9, 0.1, 0.8, 0.2), 1)
    assert prediction["labels"] == ["bag", "dress"]  # all of them, whatever top_k says
    assert prediction["top"] == [{"label": "bag", "index": 0, "probability": 0.9}]


@pytest.mark.parametrize(
    ("threshold", "labels"),
    [(0.0, list(LABELS)), (0.15, ["bag", "dress", "shirt"]), (0.85, ["bag"]), (1.0, [])],
)
def test_threshold_of_several_labels_is_the_manifests(threshold: float, labels: list[str]) -> None:
    task = classifier(multi_label=True, threshold=threshold)
    prediction = task.predict(scores(0.9, 0.1, 0.8, 0.2), 1)
    assert prediction["labels"] == labels


@pytest.mark.parametrize("values", [(0.9, 0.1, 0.8, 0.2), (0.1, 0.1, 0.1, 0.1)])
def test_all_labels_that_an_image_has_are_counted(values: tuple[float, ...]) -> None:
    task = classifier(multi_label=True)
    answer = task.encode(scores(*values), BLANK, ClassificationOptions())
    assert isinstance(answer.content, Mapping)
    assert list(answer.labels) == answer.content["labels"]


@pytest.mark.parametrize("shift", [-1e4, 0.0, 1e4])
def test_softmax_does_not_overflow(shift: float) -> None:
    came = softmax(np.array([shift, shift, shift + 1], dtype=np.float32))
    assert came.dtype == np.float32
    np.testing.assert_allclose(came, [0.2119416, 0.2119416, 0.5761169], rtol=1e-5)


def test_sigmoid_does_not_overflow() -> None:
    came = sigmoid(np.array([-1e9, -2.0, 0.0, 2.0, 1e9], dtype=np.float32))
    assert came.dtype == np.float32
    np.testing.assert_allclose(came, [0, 0.1192029, 0.5, 0.8807971, 1], rtol=1e-5)


def test_output_of_another_meaning_does_not_matter() -> None:
    both = fields()
    both["outputs"] = {"embedding": {"shape": [7], "meaning": "embedding"}} | both["outputs"]
    task = Classification(parse_manifest(both, TASKS))
    output = scores(0.1, 0.7, 0.1, 0.1) | {"embedding": np.ones(7, np.float32)}
    assert task.predict(output, 1)["label"] == "coat"


def test_image_becomes_the_networks_input() -> None:
    task = classifier()
    item = task.from_image(gradient(), SETTINGS)
    assert item.shape == (4, 4, 1)
    assert item.dtype == np.float32
    np.testing.assert_array_equal(task.decode(encode(gradient(), "PNG"), SETTINGS), item)


def test_tensor_becomes_the_networks_input() -> None:
    array = np.random.default_rng(1).random((4, 4, 1), dtype=np.float32)
    assert classifier().from_tensors({"image": array}, SETTINGS) is array


@pytest.mark.parametrize(
    ("names", "came"), [([], "none"), (["photo"], "photo"), (["image", "mask"], "image, mask")]
)
def test_other_tensors_than_the_networks_are_named(names: list[str], came: str) -> None:
    array = np.zeros((4, 4, 1), np.float32)
    with pytest.raises(BadInput, match=f"expected the input image, got {came}$"):
        classifier().from_tensors(dict.fromkeys(names, array), SETTINGS)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((4, 4, 3), "float32"),
        ((1, 4, 4, 1), "float32"),
        ((4, 4), "float32"),
        ((16,), "float32"),
        ((4, 4, 1), "float64"),
        ((4, 4, 1), "uint8"),
    ],
)
def test_tensor_of_another_shape_or_type_is_refused(shape: tuple[int, ...], dtype: str) -> None:
    array: Any = np.zeros(shape, dtype)
    with pytest.raises(BadInput) as caught:
        classifier().from_tensors({"image": array}, SETTINGS)
    assert str(caught.value) == (
        f"expected image as float32 of shape (4, 4, 1), got {dtype} of shape {shape}"
    )


def test_items_are_computed_as_one_batch() -> None:
    batches: list[tuple[int, ...]] = []

    def run(batch: Mapping[str, Floats]) -> dict[str, Floats]:
        batches.append(batch["image"].shape)
        return {"scores": np.tile(batch["image"].mean(axis=(1, 2)), 4)}

    task = classifier()
    items = [np.full((4, 4, 1), level, np.float32) for level in (0.1, 0.2, 0.3)]
    outputs = task.compute(items, run)
    assert [round(float(each["scores"][0]), 6) for each in outputs] == [0.1, 0.2, 0.3]
    task.compute(items[:1], run)
    task.compute(task.blank_items(), run)
    assert batches == [(3, 4, 4, 1), (1, 4, 4, 1), (1, 4, 4, 1)]


def check(expected: dict[str, Any], *values: float) -> None:
    classifier().check_sample(scores(*values), ExpectedLabel(**expected), no_file)


def no_file(_: str) -> Image.Image:
    raise AssertionError("a label is in no file")


SHIRT = {"label": "shirt", "index": 3, "probability": 0.5, "tolerance": 0.1}


@pytest.mark.parametrize(
    "values",
    [
        (0.1, 0.1, 0.3, 0.5),
        (0.1, 0.1, 0.39, 0.41),
        (0.0, 0.0, 0.41, 0.59),
        (0.0, 0.0, 0.53, 0.47),  # as likely, as far as the tolerance goes
    ],
)
def test_sample_is_answered_as_recorded(values: tuple[float, ...]) -> None:
    check(SHIRT, *values)


@pytest.mark.parametrize(
    "values",
    [
        (0.1, 0.1, 0.41, 0.39),
        (0.0, 0.0, 0.39, 0.61),
        (0.0, 0.0, 0.56, 0.44),
        (0.9, 0.0, 0.1, 0.0),
        (np.nan, np.nan, np.nan, np.nan),
    ],
)
def test_sample_that_is_not_answered_as_recorded_is_told(values: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected 'shirt' with probability 0\.5 .* got '"):
        check(SHIRT, *values)


def test_sample_of_logits_is_compared_as_a_probability() -> None:
    task = classifier(meaning="logits")
    expected = ExpectedLabel(label="shirt", index=3, probability=0.4, tolerance=0.01)
    task.check_sample(scores(0.0, 0.0, 0.0, np.log(2)), expected, no_file)
    with pytest.raises(ValueError, match=r"got 'shirt' with 0\.5"):
        task.check_sample(scores(0.0, 0.0, 0.0, np.log(3)), expected, no_file)


def test_output_of_another_shape_is_told() -> None:
    with pytest.raises(ValueError, match=r"expected scores of shape \(4,\), got \(2,\)"):
        check(SHIRT, 0.5, 0.5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"outputs": {"scores": {"shape": [3], "meaning": "probabilities"}}},
            r"expected one output of probabilities or logits for each of 4 labels, got \[\(3,\)\]",
        ),
        (
            {"outputs": {"scores": {"shape": [4], "meaning": "pixels"}}},
            r"for each of 4 labels, got \[\]",
        ),
        (
            {
                "outputs": {
                    "scores": {"shape": [4], "meaning": "probabilities"},
                    "raw": {"shape": [4], "meaning": "logits"},
                }
            },
            r"for each of 4 labels, got \[\(4,\), \(4,\)\]",
        ),
        (
            {"inputs": {"image": {"shape": [8, 8, 1], "meaning": "pixels"}}},
            r"expected one tensor of input of the shape \(4, 4, 1\), got \[\(8, 8, 1\)\]",
        ),
        (
            {"input": {"shape": [None, None, 1], "color": "grey", "resize": {"method": "keep"}}},
            "expected a fixed size of input, and labels that differ",
        ),
        (
            {"task": {"type": "classification", "labels": ["a", "b", "a", "shirt"]}},
            "expected a fixed size of input, and labels that differ",
        ),
        (
            {
                "sample": {
                    "file": "sample.png",
                    "expected": {"label": "bag", "index": 3, "probability": 1.0},
                }
            },
            "expected the sample's label 'bag' at index 3, got the labels",
        ),
    ],
)
def test_parts_that_contradict_each_other_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_manifest(fields() | changes, TASKS)


@pytest.mark.parametrize(
    ("text", "top_k"), [("1", 1), ("05", 5), ("10", 10), ("9" * 50, 10**9 - 1)]
)
def test_top_k_is_read_from_text(text: str, top_k: int) -> None:
    options = classifier().parse_options({"top_k": text})
    assert options == ClassificationOptions(top_k=top_k)


@pytest.mark.parametrize("text", ["0", "000", "-1", "1.5", "", "three", "1e3", " 1", "٣", "1\n"])
def test_unusable_top_k_is_named_and_shown(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        classifier().parse_options({"top_k": text})
    assert str(caught.value) == f"expected top_k as a whole number of at least 1, got {text!r}"


def test_three_classes_are_returned_by_default() -> None:
    assert classifier().parse_options({}) == ClassificationOptions(top_k=3)
    assert classifier().default_options == ClassificationOptions()


def test_labels_are_the_manifests() -> None:
    assert classifier().labels == LABELS
