"""Classification: accuracy, agreement of labels, and tables by class."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from service.artifacts.manifest import Engine, Manifest, Tensor
from service.tasks.classification import sigmoid, softmax
from training.data import Labels
from training.errors import ExportError
from training.statistics import wilson_interval
from training.tasks.task import Outputs, TrainingTask

# What an engine may cost, against the float network on the validation split.
MAX_ACCURACY_LOSS = 0.005
MIN_LABEL_AGREEMENT = 0.99
MIN_FLOAT_AGREEMENT = 0.999  # between Keras and LiteRT in float32
# Rounding differs from processor to processor by up to this, in addition to the engines.
TOLERANCE = 0.02
FOLDED_CLASSES = 20  # a longer table is folded


class Classification(TrainingTask):
    """A network whose output has one number per label."""

    name = "classification"
    tag = "image-classification"
    columns = {"accuracy": ("accuracy", ".4f"), "label_agreement": ("same label", ".4f")}
    headline = {"accuracy": "accuracy", "f1": "f1_macro"}
    figures = (
        ("Loss and accuracy by epoch", "curves.png"),
        ("Confusion matrix", "confusion.png"),
    )

    def __init__(
        self,
        labels: tuple[str, ...],
        *,
        meaning: str = "probabilities",
        multi_label: bool = False,
    ) -> None:
        """`meaning` is `probabilities` or `logits`: what the network's last layer gives."""
        self.labels = labels
        self.meaning = meaning
        self.multi_label = multi_label

    def spec(self) -> dict[str, Any]:
        """The labels."""
        several = {"multi_label": True} if self.multi_label else {}
        return {"type": self.name, "labels": self.labels, **several}

    def outputs(self) -> dict[str, Tensor]:
        """One number per label."""
        return {self.meaning: Tensor(shape=(len(self.labels),), meaning=self.meaning)}

    def quality(self, came: Outputs, expected: Outputs, truth: Labels) -> dict[str, float]:
        """Accuracy, and the share of images that get the float network's label."""
        labels = came[self.meaning].argmax(axis=1)
        return {
            "label_agreement": float((labels == expected[self.meaning].argmax(axis=1)).mean()),
            "accuracy": float((labels == truth).mean()),
        }

    def is_right(self, quality: Mapping[str, float], float32: Mapping[str, float]) -> bool:
        """At most half a point of accuracy less, and the same label on 99 %."""
        loss = float32["accuracy"] - quality["accuracy"]
        return loss <= MAX_ACCURACY_LOSS and quality["label_agreement"] >= MIN_LABEL_AGREEMENT

    def check_conversion(self, lite: Engine) -> None:
        """Raise ExportError if outputs or labels of LiteRT in float32 differ from Keras's."""
        super().check_conversion(lite)
        agreement = lite.quality["label_agreement"]
        if agreement < MIN_FLOAT_AGREEMENT:
            raise ExportError(
                f"LiteRT gives the label of Keras to {agreement} of the validation images "
                f"(at least {MIN_FLOAT_AGREEMENT})"
            )

    def agree(self, came: Outputs, expected: Outputs) -> bool:
        """Whether the label is the same."""
        return bool(came[self.meaning][0].argmax() == expected[self.meaning][0].argmax())

    def expected(self, answers: Sequence[Outputs], folder: Path) -> dict[str, Any]:
        """The likeliest label, its probability, and by how much the served engines may differ."""
        rows = [self._probabilities(answer[self.meaning][0]) for answer in answers]
        index = int(rows[0].argmax())
        probabilities = [float(row[index]) for row in rows]
        off_by = max(abs(probability - probabilities[0]) for probability in probabilities)
        return {
            "label": self.labels[index],
            "index": index,
            "probability": round(probabilities[0], 6),
            "tolerance": round(TOLERANCE + off_by, 6),
        }

    def _probabilities(self, row: np.ndarray) -> np.ndarray:
        if self.meaning == "probabilities":
            return row
        return sigmoid(row) if self.multi_label else softmax(row)

    @classmethod
    def results(cls, manifest: Manifest) -> str:
        """The overall figures and a table by class, on the test split."""
        return "\n".join([*_overall(manifest.metrics), "", *_by_class(manifest.metrics)])


def _overall(metrics: Mapping[str, float]) -> list[str]:
    count = round(metrics["test_count"])
    low, high = wilson_interval(metrics["accuracy"], count)
    return [
        f"On the test split ({count:,} images, none of them trained on): accuracy "
        f"**{metrics['accuracy']:.4f}** (95 % confidence interval {low:.4f} to {high:.4f}, "
        f"Wilson), macro F1 {metrics['f1_macro']:.4f}, macro one-versus-rest ROC AUC "
        f"{metrics['roc_auc_ovr_macro']:.4f}.",
    ]


def _by_class(metrics: Mapping[str, float]) -> list[str]:
    labels = [key.partition("/")[2] for key in metrics if key.startswith("precision/")]
    lines = [
        "| class | images | precision | recall | F1 | ROC AUC |",
        "|---|---|---|---|---|---|",
    ]
    for label in labels:
        values = (metrics[f"{name}/{label}"] for name in ("precision", "recall", "f1", "roc_auc"))
        shown = " | ".join(f"{value:.3f}" for value in values)
        lines.append(f"| {label} | {round(metrics[f'count/{label}']):,} | {shown} |")
    if len(labels) <= FOLDED_CLASSES:
        return lines
    summary = f"<details><summary>All {len(labels)} classes</summary>"
    return [summary, "", *lines, "", "</details>"]
