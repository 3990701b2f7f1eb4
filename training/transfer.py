"""Transfer learning on VGG16's convolutions, for the recipe `transfer` and those based on it."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import layers
from keras.optimizers.schedules import CosineDecay
from PIL import Image

from service.pixels.preprocess import scale
from service.pixels.spec import Cover, Input
from training.batches import Batches, some_of_each
from training.card import Card
from training.errors import DataError
from training.evaluation import classification_metrics, confusion
from training.export import CALIBRATION_IMAGES, Trained, export
from training.fit import History, epochs_done, first_epochs, fit, join, seed_everything
from training.folders import find_photos
from training.half import round_to_half
from training.options import Options
from training.photos import Photos, read_photos
from training.plots import plot_confusion, plot_curves
from training.precision import best_policy, computing_in
from training.tasks import Classification
from training.vgg16 import NAMES, Base, classifier, load_base, set_weights

# --- Config
DROPOUT = 0.2
SMOKE_PHOTOS = 16  # per class and split
MAX_COMPARED_BYTES = 1_000_000_000  # of photos for the comparison of engines


@dataclass(frozen=True)
class Stage:
    """One of the two stages: the head alone, then the whole network."""

    name: str
    tunes_base: bool
    learning_rate: float
    """At the start; it falls to 0 on a cosine (Loshchilov, Hutter 2017, arXiv:1608.03983)."""
    epochs: int


MIN_STEPS = 200  # of a stage: a small folder has few steps per epoch
STAGES = (
    Stage("head", tunes_base=False, learning_rate=1e-3, epochs=10),
    Stage("fine-tuning", tunes_base=True, learning_rate=1e-5, epochs=20),
)


@dataclass(frozen=True)
class TransferRecipe:
    """What differs between the recipes: a name, the text of the card, and a sample."""

    name: str
    title: str
    purpose: str
    not_for: str
    data: str
    """Source and licence of the photos."""
    limits: str
    dataset: str
    sample: Callable[[], Image.Image]
    classes: tuple[str, ...] | None = None
    """The classes that the card describes; None for any."""


def train_on_photos(recipe: TransferRecipe, options: Options) -> Path:
    """Data, network, train, evaluate, export; returns the artifact's folder."""
    assert options.data is not None
    seed_everything(options.seed)
    files = find_photos(options.data, SMOKE_PHOTOS if options.smoke else None)
    classes = tuple(files[0])
    if recipe.classes is not None and classes != recipe.classes:
        raise DataError(
            f"{options.data.absolute()}: expected the classes {', '.join(recipe.classes)}, got "
            f"{', '.join(classes)}; use the recipe `transfer` for other classes"
        )
    base = load_base(options.arguments["base"])
    pixels = options.arguments["size"]
    policy = options.arguments["precision"] or best_policy()
    spec = Input(shape=(pixels, pixels, 3), color="rgb", resize=Cover(), scale=base.scale)
    photos = read_photos(options.data, files, spec, options.checkpoints, options.seed)
    counts = (
        f"{len(photos.training)} photos for training, {len(photos.validation)} for validation, "
        f"{len(photos.test)} for testing"
    )
    print(f"{counts}; classes: {', '.join(photos.classes)}; base: {base.name}")
    started_from = hashlib.sha256((photos.sha256 + base.sha256).encode()).hexdigest()
    checkpoints = options.checkpoints_of(started_from) / policy
    histories, network = train(
        photos, base, spec, policy=policy, checkpoints=checkpoints, options=options
    )
    history = join(histories)

    truth = photos.labels[photos.test]
    probabilities = network.predict(Batches(photos, photos.test, spec))
    metrics = classification_metrics(truth, probabilities, photos.classes)
    print(f"Test accuracy {metrics['accuracy']:.4f} on {len(truth)} photos")

    most_compared = MAX_COMPARED_BYTES // (4 * 3 * pixels**2)
    compared = some_of_each(photos, photos.validation, most_compared)
    calibration = some_of_each(photos, photos.training, min(CALIBRATION_IMAGES, most_compared))

    def draw_figures(target: Path) -> None:
        stages = first_epochs([stage.name for stage in STAGES], histories)
        plot_curves(history, "val_loss", target / "curves.png", stages=stages)
        matrix = confusion(truth, probabilities)
        plot_confusion(matrix, photos.classes, target / "confusion.png")

    return export(
        Trained(
            name=recipe.name,
            task=Classification(photos.classes),
            latency_objective_s=1.0,
            input=spec,
            network=network,
            validation=scale(photos.pixels[compared], spec.scale),
            validation_truth=photos.labels[compared],
            calibration=scale(photos.pixels[calibration], spec.scale),
            metrics=metrics,
            sample=recipe.sample(),
            dataset=recipe.dataset,
            dataset_sha256={recipe.dataset: photos.sha256},
            seconds=sum(history["seconds"]),
            card=Card(
                recipe.title,
                recipe.purpose,
                recipe.not_for,
                f"{recipe.data} {counts}.",
                recipe.limits,
            ),
            draw_figures=draw_figures,
            base=base.name,
            base_sha256=base.sha256,
        ),
        options.recording(base=base.argument, precision=policy),
    )


def augmentation() -> list[layers.Layer]:
    """Rotate by up to 10 degrees, zoom and shift by up to 10 %, and mirror."""
    return [
        layers.RandomRotation(10 / 360, fill_mode="nearest", dtype="float32"),
        layers.RandomZoom(0.1, fill_mode="nearest", dtype="float32"),
        layers.RandomTranslation(0.1, 0.1, fill_mode="nearest", dtype="float32"),
        layers.RandomFlip("horizontal", dtype="float32"),
    ]


# --- Train
def train(
    photos: Photos, base: Base, spec: Input, *, policy: str, checkpoints: Path, options: Options
) -> tuple[list[History], keras.Model]:
    """Train the head on frozen convolutions, then both; returns the histories and the network."""
    classes, (pixels, _, _) = len(photos.classes), spec.shape
    assert pixels is not None
    with computing_in(policy):
        network = classifier(classes, pixels, dropout=DROPOUT)
    set_weights(network, base.weights)
    histories, kept = [], []
    for stage in STAGES:
        folder = checkpoints / stage.name
        done = epochs_done(folder)
        batches = Batches(photos, photos.training, spec, seed=options.seed, epoch=done)
        enough = max(stage.epochs, math.ceil(MIN_STEPS / len(batches)))
        epochs = options.epochs or (1 if options.smoke else enough)
        print(f"Stage {stage.name}: {epochs} epochs")
        for name in NAMES:
            network.get_layer(name).trainable = stage.tunes_base
        with computing_in(policy):  # the policy decides whether the loss is scaled
            model = keras.Sequential([network.input, *augmentation(), network])
            model.compile(
                keras.optimizers.Adam(CosineDecay(stage.learning_rate, epochs * len(batches))),
                "categorical_crossentropy",
                metrics=["accuracy"],
            )
        histories.append(
            fit(
                model,
                batches,
                Batches(photos, photos.validation, spec),
                checkpoints=folder,
                epochs=epochs,
                monitor="val_loss",
            )
        )
        kept.append(network.get_weights())
    losses = [np.nanmin(history["val_loss"]) for history in histories]
    network.set_weights(kept[int(np.argmin(losses))])  # fine-tuning does not always improve it
    plain = classifier(classes, pixels)
    for name in (*NAMES, "logits"):
        plain.get_layer(name).set_weights(network.get_layer(name).get_weights())
    round_to_half(plain)
    return histories, plain
