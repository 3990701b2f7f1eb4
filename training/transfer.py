"""Transfer learning on VGG16's convolutions: what `transfer` and its instances share."""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import layers
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from service.manifest import MAX_SIDE, Cover, Input, Output
from service.preprocess import Floats, scale
from training.card import Card
from training.data import Labels
from training.evaluation import classification_metrics, confusion
from training.export import Trained, export
from training.fit import History, epochs_done, fit, join, seed_everything
from training.options import Options, at_least_one
from training.photos import Photos, read_photos
from training.plots import plot_confusion, plot_curves
from training.precision import POLICIES, best_policy, computing_in
from training.vgg16 import IMAGENET, NAMES, SHRINKAGE, Base, classifier, load_base, set_weights

# --- Config
SIZE = 224
BATCH_SIZE = 32
DROPOUT = 0.2
SMOKE_PHOTOS = 16  # of each class and split
MAX_COMPARED_BYTES = 1_000_000_000  # of the photos that engines are compared on


@dataclass(frozen=True)
class Stage:
    """One of the two: the head alone, then everything."""

    name: str
    tunes_base: bool
    learning_rate: float
    epochs: int
    patience: int


STAGES = (
    Stage("head", tunes_base=False, learning_rate=1e-3, epochs=20, patience=4),
    Stage("fine-tuning", tunes_base=True, learning_rate=1e-5, epochs=20, patience=5),
)


@dataclass(frozen=True)
class Task:
    """What tells one instance from another: a name, words for the card, and a drawing."""

    name: str
    title: str
    purpose: str
    not_for: str
    data: str
    limits: str
    dataset: str
    sample: Callable[[], Image.Image]


