"""A training run: the best weights at its end, and its resumption after an interruption.

The network is one weight w that should become 1, and every epoch is one step, so that all losses
are known: the error 1 - w halves for three epochs and then grows by a half, as if trained too long.
"""

import gc
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="training needs TensorFlow")
pytest.importorskip("keras", reason="training needs Keras")

import keras

from training.data import Split
from training.errors import TrainingError
from training.fit import (
    best_epoch,
    first_epochs,
    fit,
    fit_classifier,
    read_history,
    seed_everything,
)

ONES = np.ones((4, 1), dtype=np.float32)
ERRORS = [0.5, 0.25, 0.125, 0.1875, 0.28125, 0.421875, 0.6328125, 0.94921875]
BEST_EPOCH, BEST_WEIGHT = 3, 0.875


def accuracy(truth: Any, predicted: Any) -> Any:
    return 1 - keras.ops.abs(truth - predicted)


def one_weight() -> Any:
    """The network above, untrained."""
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((1,)), dense])
    rates = keras.optimizers.schedules.PiecewiseConstantDecay([BEST_EPOCH - 1], [0.25, -0.25])
    model.compile(keras.optimizers.SGD(rates), "mse", metrics=[accuracy])
    return model


def interrupted_in(epoch: int) -> Any:
    """The same, but Ctrl-C comes in this epoch, after its steps and before it is recorded."""
    model = one_weight()
    evaluate, begun = model.evaluate, []

    def evaluate_or_stop(*arguments: Any, **named: Any) -> Any:
        begun.append(epoch)
        if len(begun) == epoch:
            raise KeyboardInterrupt
        return evaluate(*arguments, **named)

    model.evaluate = evaluate_or_stop
    return model


def run(
    model: Any, folder: Path, epochs: int = 6, patience: int | None = 10, monitor: str = "val_loss"
) -> Any:
    return fit(
        model,
        (ONES, ONES),
        (ONES, ONES),
        checkpoints=folder,
        epochs=epochs,
        patience=patience,
        monitor=monitor,
        batch_size=len(ONES),
    )


def interrupt(folder: Path, epoch: int, monitor: str = "val_loss", patience: int = 10) -> None:
    with warnings.catch_warnings():
        # Keras leaves the log of an interrupted run open: the end of the process would close it.
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(KeyboardInterrupt):
            run(interrupted_in(epoch), folder, monitor=monitor, patience=patience)
        gc.collect()


def weight(model: Any) -> float:
    return float(model.get_weights()[0][0, 0])


def losses(errors: list[float]) -> list[float]:
    return [error**2 for error in errors]


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
def test_network_ends_with_the_weights_of_the_best_epoch(monitor: str, tmp_path: Path) -> None:
    model = one_weight()
    history = run(model, tmp_path / "run", monitor=monitor)
    assert history["val_loss"] == pytest.approx(losses(ERRORS[:6]))
    assert best_epoch(history, monitor) == BEST_EPOCH
    assert weight(model) == pytest.approx(BEST_WEIGHT)


@pytest.mark.parametrize("patience", [1, 3])
def test_run_stops_when_its_patience_is_over(patience: int, tmp_path: Path) -> None:
    history = run(one_weight(), tmp_path / "run", epochs=8, patience=patience)
    assert len(history["val_loss"]) == BEST_EPOCH + patience


def test_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = run(one_weight(), tmp_path / "run")
    model = one_weight()
    assert run(model, tmp_path / "run") == first
    assert weight(model) == pytest.approx(BEST_WEIGHT)


@pytest.mark.parametrize("epoch", [1, 4])
def test_interrupted_run_goes_on_where_it_stopped(epoch: int, tmp_path: Path) -> None:
    interrupt(tmp_path / "run", epoch)
    model = one_weight()
    evaluate, evaluations = model.evaluate, []

    def counted(*arguments: Any, **named: Any) -> Any:
        evaluations.append(epoch)
        return evaluate(*arguments, **named)

    model.evaluate = counted
    history = run(model, tmp_path / "run")
    assert len(evaluations) == 6 - (epoch - 1)
    # The optimizer's state survived, too: the learning rate turned after the same epoch.
    assert history["val_loss"] == pytest.approx(losses(ERRORS[:6]))
    assert weight(model) == pytest.approx(BEST_WEIGHT)


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
def test_best_weights_survive_an_interruption_when_later_epochs_are_worse(
    monitor: str, tmp_path: Path
) -> None:
    interrupt(tmp_path / "run", BEST_EPOCH + 2, monitor)
    model = one_weight()
    history = run(model, tmp_path / "run", monitor=monitor)
    assert best_epoch(history, monitor) == BEST_EPOCH
    assert weight(model) == pytest.approx(BEST_WEIGHT)


