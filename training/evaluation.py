"""The numbers that a model is judged by, all on the test split."""

import numpy as np
from sklearn import metrics

from service.preprocess import Floats
from training.data import Labels
from training.errors import DataError


def classification_metrics(
    truth: Labels, probabilities: Floats, labels: tuple[str, ...]
) -> dict[str, float]:
    """Accuracy, and precision, recall, F1 and one-versus-rest ROC AUC: macro and by class.

    truth is (n,), probabilities (n, classes); raises DataError if a class has no test item.
    """
    predicted = probabilities.argmax(axis=1)
    classes = np.arange(len(labels))
    missing = [labels[k] for k in np.setdiff1d(classes, truth)]
    if missing:
        raise DataError(f"expected every class in the test split, got none of {missing}")
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        truth, predicted, labels=classes, zero_division=0.0
    )
    auc = np.array([metrics.roc_auc_score(truth == k, probabilities[:, k]) for k in classes])
    result = {
        "accuracy": float((predicted == truth).mean()),
        "test_count": float(len(truth)),
        "precision_macro": float(precision.mean()),
        "recall_macro": float(recall.mean()),
        "f1_macro": float(f1.mean()),
        "roc_auc_ovr_macro": float(auc.mean()),
    }
    by_class = {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "roc_auc": auc,
        "count": support,
    }
    for metric, values in by_class.items():
        for label, value in zip(labels, values, strict=True):
            result[f"{metric}/{label}"] = float(value)
    return result


def confusion(truth: Labels, probabilities: Floats) -> np.ndarray:
    """Counts (true class, predicted class)."""
    classes = np.arange(probabilities.shape[1])
    return metrics.confusion_matrix(truth, probabilities.argmax(axis=1), labels=classes)
