"""Fashion-MNIST: ten kinds of clothes, 28x28 grey; the course's CNN, dense network or MLP.

Data: keras.datasets.fashion_mnist (60,000 + 10,000 images; MIT, Zalando SE) from Keras's cache
(KERAS_HOME moves it), downloaded if missing. Or --data: a folder with the four .gz files.
About 25 minutes for the CNN on 2 CPU cores. Expect a test accuracy of 0.91.
"""

import gzip
from pathlib import Path

import keras
import numpy as np
from keras import layers

from service.artifacts.manifest import Manifest, read_manifest
from service.pixels.spec import FashionMnist, Input, Scale
from service.tasks import TASKS
from training.card import Card
from training.data import Split, check, hold_out, keras_cache, prepare, reading, require, sha256_of
from training.errors import DataError
from training.evaluation import classification_metrics, confusion
from training.export import CALIBRATION_IMAGES, Trained, export
from training.fit import History, fit_classifier, seed_everything
from training.options import Options
from training.plots import plot_confusion, plot_curves
from training.samples import trousers
from training.tasks import Classification

# --- Config
LABELS = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
OPTIONS = {
    "--network": {"choices": ("cnn", "dense", "mlp"), "default": "cnn", "help": "(%(default)s)"}
}
EPOCHS = {"cnn": 60, "dense": 40, "mlp": 40}
PATIENCE = 20
LABEL_SMOOTHING = 0.1  # Szegedy et al. 2016, arXiv:1512.00567
BATCH_SIZE = 128
LEARNING_RATE = 1e-3
VALIDATION_FRACTION = 1 / 12  # 5,000 of 60,000
MAX_SHIFT = 1 / 28  # one pixel
FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def name_of(kind: str) -> str:
    """The model's name; that of the CNN is the name of the data set."""
    return "fashion-mnist" if kind == "cnn" else f"fashion-mnist-{kind}"


def run(options: Options) -> Path:
    """Data, network, train, evaluate, export; returns the artifact's folder."""
    kind = options.arguments["network"]
    seed_everything(options.seed)
    folder = locate(options.data)
    spec = input_spec(kind, folder)
    training, validation = hold_out(
        load(folder, "train", spec, 600 if options.smoke else None),
        VALIDATION_FRACTION,
        options.seed,
    )
    print(f"{len(training)} training and {len(validation)} validation images")

    network = build(kind)
    epochs = options.epochs or (3 if options.smoke else EPOCHS[kind])
    history = train(network, training, validation, epochs, options)

    test = load(folder, "t10k", spec, 300 if options.smoke else None)
    probabilities = network.predict(test.images, batch_size=500)
    metrics = classification_metrics(test.labels, probabilities, LABELS)
    print(f"Test accuracy {metrics['accuracy']:.4f} on {len(test)} images")

    if kind == "cnn":
        metrics |= sibling_metrics(options.out)

    def draw_figures(target: Path) -> None:
        plot_curves(history, "val_accuracy", target / "curves.png")
        plot_confusion(confusion(test.labels, probabilities), LABELS, target / "confusion.png")

    return export(
        Trained(
            name=name_of(kind),
            task=Classification(LABELS),
            input=spec,
            network=network,
            validation=validation.images,
            validation_truth=validation.labels,
            calibration=training.images[:CALIBRATION_IMAGES],
            metrics=metrics,
            sample=trousers(),
            dataset="Fashion-MNIST (Xiao, Rasul, Vollgraf 2017), MIT",
            dataset_sha256=sha256_of(folder / file for file in FILES),
            seconds=sum(history["seconds"]),
            card=card(kind),
            draw_figures=draw_figures,
        ),
        options,
    )


# --- Data
def locate(data: Path | None) -> Path:
    """The folder with the four official files; Keras downloads missing ones."""
    if data is None:
        data = keras_cache("fashion-mnist")
        if not all((data / file).is_file() for file in FILES):
            try:
                keras.datasets.fashion_mnist.load_data()
            except Exception as error:
                raise DataError(
                    f"Fashion-MNIST is missing: looked for {', '.join(FILES)} in {data}, and "
                    f"Keras could not download it ({error}). Put the four files there, or pass "
                    "their folder with --data."
                ) from error
    for file in FILES:
        require(
            data / file, "It is one of the four files of github.com/zalandoresearch/fashion-mnist."
        )
    return data


def load(folder: Path, split: str, spec: Input, count: int | None) -> Split:
    """The `train` or `t10k` split, preprocessed as the service does."""
    images, labels = read_split(folder, split)
    return Split(prepare(images[:count], spec), labels[:count].astype(np.int64))