def test_run_can_be_interrupted_more_than_once(tmp_path: Path) -> None:
    interrupt(tmp_path / "run", 3)
    interrupt(tmp_path / "run", 2)
    model = one_weight()
    assert run(model, tmp_path / "run")["val_loss"] == pytest.approx(losses(ERRORS[:6]))
    assert weight(model) == pytest.approx(BEST_WEIGHT)


def test_stage_after_one_that_resumed_has_all_its_epochs(tmp_path: Path) -> None:
    interrupt(tmp_path / "first", epoch=4)
    model = one_weight()
    run(model, tmp_path / "first")
    assert len(run(model, tmp_path / "second", epochs=2)["loss"]) == 2


def test_every_epoch_has_its_seconds_in_whichever_run_it_was(tmp_path: Path) -> None:
    interrupt(tmp_path, epoch=2)
    start = time.monotonic()
    history = run(one_weight(), tmp_path)
    assert len(history["seconds"]) == len(history["loss"])
    assert 0 < sum(history["seconds"][1:]) < time.monotonic() - start


def test_interrupted_run_has_the_patience_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = run(one_weight(), tmp_path / "whole", epochs=8, patience=2)
    interrupt(tmp_path / "run", BEST_EPOCH + 2, patience=2)
    resumed = run(one_weight(), tmp_path / "run", epochs=8, patience=2)
    assert len(resumed["val_loss"]) == len(whole["val_loss"])


def test_backup_that_was_half_written_is_not_used(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="Keras writes its weights with h5py")
    interrupt(tmp_path / "run", 5)
    with h5py.File(tmp_path / "run" / "backup" / "latest.weights.h5", "a") as file:
        del file["layers"]  # what Ctrl-C leaves of a file that is closed before all is written
    model = one_weight()
    assert run(model, tmp_path / "run")["val_loss"] == pytest.approx(losses(ERRORS[:6]))
    assert weight(model) == pytest.approx(BEST_WEIGHT)


def test_resumption_is_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupt(tmp_path / "run", 3)
    capsys.readouterr()
    run(one_weight(), tmp_path / "run")
    assert "Resuming after epoch 2; best val_loss so far 0.0625" in capsys.readouterr().out


