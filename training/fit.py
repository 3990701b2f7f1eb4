"""Train a network: progress, early stopping, resuming, and the best weights at the end."""

import csv
import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from training.data import Split, one_hot
from training.errors import TrainingError

History = dict[str, list[float]]

HISTORY_FILE = "history.csv"
OTHER_OPTIMIZER = "Skipping variable loading for optimizer"  # the start of Keras's warning


def seed_everything(seed: int) -> None:
    """Make a run repeatable: the same seed on the same machine gives the same metrics."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def fit(
    model: keras.Model,
    training: Any,
    validation: Any,
    *,
    checkpoints: Path,
    epochs: int,
    patience: int | None = None,
    monitor: str,
    batch_size: int | None = None,
) -> History:
    """Train for `epochs`, or until `patience` go by without a better `monitor`; keep the best.

    An interrupted run resumes from its last epoch in `checkpoints`; a finished one is not repeated.
    The caller removes `checkpoints` once the artifact is written. Returns each metric, and the
    seconds, by epoch. Raises TrainingError if `monitor` is a number in no epoch, or if the
    interrupted run had another optimizer.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    log, best = checkpoints / HISTORY_FILE, checkpoints / "best.weights.h5"
    ended = checkpoints / "ended"
    if ended.exists():
        _load(model, best)
        return read_history(log)
    mode = "max" if "accuracy" in monitor else "min"
    earlier = read_history(log).get(monitor, [])
    numbers = not np.isnan(earlier).all()  # False for an empty list
    best_so_far = earlier[best_epoch({monitor: earlier}, monitor) - 1] if numbers else math.nan
    if earlier:
        print(f"Resuming after epoch {len(earlier)}; best {monitor} so far {best_so_far:.4f}")
    callbacks = [
        _KeepBest(best, monitor, mode, best_so_far),
        _TimedCSVLogger(log, append=True),
        _Backup(checkpoints / "backup", delete_checkpoint=False, double_checkpoint=True),
    ]
    if patience is not None:
        stopping = _ResumableEarlyStopping(earlier, monitor=monitor, patience=patience, mode=mode)
        callbacks.append(stopping)
    _build(model, training[0] if isinstance(training, tuple) else training[0][0])
    model.fit(
        *(training if isinstance(training, tuple) else (training,)),
        validation_data=validation,
        epochs=epochs,
        batch_size=batch_size,
        callbacks=callbacks,
    )
    if not best.exists():
        raise TrainingError(
            f"expected numbers for {monitor}, got {read_history(log)[monitor]}: look for broken "
            f"images or labels, and remove {checkpoints} before the next try"
        )
    _load(model, best)
    ended.touch()
    return read_history(log)


def _build(network: keras.Model, images: Any) -> None:
    """Take the shape of a Sequential network without an Input layer from images (n, ...)."""
    if not network.built:
        network.build((None, *images.shape[1:]))


def _load(model: keras.Model, weights: Path) -> None:
    """Load the weights without the optimizer's state, which is that of another epoch."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", OTHER_OPTIMIZER)
        model.load_weights(weights)


def join(histories: Sequence[History]) -> History:
    """One history of stages that followed each other."""
    return {name: [v for history in histories for v in history[name]] for name in histories[0]}


def first_epochs(stages: Sequence[str], histories: Sequence[History]) -> dict[str, int]:
    """Stage -> the number of its first epoch, from 1, where stages followed each other."""
    lengths = [len(history["loss"]) for history in histories]
    return {name: 1 + sum(lengths[:index]) for index, name in enumerate(stages)}


def fit_classifier(
    network: keras.Model,
    augmentation: list[keras.layers.Layer],
    training: Split,
    validation: Split,
    *,
    learning_rate: float,
    label_smoothing: float,
    batch_size: int,
    epochs: int,
    **how: Any,
) -> History:
    """`fit` for a softmax classifier, with label smoothing and a cosine learning rate."""
    _build(network, training.images)
    model = keras.Sequential([network.inputs[0], *augmentation, network])
    classes = network.output_shape[-1]
    steps = epochs * math.ceil(len(training) / batch_size)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps)),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing),
        metrics=["accuracy"],
    )
    return fit(
        model,
        (training.images, one_hot(training.labels, classes)),
        (validation.images, one_hot(validation.labels, classes)),
        batch_size=batch_size,
        epochs=epochs,
        **how,
    )


class _KeepBest(keras.callbacks.Callback):
    """Saves the best weights so far; an interruption never leaves a half-written file."""

    def __init__(self, path: Path, monitor: str, mode: str, best_so_far: float) -> None:
        super().__init__()
        self._path, self._monitor = path, monitor
        self._sign = 1 if mode == "max" else -1
        self._best = -np.inf if math.isnan(best_so_far) else self._sign * best_so_far

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002  (Keras's names)
        """Write a new file, then replace the earlier one atomically."""
        value = self._sign * logs[self._monitor]
        if value > self._best:
            new = self._path.with_name("new.weights.h5")
            self.model.save_weights(new)
            new.replace(self._path)
            self._best = value


class _TimedCSVLogger(keras.callbacks.CSVLogger):
    """Also logs the seconds of each epoch: a resumed run spans several processes."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Start the clock."""
        self._start = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Log the duration of the epoch with its metrics."""
        super().on_epoch_end(epoch, {**logs, "seconds": time.monotonic() - self._start})


class _Backup(keras.callbacks.BackupAndRestore):
    """Keras's own, fixed for networks trained in stages and for broken files."""

    def on_train_begin(self, logs: Any = None) -> None:
        """Forget the epoch at which an earlier stage resumed."""
        self.model._initial_epoch = None
        super().on_train_begin(logs)

    def _load_model(self) -> None:
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                super()._load_model()
        except ValueError as error:  # a half-written file
            raise OSError(str(error)) from error
        for warning in caught:
            if str(warning.message).startswith(OTHER_OPTIMIZER):
                raise TrainingError(
                    f"the interrupted run in {self.backup_dir} is from another version of this "
                    f"recipe: remove the folder to start again ({warning.message})"
                )


class _ResumableEarlyStopping(keras.callbacks.EarlyStopping):
    """Keras's own, which forgets its best value and its patience when a run resumes."""

    def __init__(self, earlier: list[float], **options: Any) -> None:
        super().__init__(**options)
        self._earlier = earlier

    def on_train_begin(self, logs: Any = None) -> None:
        """Restore the values of the epochs before the interruption."""
        super().on_train_begin(logs)
        if not np.isnan(self._earlier).all():
            kept = best_epoch({self.monitor: self._earlier}, self.monitor) - 1
            self.best, self.best_epoch = self._earlier[kept], kept
            self.wait = len(self._earlier) - 1 - kept


def read_history(log: Path) -> History:
    """Metric -> its value by epoch. Of an epoch that ran twice, the later run counts."""
    if not log.exists():
        return {}
    with log.open() as lines:
        by_epoch = {int(row.pop("epoch")): row for row in csv.DictReader(lines)}
    names = next(iter(by_epoch.values()), {})
    return {name: [float(by_epoch[epoch][name]) for epoch in sorted(by_epoch)] for name in names}


def epochs_done(checkpoints: Path) -> int:
    """How many epochs an interrupted run has completed."""
    return len(read_history(checkpoints / HISTORY_FILE).get("loss", []))


def best_epoch(history: History, monitor: str) -> int:
    """The number of the epoch, from 1, whose weights were kept."""
    pick = np.nanargmax if "accuracy" in monitor else np.nanargmin
    return int(pick(history[monitor])) + 1
