"""The numbers that a model is judged by, against numbers computed by hand."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="evaluation needs scikit-learn")
pytest.importorskip("tqdm", reason="training needs the train extra")

from training.errors import DataError
from training.evaluation import classification_metrics, confusion, mean_psnr, mean_ssim

LABELS = ("cat", "dog", "owl")
TRUTH = np.array([0, 0, 0, 1, 1, 2], dtype=np.int64)
# Predicted: cat, cat, dog, dog, cat, owl.
PROBABILITIES = np.array(
    [
        [0.7, 0.2, 0.1],
        [0.5, 0.3, 0.2],
        [0.3, 0.6, 0.1],
        [0.1, 0.8, 0.1],
        [0.6, 0.1, 0.3],
        [0.0, 0.1, 0.9],
    ],
    dtype=np.float32,
)
BY_HAND = {
    "accuracy": 4 / 6,
    "test_count": 6,
    # Of three called cat two are cats; of three cats two were found.
    "precision/cat": 2 / 3,
    "recall/cat": 2 / 3,
    "f1/cat": 2 / 3,
    "count/cat": 3,
    # Of two called dog one is a dog; of two dogs one was found.
    "precision/dog": 1 / 2,
    "recall/dog": 1 / 2,
    "f1/dog": 1 / 2,
    "count/dog": 2,
    "precision/owl": 1,
    "recall/owl": 1,
    "f1/owl": 1,
    "count/owl": 1,
    "precision_macro": (2 / 3 + 1 / 2 + 1) / 3,
    "recall_macro": (2 / 3 + 1 / 2 + 1) / 3,
    "f1_macro": (2 / 3 + 1 / 2 + 1) / 3,
    # Of the 9 pairs of a cat (.7 .5 .3) and another (.1 .6 0), 7 are in order.
    "roc_auc/cat": 7 / 9,
    # Of the 8 pairs of a dog (.8 .1) and another (.2 .3 .6 .1), 4 are in order and 1 is a tie.
    "roc_auc/dog": 4.5 / 8,
    "roc_auc/owl": 1,
    "roc_auc_ovr_macro": (7 / 9 + 4.5 / 8 + 1) / 3,
}


@pytest.fixture(scope="module")
def metrics() -> Any:
    return classification_metrics(TRUTH, PROBABILITIES, LABELS)


@pytest.mark.parametrize(("name", "value"), BY_HAND.items(), ids=BY_HAND.keys())
def test_metric_is_the_one_computed_by_hand(
    name: str, value: float, metrics: dict[str, float]
) -> None:
    assert metrics[name] == pytest.approx(value, abs=1e-12)


def test_metrics_are_these_and_no_others(metrics: dict[str, float]) -> None:
    assert metrics.keys() == BY_HAND.keys()
    assert {type(value) for value in metrics.values()} == {float}


def test_metrics_of_a_class_that_is_never_predicted_are_zero() -> None:
    probabilities = PROBABILITIES * [0, 1, 1]  # nothing is called cat any more
    never = classification_metrics(TRUTH, probabilities, LABELS)
    assert never["precision/cat"] == never["recall/cat"] == never["f1/cat"] == 0


def test_confusion_counts_true_classes_by_row() -> None:
    assert confusion(TRUTH, PROBABILITIES).tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_confusion_has_a_row_for_a_class_without_images() -> None:
    assert confusion(TRUTH[:5], PROBABILITIES[:5]).tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_class_without_a_test_item_is_refused() -> None:
    with pytest.raises(DataError, match=r"got none of \['owl'\]"):
        classification_metrics(TRUTH[:5], PROBABILITIES[:5], LABELS)


def test_psnr_is_the_one_computed_by_hand() -> None:
    clean = np.zeros((2, 4, 4, 1), dtype=np.float32)
    # An error of 0.1 everywhere is 20 dB, one of 0.01 is 40 dB; images count alike.
    off = clean + np.array([0.1, 0.01], dtype=np.float32).reshape(2, 1, 1, 1)
    assert mean_psnr(clean, off) == pytest.approx(30, abs=1e-4)


def test_ssim_of_an_image_with_itself_is_1_and_less_with_another() -> None:
    clean = np.random.default_rng(1).random((2, 16, 16, 1), dtype=np.float32)
    noisy = 1 - clean
    assert mean_ssim(clean, clean) == pytest.approx(1)
    assert mean_ssim(clean, noisy) < 0.95