def read_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 28, 28) uint8 and labels (n,) uint8, from the IDX files."""
    labels = read_idx(folder / f"{split}-labels-idx1-ubyte.gz", header_bytes=8)
    images = read_idx(folder / f"{split}-images-idx3-ubyte.gz", header_bytes=16)
    with reading(folder / f"{split}-images-idx3-ubyte.gz"):
        images = images.reshape(-1, 28, 28)
    check(images, (28, 28), labels, len(LABELS))
    return images, labels


def read_idx(path: Path, header_bytes: int) -> np.ndarray:
    """The bytes after the header of a gzipped IDX file."""
    with reading(path):
        return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header_bytes)


def input_spec(kind: str, folder: Path) -> Input:
    """The preprocessing; the MLP takes standardised pixels."""
    scale = Scale()
    if kind == "mlp":
        images, _ = read_split(folder, "train")
        scale = Scale(mean=float(images.mean() / 255), deviation=float(images.std() / 255))
    return Input(shape=(28, 28, 1), color="grey", resize=FashionMnist(), scale=scale)


# --- Network
def build(kind: str) -> keras.Model:
    """Build one of the course's three networks; dropout adds no parameters."""
    inputs = keras.Input((28, 28, 1))
    match kind:
        case "cnn":
            x = layers.Conv2D(32, 3, activation="relu")(inputs)
            x = layers.MaxPooling2D()(x)
            x = layers.Conv2D(64, 3, activation="relu")(x)
            x = layers.MaxPooling2D()(x)
            x = layers.Conv2D(32, 3, activation="relu")(x)
            x = layers.MaxPooling2D()(x)
            x = layers.Flatten()(x)
            for units in (512, 256, 128):
                # SELU's own initialisation (Klambauer et al. 2017, arXiv:1706.02515).
                x = layers.Dense(units, "selu", kernel_initializer="lecun_normal")(x)
        case "dense":
            x = layers.Flatten()(inputs)
            for units in (512, 256, 128, 64):
                x = layers.Dropout(0.2)(layers.Dense(units, activation="relu")(x))
        case _:
            x = layers.Flatten()(inputs)
            for units in (256, 128):
                x = layers.Dropout(0.2)(layers.Dense(units, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x), name=kind)


def augmentation(black: float) -> list[layers.Layer]:
    """Flips and small shifts, for all networks: a garment stays recognisable.

    Shifts are by whole pixels: interpolation would blur, and test images are not blurred. `black`
    is what the margin is filled with; the MLP's is not 0, since its pixels are standardised.
    """
    return [
        layers.RandomFlip("horizontal"),
        layers.RandomTranslation(
            MAX_SHIFT,
            MAX_SHIFT,
            fill_mode="constant",
            fill_value=black,
            interpolation="nearest",
        ),
    ]


# --- Train
def train(
    network: keras.Model, training: Split, validation: Split, epochs: int, options: Options
) -> History:
    """Train on augmented images; the network keeps the best weights."""
    return fit_classifier(
        network,
        augmentation(float(training.images.min())),
        training,
        validation,
        learning_rate=LEARNING_RATE,
        label_smoothing=LABEL_SMOOTHING,
        batch_size=BATCH_SIZE,
        epochs=epochs,
        checkpoints=options.checkpoints,
        patience=PATIENCE,
        monitor="val_accuracy",
    )


# --- Evaluate
def sibling_metrics(out: Path) -> dict[str, float]:
    """Accuracy and size of the other two networks, if they are in the same folder."""
    found: dict[str, float] = {}
    for kind in ("dense", "mlp"):
        manifests = [
            read_manifest(p.parent, TASKS) for p in (out / name_of(kind)).glob("*/manifest.json")
        ]
        if manifests:
            latest = max(manifests, key=lambda manifest: int(manifest.version))
            found[f"accuracy/network {kind}"] = latest.metrics["accuracy"]
            found[f"parameters/network {kind}"] = float(latest.parameters)
    return found


# --- Export
def card(kind: str) -> Card:
    """The text of the model card."""
    return Card(
        title=f"Fashion-MNIST, {'CNN' if kind == 'cnn' else kind + ' network'}",
        purpose=(
            "Names the kind of garment in a picture of a single one: a Fashion-MNIST image, or a "
            "product photo on a plain background. A teaching model and a benchmark of serving."
        ),
        not_for=(
            "Clothes worn by people, several garments in one picture, busy backgrounds, or any "
            "decision about people. Anything that is not one of the ten classes still gets one of "
            "their names."
        ),
        data=(
            "Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747; MIT, Zalando SE): the "
            "official training images, of which a twelfth were held out for validation, and the "
            "official test images. 28x28 grey, made from photos of one shop's catalogue. An image "
            "of that form reaches the network untouched; any other goes through the procedure of "
            "section 2 of the paper, without its sharpening, as the manifest's `input` describes."
        ),
        limits=(
            "Shirts are the hardest class: they are taken for T-shirts, pullovers and coats, at "
            "28x28 by people, too. The photos are of one European shop of about 2015, on a light "
            "background, laid out or on invisible mannequins. The answer to a photo depends on how "
            "plain its background is, since the margin is trimmed by colour. Probabilities are not "
            "calibrated."
        ),
        results=results,
    )


def results(manifest: Manifest) -> str:
    """The figures of the network; with those of the CNN, the course's other two networks."""
    own = Classification.results(manifest)
    if manifest.training.arguments["network"] != "cnn":
        return own
    metrics = manifest.metrics
    lines = [
        own,
        "",
        "The course's three networks on the same test images:",
        "",
        "| network | parameters | accuracy |",
        "|---|---|---|",
        f"| cnn | {manifest.parameters:,} | {metrics['accuracy']:.4f} |",
    ]
    for kind in ("dense", "mlp"):
        if f"accuracy/network {kind}" in metrics:
            parameters = round(metrics[f"parameters/network {kind}"])
            accuracy = metrics[f"accuracy/network {kind}"]
            lines.append(f"| {kind} | {parameters:,} | {accuracy:.4f} |")
        else:
            lines.append(f"| {kind} | train it first: `--network {kind}` | |")
    return "\n".join(lines)
