"""The pictures in an artifact: real PNGs, of a size to look at, and not blank."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorflow", reason="training needs TensorFlow")
pytest.importorskip("matplotlib", reason="plots need matplotlib")

from training import plots
from training.plots import plot_before_after, plot_comparison, plot_confusion, plot_curves
from training.samples import digit, trousers

HISTORY = {
    "accuracy": [0.5, 0.7, 0.8],
    "loss": [1.0, 0.6, 0.5],
    "val_accuracy": [0.5, 0.6, 0.55],
    "val_loss": [1.1, 0.8, 0.9],
    "learning_rate": [0.1, 0.1, 0.1],
}
LABELS = ("cat", "dog", "owl")
PLOTS: dict[str, tuple[Callable[[Path], None], tuple[int, int]]] = {
    "curves of stages": (
        lambda path: plot_curves(HISTORY, "val_loss", path, stages={"head": 1, "fine-tuning": 3}),
        (1000, 400),
    ),
    "curves": (lambda path: plot_curves(HISTORY, "val_loss", path), (1000, 400)),
    "confusion": (lambda path: plot_confusion(9 * np.eye(3, dtype=int), LABELS, path), (430, 430)),
    "confusion without images": (
        lambda path: plot_confusion(np.zeros((3, 3), dtype=int), LABELS, path),
        (430, 430),
    ),
    "comparison": (
        lambda path: plot_comparison(
            "epochs", ["5", "10"], np.array([[0.7, 0.8], [0.8, 0.82]]), np.ones((2, 2)), path
        ),
        (1000, 400),
    ),
    "comparison of one seed": (
        lambda path: plot_comparison("epochs", ["5"], np.array([[0.7]]), np.ones((1, 1)), path),
        (1000, 400),
    ),
    "before and after": (
        lambda path: plot_before_after(
            [("digit", [digit("4"), digit("7")]), ("trousers", [trousers(), trousers()])],
            ["clean", "denoised"],
            path,
        ),
        (440, 460),
    ),
}


@pytest.mark.parametrize(("plot", "size"), PLOTS.values(), ids=PLOTS.keys())
def test_plot_is_a_png_of_its_size_that_is_not_blank(
    plot: Callable[[Path], None], size: tuple[int, int], tmp_path: Path
) -> None:
    plot(tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert (image.format, image.size) == ("PNG", size)
        pixels = np.asarray(image.convert("L"))
    inked = float((pixels < 200).mean())
    assert 0.005 < inked < 0.9


@pytest.mark.parametrize(("plot", "size"), PLOTS.values(), ids=PLOTS.keys())
def test_plot_of_the_same_numbers_has_the_same_bytes(
    plot: Callable[[Path], None], size: tuple[int, int], tmp_path: Path
) -> None:
    plot(tmp_path / "first.png")
    plot(tmp_path / "second.png")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_curves_have_one_panel_a_metric(tmp_path: Path) -> None:
    only_loss = {name: HISTORY[name] for name in ("loss", "val_loss")}
    plot_curves(only_loss, "val_loss", tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (500, 400)


def test_kept_epoch_is_the_best_of_the_last_ones(tmp_path: Path) -> None:
    best_is_second, best_is_third = HISTORY, HISTORY | {"val_loss": [0.7, 0.9, 0.8]}
    plot_curves(best_is_third, "val_loss", tmp_path / "all.png")
    plot_curves(best_is_third, "val_loss", tmp_path / "last.png", last=2)
    plot_curves(best_is_second, "val_loss", tmp_path / "same.png")
    plot_curves(best_is_second, "val_loss", tmp_path / "same-of-last.png", last=2)
    files = {name: (tmp_path / f"{name}.png").read_bytes() for name in ("all", "last")}
    assert files["all"] != files["last"]
    same = {(tmp_path / f"{name}.png").read_bytes() for name in ("same", "same-of-last")}
    assert len(same) == 1


def test_curves_of_other_numbers_look_different(tmp_path: Path) -> None:
    worse = HISTORY | {"val_loss": [1.1, 1.2, 1.3]}
    plot_curves(HISTORY, "val_loss", tmp_path / "first.png")
    plot_curves(worse, "val_loss", tmp_path / "second.png")
    with Image.open(tmp_path / "first.png") as first, Image.open(tmp_path / "second.png") as second:
        assert first.tobytes() != second.tobytes()


def drawn_curves(monkeypatch: pytest.MonkeyPatch, epochs: int, **how: Any) -> Any:
    """The first panel of curves of so many epochs, as matplotlib has it before it is stored."""
    figures: list[Any] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure))
    history = {name: [0.5] * epochs for name in ("loss", "val_loss")}
    plot_curves(history, "val_loss", Path("unused.png"), **how)
    (figure,) = figures
    figure.canvas.draw()
    plots.plt.close(figure)
    return figure.axes[0]


def test_beginning_of_fine_tuning_is_a_labelled_line_between_two_epochs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    panel = drawn_curves(monkeypatch, 30, stages={"head": 1, "fine-tuning": 11})
    texts = {text.get_text(): text.get_position()[0] for text in panel.texts}
    assert texts == {"head": 0.5, "fine-tuning": 10.5}
    lines = {line.get_xdata()[0] for line in panel.lines if len(set(line.get_xdata())) == 1}
    assert {0.5, 10.5} <= lines


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 30, 250])
def test_ticks_are_whole_epochs(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = drawn_curves(monkeypatch, epochs).get_xticks()
    assert len(ticks) > 0
    assert all(tick == int(tick) for tick in ticks)