@pytest.fixture(scope="module")
def history_of_seed_1(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return random_run(tmp_path_factory.mktemp("seed-1") / "run", seed=1)


def random_run(folder: Path, seed: int) -> Any:
    """A run whose initial weights, dropout and order of images are all drawn."""
    seed_everything(seed)
    random = np.random.default_rng(1)
    images = random.random((32, 4), dtype=np.float32)
    labels = random.integers(0, 2, 32)
    layers = [keras.layers.Dense(8), keras.layers.Dropout(0.5), keras.layers.Dense(2, "softmax")]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = fit(
        model,
        (images, labels),
        (images, labels),
        checkpoints=folder,
        epochs=2,
        patience=2,
        monitor="val_accuracy",
        batch_size=8,
    )
    del history["seconds"]
    return history


@pytest.mark.parametrize(("seed", "same"), [(1, True), (2, False)])
def test_metrics_are_the_same_for_the_same_seed_only(
    seed: int, same: bool, history_of_seed_1: Any, tmp_path: Path
) -> None:
    assert (random_run(tmp_path / "run", seed) == history_of_seed_1) is same


def test_history_holds_the_later_run_of_an_epoch_that_ran_twice(tmp_path: Path) -> None:
    # Killed between the log's line and the backup, an epoch runs again and is logged again.
    log = tmp_path / "history.csv"
    log.write_text("epoch,loss,val_loss\n0,9,8\n1,7,6\n1,5,4\n2,3,2\n")
    assert read_history(log) == {"loss": [9, 5, 3], "val_loss": [8, 4, 2]}


@pytest.mark.parametrize("text", [None, "", "epoch,loss\n"])
def test_history_without_epochs_is_empty(text: str | None, tmp_path: Path) -> None:
    log = tmp_path / "history.csv"
    if text is not None:
        log.write_text(text)
    assert read_history(log) == {}


@pytest.mark.parametrize(
    ("monitor", "epoch"), [("val_loss", 2), ("val_accuracy", 3), ("accuracy", 1)]
)
def test_best_epoch_is_the_lowest_loss_or_the_highest_accuracy(monitor: str, epoch: int) -> None:
    history = {
        "val_loss": [0.5, 0.3, 0.4],
        "val_accuracy": [0.6, 0.7, 0.8],
        "accuracy": [0.9, 0.8, 0.9],
    }
    assert best_epoch(history, monitor) == epoch


def test_loss_that_is_no_number_ends_with_a_message_every_time(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"expected numbers for val_loss, got .*nan"):
            fit(
                one_weight(),
                (ONES, ONES * np.float32(np.nan)),
                (ONES, ONES),
                checkpoints=tmp_path / "run",
                epochs=2,
                patience=10,
                monitor="val_loss",
                batch_size=len(ONES),
            )


def test_epoch_without_a_number_is_no_best_one_after_an_interruption(tmp_path: Path) -> None:
    interrupt(tmp_path, 4)
    log = tmp_path / "history.csv"
    head, first, *rest = log.read_text().splitlines()
    columns = dict(zip(head.split(","), first.split(","), strict=True)) | {"val_loss": "nan"}
    log.write_text("\n".join([head, ",".join(columns.values()), *rest]) + "\n")
    model = one_weight()
    assert best_epoch(run(model, tmp_path, patience=2), "val_loss") == BEST_EPOCH
    assert weight(model) == pytest.approx(BEST_WEIGHT)


def test_run_without_patience_has_all_its_epochs(tmp_path: Path) -> None:
    assert len(run(one_weight(), tmp_path, epochs=8, patience=None)["loss"]) == 8


def test_run_of_another_optimizer_is_not_resumed(tmp_path: Path) -> None:
    interrupt(tmp_path, 4)
    model = one_weight()
    model.compile(keras.optimizers.Adam(), "mse", metrics=[accuracy])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # as above
        with pytest.raises(TrainingError, match=r"version of this recipe: remove the folder"):
            run(model, tmp_path)
        gc.collect()


def test_resuming_is_silent_about_the_optimizer(tmp_path: Path) -> None:
    interrupt(tmp_path, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        run(one_weight(), tmp_path)


@pytest.mark.parametrize("kind", ["functional", "sequential", "sequential without input"])
def test_classifier_is_trained_on_augmented_images(kind: str, tmp_path: Path) -> None:
    seed_everything(1)
    labels = np.arange(40) % 2
    images = np.random.default_rng(1).random((40, 4, 4, 1), dtype=np.float32) / 2
    split = Split(images + labels.reshape(-1, 1, 1, 1).astype(np.float32) / 2, labels)
    inputs, pool = keras.Input((4, 4, 1)), keras.layers.GlobalAveragePooling2D()
    dense = keras.layers.Dense(2, "softmax")
    match kind:
        case "functional":
            network = keras.Model(inputs, dense(pool(inputs)))
        case "sequential":
            network = keras.Sequential([inputs, pool, dense])
        case _:
            network = keras.Sequential([pool, dense])
    fit_classifier(
        network,
        [keras.layers.RandomFlip()],
        split,
        split,
        learning_rate=0.5,
        label_smoothing=0.0,
        batch_size=10,
        epochs=8,
        checkpoints=tmp_path,
        monitor="val_loss",
    )
    assert (network.predict(split.images, verbose=0).argmax(axis=1) == labels).mean() > 0.9


def test_first_epochs_of_stages_count_on() -> None:
    histories = [{"loss": [1.0] * epochs} for epochs in (3, 2, 4)]
    assert first_epochs(["head", "fine-tuning", "more"], histories) == {
        "head": 1,
        "fine-tuning": 4,
        "more": 6,
    }
