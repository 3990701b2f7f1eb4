"""VGG16's convolutions from scratch: a base for `transfer` where ImageNet's weights are missing.

Data: Tiny-ImageNet-200 (100,000 + 10,000 images, 64x64) in one packed file, --data (default:
data/tiny-imagenet.npz). Its format: `python -m pydoc training.packed`.
Five and a half hours on 2 CPU cores with AVX-512 BF16.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from service.pixels.preprocess import scale
from service.pixels.spec import Cover, Input, Scale
from training.card import Card
from training.crops import Crops, steps_per_epoch
from training.data import check_labels, hold_out_indices, one_hot, sha256_of
from training.drawings import goldfish
from training.errors import DataError
from training.evaluation import classification_metrics
from training.export import CALIBRATION_IMAGES, Trained, export
from training.fit import History, epochs_done, first_epochs, fit, join, seed_everything
from training.half import round_to_half
from training.options import PRECISION_OPTION, Options
from training.packed import PackedSet, read_packed
from training.plots import plot_curves
from training.precision import best_policy, computing_in
from training.tasks import Classification
from training.vgg16 import classifier, convolutions, fold, head, set_weights

# --- Config
DATA = Path("data/tiny-imagenet.npz")
OPTIONS = PRECISION_OPTION
SIDE = 64
INPUT = Input(
    shape=(SIDE, SIDE, 3), color="rgb", resize=Cover(), scale=Scale(mean=0.45, deviation=0.27)
)
WARM_UP = 0.05  # the share of a cycle
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
LABEL_SMOOTHING = 0.1  # Szegedy et al. 2016, arXiv:1512.00567
VALIDATION_COUNT = 2_000  # held out of the training images


@dataclass(frozen=True)
class Stage:
    """Epochs at one image size; the learning rate rises and falls."""

    side: int
    epochs: int
    peak_rate: float
    cycle: float = 1.0
    """Length of the rise and fall, in stages: above 1 the stage ends before the rate is 0."""


# Small images are fast, and half of the accuracy can be learned from them.
STAGES = (
    Stage(32, epochs=24, peak_rate=0.1, cycle=4 / 3),
    Stage(48, epochs=20, peak_rate=0.05, cycle=1.2),
    Stage(SIDE, epochs=4, peak_rate=0.01),
)
_WORDNET_ID = re.compile(r"^n\d{8} ")


def run(options: Options) -> Path:
    """Data, network, train, evaluate, export; returns the artifact's folder."""
    seed_everything(options.seed)
    assert options.data is not None  # DATA if not given
    packed = read_packed(options.data)
    digest = sha256_of([packed.path])
    labels = label_names(packed.classes)
    check_labels(labels, packed.path)
    order = np.random.default_rng(options.seed).permutation(np.flatnonzero(~packed.validation))
    held = order[: 100 if options.smoke else min(VALIDATION_COUNT, len(order) // 10)]
    taught = order[len(held) : len(held) + 300 if options.smoke else None]
    tested = np.flatnonzero(packed.validation)
    if options.smoke:
        _, few = hold_out_indices(packed.labels[tested], 0.02, options.seed)
        tested = tested[few]
    if not len(held):
        raise DataError(
            f"{packed.path}: expected at least 10 images for training, got {len(order)}"
        )
    for purpose, indices in (("for training", order), ("marked as validation", tested)):
        lacking = np.setdiff1d(np.arange(len(labels)), packed.labels[indices])
        if len(lacking):
            raise DataError(
                f"{packed.path}: expected images {purpose} for each class, got none of "
                f"{', '.join(labels[label] for label in lacking[:5])} ({len(lacking)} classes)"
            )
    print(f"{len(taught)} training and {len(held)} validation images of {len(labels)} classes")

    policy = options.arguments["precision"] or best_policy()
    checkpoints = options.checkpoints_of(next(iter(digest.values()))) / policy
    histories, network = train(
        packed, taught, held, policy=policy, checkpoints=checkpoints, options=options
    )

    test = scale(packed.pixels(tested, INPUT), INPUT.scale)
    probabilities = network.predict(test)
    truth = packed.labels[tested]
    metrics = classification_metrics(truth, probabilities, labels)
    print(f"Test accuracy {metrics['accuracy']:.4f} on {len(tested)} images")

    def draw_figures(target: Path) -> None:
        last = len(histories[-1]["loss"])  # the stage whose best weights were kept
        stages = first_epochs([f"{stage.side}x{stage.side}" for stage in STAGES], histories)
        curves = target / "curves.png"
        plot_curves(join(histories), "val_accuracy", curves, last=last, stages=stages)

    return export(
        Trained(
            name="vgg16-base",
            task=Classification(labels),
            latency_objective_s=1.0,
            input=INPUT,
            network=network,
            validation=scale(packed.pixels(held, INPUT), INPUT.scale),
            validation_truth=packed.labels[held],
            calibration=scale(packed.pixels(taught[:CALIBRATION_IMAGES], INPUT), INPUT.scale),
            metrics=metrics,
            sample=goldfish(),
            dataset=f"{packed.path.stem}: {len(taught)} training images",
            dataset_sha256=digest,
            seconds=sum(join(histories)["seconds"]),
            card=CARD,
            draw_figures=draw_figures,
        ),
        options.recording(precision=policy),
    )


# --- Data
def label_names(classes: tuple[str, ...]) -> tuple[str, ...]:
    """The first name of each class, without a WordNet id; the full text if two would be equal."""
    names = [_WORDNET_ID.sub("", name) for name in classes]
    short = [name.partition(",")[0] for name in names]
    return tuple(
        brief if short.count(brief) == 1 else whole
        for brief, whole in zip(short, names, strict=True)
    )


# --- Train
class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly, falls on a cosine (Smith, Topin 2018, arXiv:1708.07120)."""

    def __init__(self, peak_rate: float, steps: float) -> None:
        super().__init__()
        self._peak_rate, self._steps = peak_rate, steps

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step."""
        part = keras.ops.minimum(keras.ops.cast(step, "float32") / self._steps, 1)
        falling = (1 + keras.ops.cos(math.pi * (part - WARM_UP) / (1 - WARM_UP))) / 2
        return self._peak_rate * keras.ops.minimum(part / WARM_UP, falling)


def train(
    packed: PackedSet,
    taught: np.ndarray,
    held: np.ndarray,
    *,
    policy: str,
    checkpoints: Path,
    options: Options,
) -> tuple[list[History], keras.Model]:
    """Train on images of growing size; returns the histories and the network without batch norm."""
    classes = len(packed.classes)
    most = options.epochs or (1 if options.smoke else max(stage.epochs for stage in STAGES))
    with computing_in(policy):
        network = build(classes)
    pixels = packed.pixels(taught, INPUT)
    steps = steps_per_epoch(len(taught))
    histories = []
    for stage in STAGES:
        side, epochs = stage.side, min(stage.epochs, most)
        schedule = OneCycle(stage.peak_rate, stage.cycle * epochs * steps)
        optimizer = keras.optimizers.SGD(
            schedule, MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY
        )
        optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
        network.compile(
            optimizer,
            keras.losses.CategoricalCrossentropy(label_smoothing=LABEL_SMOOTHING),
            metrics=["accuracy"],
        )
        print(f"{epochs} epochs at {side}x{side}")
        # Validate at the stage's own size: results at another do not tell which epoch is best.
        spec = INPUT.model_copy(update={"shape": (side, side, 3)})
        validation = scale(packed.pixels(held, spec), spec.scale)
        folder = checkpoints / str(side)
        crops = Crops(
            pixels,
            packed.labels[taught],
            spec,
            classes=classes,
            seed=options.seed,
            epoch=epochs_done(folder),
        )
        histories.append(
            fit(
                network,
                crops,
                (validation, one_hot(packed.labels[held], classes)),
                checkpoints=folder,
                epochs=epochs,
                monitor="val_accuracy",
            )
        )
    plain = classifier(classes, SIDE)
    set_weights(plain, fold(network) | {"logits": network.get_layer("logits").get_weights()})
    round_to_half(plain)
    return histories, plain


def build(classes: int) -> keras.Model:
    """Build VGG16 with batch normalisation, for images of any size."""
    inputs = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(convolutions(inputs, batch_normalisation=True))
    return keras.Model(inputs, head(x, classes), name="vgg16_bn")


# --- Export
CARD = Card(
    title="VGG16, trained from scratch on small images",
    purpose=(
        "Weights to start from: `python -m training transfer --base` takes its convolutions where "
        "ImageNet's cannot be had. As a model of its own it names one of 200 kinds of things."
    ),
    not_for=(
        "A photo search or a decision of any kind: more than half of its answers are wrong. What "
        "is none of the 200 kinds still gets one of their names."
    ),
    data=(
        "Tiny-ImageNet-200 (Stanford CS231n): 500 training images of each of 200 classes of "
        "ImageNet, 64x64; some of them were held out for validation, and the official "
        "validation images were used as the test split. ImageNet's terms: research only; no "
        "image is part of this project."
    ),
    limits=(
        "64x64 pixels of pictures from the web before 2010: mostly North American and European, "
        "with the errors of ImageNet's labels. Trained for a few epochs on a CPU: ImageNet's own "
        "weights know much more."
    ),
    figures=(("Loss and accuracy by epoch", "curves.png"),),
)