def add_transfer_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every instance has."""
    parser.add_argument(
        "--base",
        default=IMAGENET,
        help=f"{IMAGENET}, or the folder of an artifact, such as models/vgg16-base/1 (%(default)s)",
    )
    parser.add_argument("--size", type=side, default=SIZE, help="pixels of a side (%(default)s)")
    parser.add_argument(
        "--precision", choices=POLICIES, help="default: what this machine does best"
    )


def side(text: str) -> int:
    """Pixels that the poolings leave something of."""
    pixels = at_least_one(text)
    if not SHRINKAGE <= pixels <= MAX_SIDE:
        raise argparse.ArgumentTypeError(f"expected {SHRINKAGE} to {MAX_SIDE} pixels, got {text!r}")
    return pixels


def train_on_photos(task: Task, options: Options) -> Path:
    """Data, network, train, evaluate, export; returns the artifact's folder."""
    assert options.data is not None
    seed_everything(options.seed)
    base = load_base(str(options.arguments["base"]))
    pixels = int(str(options.arguments["size"]))
    spec = Input(shape=(pixels, pixels, 3), color="rgb", resize=Cover(), scale=base.scale)
    most = SMOKE_PHOTOS if options.smoke else None
    photos = read_photos(options.data, spec, options.checkpoints, options.seed, most)
    compared = some_of_each(photos, photos.validation, MAX_COMPARED_BYTES // (4 * 3 * pixels**2))
    print(
        f"{len(photos.training)} photos to train on, {len(photos.validation)} for validation, "
        f"{len(photos.test)} to test, of {', '.join(photos.classes)}; on {base.name}"
    )
    checkpoints = options.checkpoints_of(photos.sha256)
    history, network = train(photos, base, spec, checkpoints, options)

    truth = photos.labels[photos.test]
    probabilities = network.predict(Batches(photos, photos.test, spec))
    metrics = classification_metrics(truth, probabilities, photos.classes)
    print(f"Test accuracy {metrics['accuracy']:.4f} on {len(truth)} photos")

    def draw_figures(target: Path) -> None:
        plot_curves(history, "val_loss", target / "curves.png")
        counts = confusion(truth, probabilities)
        plot_confusion(counts, photos.classes, target / "confusion.png")

    return export(
        Trained(
            name=task.name,
            task="classification",
            labels=photos.classes,
            input=spec,
            output=Output(shape=(len(photos.classes),), meaning="probabilities"),
            network=network,
            validation=scale(photos.pixels[compared], spec.scale),
            validation_truth=photos.labels[compared],
            metrics=metrics,
            sample=task.sample(),
            dataset=task.dataset,
            dataset_sha256={task.dataset: photos.sha256},
            seconds=sum(history["seconds"]),
            card=Card(task.title, task.purpose, task.not_for, task.data, task.limits),
            draw_figures=draw_figures,
            base=base.name,
        ),
        options,
    )


# --- Data
class Batches(keras.utils.PyDataset):
    """Batches of photos as the network takes them; to train on, in random order and weighted.

    Weights make up for classes that are rarer than others.
    """

    def __init__(
        self,
        photos: Photos,
        chosen: Labels,
        spec: Input,
        *,
        seed: int | None = None,
        epoch: int = 0,
    ) -> None:
        super().__init__()
        self._photos, self._chosen, self._spec, self._seed = photos, chosen, spec, seed
        self._epoch = epoch
        labels = photos.labels[photos.training]
        known = np.unique(labels)
        self._weights = np.ones(len(photos.classes), np.float32)
        self._weights[known] = compute_class_weight("balanced", classes=known, y=labels)

    def __len__(self) -> int:
        return math.ceil(len(self._chosen) / BATCH_SIZE)

    def __getitem__(self, index: int) -> tuple[Floats, Floats, Floats]:
        chosen = self._chosen
        if self._seed is not None:
            chosen = np.random.default_rng([self._seed, self._epoch]).permutation(chosen)
        chosen = chosen[index * BATCH_SIZE : (index + 1) * BATCH_SIZE]
        labels = self._photos.labels[chosen]
        one_hot = np.eye(len(self._photos.classes), dtype=np.float32)[labels]
        return scale(self._photos.pixels[chosen], self._spec.scale), one_hot, self._weights[labels]

    def on_epoch_end(self) -> None:
        """Shuffle anew."""
        self._epoch += 1


def some_of_each(photos: Photos, chosen: Labels, most: int) -> Labels:
    """Some of the chosen photos at random, of all classes alike."""
    mixed = np.random.default_rng(0).permutation(chosen)
    labels = photos.labels[mixed]
    rank = np.empty(len(mixed), np.int64)  # among those of its class
    for label in np.unique(labels):
        members = labels == label
        rank[members] = np.arange(members.sum())
    return mixed[np.argsort(rank, kind="stable")[:most]]


def augmentation() -> list[layers.Layer]:
    """Photos turned by up to 10 degrees, 10 % nearer or farther, moved by 10 %, and mirrored."""
    return [
        layers.RandomRotation(10 / 360, fill_mode="nearest", dtype="float32"),
        layers.RandomZoom(0.1, fill_mode="nearest", dtype="float32"),
        layers.RandomTranslation(0.1, 0.1, fill_mode="nearest", dtype="float32"),
        layers.RandomFlip("horizontal", dtype="float32"),
    ]


# --- Train
def train(
    photos: Photos, base: Base, spec: Input, checkpoints: Path, options: Options
) -> tuple[History, keras.Model]:
    """The head on frozen convolutions, then both; returns the history and the plain network."""
    classes, (pixels, _, _) = len(photos.classes), spec.shape
    assert pixels is not None
    policy = str(options.arguments["precision"] or best_policy())
    with computing_in(policy):
        network = classifier(classes, pixels, dropout=DROPOUT)
    set_weights(network, base.weights)
    histories = []
    for stage in STAGES:
        epochs = options.epochs or (1 if options.smoke else stage.epochs)
        print(f"Stage {stage.name}: up to {epochs} epochs")
        for name in NAMES:
            network.get_layer(name).trainable = stage.tunes_base
        with computing_in(policy):  # it says whether the loss is scaled
            model = keras.Sequential([network.input, *augmentation(), network])
            model.compile(
                keras.optimizers.Adam(stage.learning_rate),
                "categorical_crossentropy",
                metrics=["accuracy"],
            )
        folder = checkpoints / stage.name
        done = epochs_done(folder)
        histories.append(
            fit(
                model,
                Batches(photos, photos.training, spec, seed=options.seed, epoch=done),
                Batches(photos, photos.validation, spec),
                checkpoints=folder,
                epochs=epochs,
                patience=stage.patience,
                monitor="val_loss",
            )
        )
    plain = classifier(classes, pixels)
    for name in (*NAMES, "logits"):
        plain.get_layer(name).set_weights(network.get_layer(name).get_weights())
    return join(histories), plain
