"""`compare`: real runs on few drawn images, and what is kept of them.

The files of the test split are broken here: whatever passes has not looked at it.
"""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorflow", reason="training needs TensorFlow")
pytest.importorskip("keras", reason="training needs Keras")
pytest.importorskip("matplotlib", reason="plots need matplotlib")

from tests.training.drawn import write_fashion_mnist
from training import compare
from training.__main__ import main
from training.data import Split
from training.knobs import Setting
from training.recipes import fashion_mnist

NETWORKS = ["mlp", "dense", "cnn"]
RESULT = {"accuracy": 0.5, "seconds": 2.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_fashion_mnist(folder)
    for file in fashion_mnist.FILES[2:]:
        (folder / file).write_bytes(b"not to be read")
    return folder


def command(data: Path, out: Path, **changes: object) -> list[str]:
    """A short comparison of the networks; changes replace or add options."""
    options = {"data": data, "out": out, "only": "network", "images": 60, "epochs": 1, "seeds": 2}
    given = options | changes
    return ["compare", *(f"--{name}={value}" for name, value in given.items())]


class Trained:
    """Stands for `train`: notes what it is asked for, and is interrupted once if told so."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.asked: list[tuple[str, int]] = []
        self._interrupt_after = interrupt_after

    def __call__(self, setting: Setting, seed: int, *splits: Split) -> dict[str, float]:
        if len(self.asked) == self._interrupt_after:
            self._interrupt_after = None
            raise KeyboardInterrupt
        self.asked.append((setting.network, seed))
        return RESULT


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    stand_in = Trained()
    monkeypatch.setattr(compare, "train", stand_in)
    return stand_in


@pytest.fixture(scope="module")
def compared(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole comparison, really trained."""
    out = tmp_path_factory.mktemp("compared")
    assert main(command(data, out)) == 0
    return out


@pytest.mark.slow
def test_table_shows_mean_and_deviation_of_all_runs(compared: Path) -> None:
    done = json.loads((compared / "runs.json").read_text())
    lines = (compared / "table.md").read_text().splitlines()[2:]
    assert len(done) == 6
    for network, line in zip(NETWORKS, lines, strict=True):
        results = [each["result"] for each in done if each["run"]["network"] == network]
        one, other = (result["accuracy"] for result in results)
        seconds = sum(result["seconds"] for result in results) / 2
        base = " (base)" if network == "cnn" else ""
        spread = f"{(one + other) / 2:.4f} ± {abs(one - other) / 2**0.5:.4f}"
        assert line == f"| network | {network}{base} | {spread} | {seconds:.1f} |"


@pytest.mark.slow
def test_comparison_leaves_runs_table_and_one_picture_a_knob(compared: Path) -> None:
    names = {path.name for path in compared.iterdir()}
    assert names == {"runs.json", "table.md", "network.png"}
    with Image.open(compared / "network.png") as image:
        assert image.size == (1000, 400)


@pytest.mark.slow
def test_run_gives_the_same_again_with_its_seed_only(data: Path) -> None:
    training, validation = compare.read(data, 60)
    setting = Setting(epochs=2, network="mlp", dropout=0.25, augmentation="flips and shifts")
    accuracies = []
    for seed in (1, 1, 2):
        result = compare.train(setting, seed, training, validation)
        assert 0 <= result["accuracy"] <= 1
        assert result["seconds"] > 0
        accuracies.append(result["accuracy"])
    one, again, other = accuracies
    assert one == again != other


def test_finished_runs_are_not_repeated(data: Path, tmp_path: Path, trained: Trained) -> None:
    first = [(network, seed) for seed in (1, 2) for network in NETWORKS]
    assert main(command(data, tmp_path)) == 0
    assert trained.asked == first
    table = (tmp_path / "table.md").read_text()
    assert main(command(data, tmp_path)) == 0
    assert trained.asked == first
    assert (tmp_path / "table.md").read_text() == table
    assert main(command(data, tmp_path, seeds=3)) == 0
    assert trained.asked == first + [(network, 3) for network in NETWORKS]


def test_interrupted_comparison_goes_on_after_its_last_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = Trained(interrupt_after=4)
    monkeypatch.setattr(compare, "train", trained)
    assert main(command(data, tmp_path)) == 130
    assert "The same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "table.md").exists()
    assert main(command(data, tmp_path)) == 0
    assert trained.asked == [(network, seed) for seed in (1, 2) for network in NETWORKS]


@pytest.mark.parametrize("change", [{"images": 50}, {"epochs": 2}])
def test_runs_of_other_images_or_epochs_are_other_runs(
    change: dict[str, object], data: Path, tmp_path: Path, trained: Trained
) -> None:
    assert main(command(data, tmp_path)) == 0
    assert main(command(data, tmp_path, **change)) == 0
    assert len(trained.asked) == 12


def test_runs_on_other_data_are_other_runs(data: Path, tmp_path: Path, trained: Trained) -> None:
    assert main(command(data, tmp_path / "out")) == 0
    write_fashion_mnist(tmp_path / "data")
    labels = tmp_path / "data" / fashion_mnist.FILES[1]
    labels.write_bytes(gzip.compress(gzip.decompress(labels.read_bytes())[:-1] + b"\0"))
    assert main(command(tmp_path / "data", tmp_path / "out")) == 0
    assert len(trained.asked) == 12


def test_knobs_of_earlier_commands_stay_in_the_table(
    data: Path, tmp_path: Path, trained: Trained
) -> None:
    assert main(command(data, tmp_path)) == 0
    assert main(command(data, tmp_path, only="early-stopping")) == 0
    rows = (tmp_path / "table.md").read_text().splitlines()[2:]
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| early stopping", "none (base)"],
        ["| early stopping", "1"],
        ["| early stopping", "3"],
        ["| network", "mlp"],
        ["| network", "dense"],
        ["| network", "cnn (base)"],
    ]
    # The base has been trained with the networks.
    assert len(trained.asked) == 6 + 4


