"""Figures: curves, confusion matrix, before and after, comparison of settings."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from training.fit import History, best_epoch

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

DPI = 100


def plot_curves(
    history: History,
    monitor: str,
    path: Path,
    *,
    last: int | None = None,
    stages: Mapping[str, int] | None = None,
) -> None:
    """Loss and metrics by epoch, for training and validation.

    The kept epoch is marked: the best of the `last` epochs, or of all. So is the beginning of each
    of `stages` (name -> its first epoch, from 1).
    """
    names = [name for name in history if f"val_{name}" in history]
    figure, axes = plt.subplots(1, len(names), figsize=(5 * len(names), 4), squeeze=False)
    before = 0 if last is None else len(history[monitor]) - last
    kept = before + best_epoch({monitor: history[monitor][before:]}, monitor)
    for axis, name in zip(axes[0], names, strict=True):
        epochs = np.arange(1, len(history[name]) + 1)
        axis.plot(epochs, history[name], ".-", markersize=3, label="training (augmented)")
        axis.plot(epochs, history[f"val_{name}"], ".-", markersize=3, label="validation")
        axis.axvline(kept, color="grey", linestyle=":", label=f"kept: epoch {kept}")
        for stage, first in (stages or {}).items():
            axis.axvline(first - 0.5, color="black", linewidth=0.8)
            above = axis.get_xaxis_transform()  # x in epochs, y in heights of the panel
            axis.text(first - 0.5, 1.01, stage, transform=above, fontsize=8)
        axis.set(xlabel="epoch", xlim=(0.5, len(epochs) + 0.5))
        axis.set_title(name, pad=16 if stages else None)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.grid(alpha=0.3)
        axis.legend()
    _save(figure, path)


def plot_confusion(counts: np.ndarray, labels: tuple[str, ...], path: Path) -> None:
    """Counts (true, predicted), shaded by the share of the true class."""
    side = 2.5 + 0.6 * len(labels)
    figure, axis = plt.subplots(figsize=(side, side))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, count, ha="center", va="center", color=color, fontsize=9)
    axis.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axis.set_yticks(range(len(labels)), labels)
    axis.set(xlabel="predicted", ylabel="true", title="Confusion on the test split")
    _save(figure, path)


def plot_before_after(
    rows: list[tuple[str, list[Image.Image]]], titles: list[str], path: Path
) -> None:
    """A sheet of images: one row each with its caption, one column a title."""
    figure, axes = plt.subplots(
        len(rows), len(titles), figsize=(2.2 * len(titles), 2.3 * len(rows)), squeeze=False
    )
    for line, (caption, images) in zip(axes, rows, strict=True):
        line[0].set_ylabel(caption)
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    _save(figure, path)


def plot_comparison(
    knob: str, values: list[str], accuracy: np.ndarray, seconds: np.ndarray, path: Path
) -> None:
    """Accuracy and seconds (values, seeds) of a knob's values: each run, mean and deviation."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    places = np.arange(len(values))
    for axis, numbers, title in (
        (axes[0], accuracy, "validation accuracy"),
        (axes[1], seconds, "seconds a run"),
    ):
        runs = numbers.shape[1]
        deviation = numbers.std(axis=1, ddof=1) if runs > 1 else None
        axis.plot(np.repeat(places, runs), numbers.ravel(), ".", color="grey", label="one seed")
        axis.errorbar(
            places, numbers.mean(axis=1), deviation, fmt="o-", capsize=4, label="mean, deviation"
        )
        axis.set_xticks(places, values)
        axis.set(xlabel=knob, title=title, xlim=(-0.5, len(values) - 0.5))
        axis.grid(alpha=0.3)
        axis.legend()
    axes[1].set_ylim(bottom=0)
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout()
    # No version of the plotting library in the file: the same numbers give the same bytes.
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    plt.close(figure)
