"""Hand signs: the digits 0 to 5 shown by a hand, 64x64 colour; the course's small CNN.

Data: train_signs.h5 and test_signs.h5 as in the course (keys train_set_x, train_set_y, test_set_x,
test_set_y, list_classes), in the --data folder (default: data/signs).
About 25 minutes on 2 CPU cores. Expect a test accuracy of 0.97.
"""

from pathlib import Path

import h5py
import keras
import numpy as np
from keras import layers

from service.pixels.spec import Cover, Input, Scale
from training.card import Card
from training.data import Labels, Split, check, hold_out, prepare, reading, require, sha256_of
from training.errors import DataError
from training.evaluation import classification_metrics, confusion
from training.export import CALIBRATION_IMAGES, Trained, export
from training.fit import History, fit_classifier, seed_everything
from training.options import Options
from training.plots import plot_confusion, plot_curves
from training.samples import hand
from training.tasks import Classification

# --- Config
LABELS = ("0", "1", "2", "3", "4", "5")
DATA = Path("data/signs")
FILES = ("train_signs.h5", "test_signs.h5")
EPOCHS = 250
PATIENCE = 100
LABEL_SMOOTHING = 0.1  # Szegedy et al. 2016, arXiv:1512.00567
BATCH_SIZE = 32
LEARNING_RATE = 1e-3
VALIDATION_FRACTION = 0.1
SAMPLE_FINGERS = 5


def run(options: Options) -> Path:
    """Data, network, train, evaluate, export; returns the artifact's folder."""
    seed_everything(options.seed)
    assert options.data is not None  # DATA if not given
    folder = locate(options.data)
    spec = input_spec(folder)
    training, validation = hold_out(load(folder, "train", spec), VALIDATION_FRACTION, options.seed)
    if options.smoke:
        training, validation = training.first(200), validation.first(60)
    print(f"{len(training)} training and {len(validation)} validation images")

    network = build()
    epochs = options.epochs or (3 if options.smoke else EPOCHS)
    history = train(network, training, validation, scale=spec.scale, epochs=epochs, options=options)

    test = load(folder, "test", spec)
    probabilities = network.predict(test.images)
    metrics = classification_metrics(test.labels, probabilities, LABELS)
    print(f"Test accuracy {metrics['accuracy']:.4f} on {len(test)} images")

    def draw_figures(target: Path) -> None:
        plot_curves(history, "val_loss", target / "curves.png")
        plot_confusion(confusion(test.labels, probabilities), LABELS, target / "confusion.png")

    return export(
        Trained(
            name="hand-signs",
            task=Classification(LABELS),
            input=spec,
            network=network,
            validation=validation.images,
            validation_truth=validation.labels,
            calibration=training.images[:CALIBRATION_IMAGES],
            metrics=metrics,
            sample=hand(SAMPLE_FINGERS),
            dataset="SIGNS (deeplearning.ai course), licence unstated",
            dataset_sha256=sha256_of(folder / file for file in FILES),
            seconds=sum(history["seconds"]),
            card=CARD,
            draw_figures=draw_figures,
        ),
        options,
    )


# --- Data
def locate(folder: Path) -> Path:
    """Return `folder` if it has both files."""
    for file in FILES:
        require(
            folder / file,
            "It comes with the course on convolutional networks; pass its folder with --data.",
        )
    return folder


def input_spec(folder: Path) -> Input:
    """The preprocessing: pixels are standardised, because the walls are light."""
    images, _ = read_split(folder, "train")
    scale = Scale(mean=float(images.mean() / 255), deviation=float(images.std() / 255))
    return Input(shape=(64, 64, 3), color="rgb", resize=Cover(), scale=scale)


def load(folder: Path, split: str, spec: Input) -> Split:
    """The `train` or `test` split, preprocessed as the service does."""
    images, labels = read_split(folder, split)
    return Split(prepare(images, spec), labels)


def read_split(folder: Path, split: str) -> tuple[np.ndarray, Labels]:
    """Images (n, 64, 64, 3) uint8 and labels (n,)."""
    path = folder / f"{split}_signs.h5"
    with reading(path), h5py.File(path) as file:
        wanted = f"{split}_set_x", f"{split}_set_y"
        if not all(key in file for key in wanted):
            raise DataError(f"{path}: expected the keys {wanted}, got {tuple(file)}")
        images, labels = (file[key][:] for key in wanted)
    labels = labels.reshape(-1).astype(np.int64)
    check(images, (64, 64, 3), labels, len(LABELS))
    return images, labels


# --- Network
def build() -> keras.Model:
    """The course's network, 182,950 parameters."""
    inputs = keras.Input((64, 64, 3))
    x = layers.Conv2D(32, 3, activation="relu")(inputs)
    x = layers.Conv2D(32, 3, activation="relu")(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(6, activation="softmax")(x), name="hand_signs")


def augmentation(scale: Scale) -> list[layers.Layer]:
    """Rotate, shift and zoom, and change contrast and brightness.

    Mirroring and dropout lowered the validation accuracy: this network is too small for them.
    """
    black, white = (float((level - scale.mean) / scale.deviation) for level in (0, 1))
    return [
        layers.RandomRotation(0.04, fill_mode="nearest"),
        layers.RandomTranslation(0.08, 0.08, fill_mode="nearest"),
        layers.RandomZoom((-0.1, 0.1), fill_mode="nearest"),
        layers.RandomContrast(0.2, value_range=(black, white)),
        layers.RandomBrightness(0.1, value_range=(black, white)),
    ]


# --- Train
def train(
    network: keras.Model,
    training: Split,
    validation: Split,
    *,
    scale: Scale,
    epochs: int,
    options: Options,
) -> History:
    """Train on augmented images; the network keeps the best weights."""
    return fit_classifier(
        network,
        augmentation(scale),
        training,
        validation,
        learning_rate=LEARNING_RATE,
        label_smoothing=LABEL_SMOOTHING,
        batch_size=BATCH_SIZE,
        epochs=epochs,
        checkpoints=options.checkpoints,
        patience=PATIENCE,
        monitor="val_loss",
    )


# --- Export
CARD = Card(
    title="Hand signs 0 to 5",
    purpose=(
        "Reads the digit, 0 to 5, that one hand shows to the camera, for the course's exercise and "
        "for trying out a service with photos. Photos of any size and orientation are accepted: "
        "they are turned upright by their EXIF data and cut to the square in the middle."
    ),
    not_for=(
        "Sign languages, several hands, video control, or any use that someone depends on. A "
        "picture without a hand still gets one of the six digits."
    ),
    data=(
        "The SIGNS images of the deeplearning.ai course, 64x64, rebuilt without near-duplicates; "
        "a tenth of those to train on were held out for validation. Their licence is "
        "unstated: they are not part of this project and must not be redistributed."
    ),
    limits=(
        "Few photos of few people's hands, before light walls, in good light. Other skin tones, "
        "backgrounds, gloves, sleeves and hands at the edge of the picture were hardly seen. So "
        "few test images leave the accuracy uncertain by a few points. 0 is a ring of thumb and "
        "fingers, and 3 is mostly shown with the thumb: the signs of other cultures differ."
    ),
)