def test_more_images_than_there_are_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(data, tmp_path, images=111)) == 1
    assert "error: expected at most 110 training images, got 111" in capsys.readouterr().err


def test_broken_file_of_runs_is_refused_with_its_name(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs.json").write_text("[{")
    assert main(command(data, tmp_path)) == 1
    assert f"error: {tmp_path / 'runs.json'} cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(("early_stopping", "accuracy"), [(None, 0.6), (1, 0.5)])
def test_last_epoch_counts_unless_training_stops_early(
    early_stopping: int | None, accuracy: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = {
        "loss": [3.0, 2.0, 1.0],
        "val_loss": [3.0, 1.0, 2.0],
        "val_accuracy": [0.1, 0.5, 0.6],
        "seconds": [3.0, 2.0, 2.0],
    }
    asked: dict[str, Any] = {}

    def fit_classifier(*_: Any, **how: Any) -> dict[str, list[float]]:
        asked.update(how)
        return history

    monkeypatch.setattr(compare, "fit_classifier", fit_classifier)
    none = Split(np.empty((0, 28, 28, 1), np.float32), np.empty(0, np.int64))
    setting = Setting(early_stopping=early_stopping, batch_size=16)
    assert compare.train(setting, 1, none, none) == {"accuracy": accuracy, "seconds": 7.0}
    assert (asked["patience"], asked["batch_size"]) == (early_stopping, 16)


def test_dropout_follows_every_hidden_dense_layer() -> None:
    network = fashion_mnist.build("cnn")
    assert compare.with_dropout(network, 0.0) is network
    names = [type(layer).__name__ for layer in compare.with_dropout(network, 0.25).layers]
    assert names[-7:] == ["Dense", "Dropout", "Dense", "Dropout", "Dense", "Dropout", "Dense"]
    assert names.count("Dropout") == 3
    assert compare.with_dropout(network, 0.25).count_params() == network.count_params()


@pytest.mark.parametrize("name", ["none", "flips", "shifts", "flips and shifts"])
def test_augmentation_moves_and_mirrors_whole_pixels(name: str) -> None:
    image = np.zeros((28, 28, 1), np.float32)
    image[10, 5] = 1
    images: Any = np.stack([image] * 200)
    for layer in compare.augmentation(name):
        images = layer(images, training=True)
    places = {tuple(place) for place in np.argwhere(np.asarray(images)[..., 0] == 1)[:, 1:]}
    columns = {5, 22} if "flips" in name else {5}
    reach = range(-2, 3) if "shifts" in name else [0]
    allowed = {(10 + down, at + right) for at in columns for down in reach for right in reach}
    assert places <= allowed
    # All of them come up, given 200 tries.
    assert len(places) > 0.8 * len(allowed)
