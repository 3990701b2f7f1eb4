"""VGG16's convolutions (Simonyan, Zisserman 2015, arXiv:1409.1556) and pretrained weights."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from service.artifacts.files import Artifact, verify
from service.artifacts.manifest import Manifest, read_manifest
from service.errors import ArtifactError
from service.pixels.spec import Scale
from service.tasks import TASKS
from training.errors import TrainingError
from training.options import IMAGENET

# Channels and number of convolutions of each block; a pooling follows.
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
NAMES = tuple(
    f"block{block}_conv{number}"
    for block, (_, count) in enumerate(BLOCKS, 1)
    for number in range(1, count + 1)
)
SHRINKAGE = 2 ** len(BLOCKS)  # each pooling halves the sides
# The means that keras.applications.vgg16 subtracts from 0..255, in RGB order.
IMAGENET_SCALE = Scale(divisor=1.0, mean=(123.68, 116.779, 103.939))

Weights = dict[str, list[np.ndarray]]


@dataclass(frozen=True)
class Base:
    """Pretrained convolutions: for each layer, kernel (3, 3, in, out) and bias (out,)."""

    name: str
    argument: str
    """The value of --base that names it on any machine."""
    scale: Scale
    weights: Weights
    sha256: str


class BatchNormalization(layers.BatchNormalization):
    """Keras's own, trained with TensorFlow's fused operation: a fifth faster on a CPU."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise each channel of images (n, h, w, channels)."""
        if not training or keras.backend.backend() != "tensorflow":
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        normal, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            tf.convert_to_tensor(self.gamma),
            tf.convert_to_tensor(self.beta),
            epsilon=self.epsilon,
        )
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return normal


def convolutions(x: Any, *, batch_normalisation: bool = False) -> Any:
    """The five blocks with Keras's names, (n, h, w, 3) -> (n, h / 32, w / 32, 512).

    Training from scratch needs batch normalisation (Ioffe, Szegedy 2015, arXiv:1502.03167); `fold`
    removes it afterwards.
    """
    for block, (channels, count) in enumerate(BLOCKS, 1):
        for number in range(1, count + 1):
            name = f"block{block}_conv{number}"
            x = layers.Conv2D(
                channels,
                3,
                padding="same",
                use_bias=not batch_normalisation,
                kernel_initializer="he_normal",
                name=name,
            )(x)
            if batch_normalisation:
                x = BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
            x = layers.ReLU(name=f"{name}_relu")(x)
        x = layers.MaxPooling2D(name=f"block{block}_pool")(x)
    return x


def classifier(classes: int, side: int, *, dropout: float = 0.0) -> keras.Model:
    """The convolutions, global average pooling, and one dense layer with a softmax."""
    inputs = keras.Input((side, side, 3))
    x = layers.GlobalAveragePooling2D(name="pool")(convolutions(inputs))
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(inputs, head(x, classes), name="vgg16")


def head(x: Any, classes: int) -> Any:
    """Logits and their softmax, in float32 even if the rest is half precision."""
    x = layers.Dense(classes, name="logits", dtype="float32")(x)
    return layers.Softmax(name="probabilities", dtype="float32")(x)


def fold(trained: keras.Model) -> Weights:
    """Merge batch normalisation into kernel and bias of each convolution."""
    weights: Weights = {}
    for name in NAMES:
        (kernel,) = trained.get_layer(name).get_weights()
        normalisation = trained.get_layer(f"{name}_bn")
        gamma, beta, mean, variance = normalisation.get_weights()
        factor = gamma / np.sqrt(variance + normalisation.epsilon)
        weights[name] = [kernel * factor, beta - mean * factor]
    return weights


def set_weights(network: keras.Model, weights: Weights) -> None:
    """Set the weights of the layers with these names."""
    for name, arrays in weights.items():
        network.get_layer(name).set_weights(arrays)


def load_base(base: str) -> Base:
    """Load `imagenet`, or the folder of an artifact that starts with VGG16's convolutions.

    Raises TrainingError that names an alternative.
    """
    return _imagenet() if base == IMAGENET else _of_artifact(Path(base))


def _imagenet() -> Base:
    try:
        network = keras.applications.VGG16(weights=IMAGENET, include_top=False)
    except Exception as error:
        raise TrainingError(
            f"ImageNet's weights for VGG16 could not be loaded ({error}). Put Keras's file into "
            "its cache (KERAS_HOME), or use the weights that this project trained: "
            "--base models/vgg16-base/1"
        ) from error
    weights = {name: network.get_layer(name).get_weights() for name in NAMES}
    kernel, bias = weights[NAMES[0]]
    weights[NAMES[0]] = [kernel[:, :, ::-1], bias]  # trained on BGR, used with RGB
    return Base(IMAGENET, IMAGENET, IMAGENET_SCALE, weights, _sha256(weights))


def _of_artifact(folder: Path) -> Base:
    try:
        manifest = read_manifest(folder, TASKS)
        verify(Artifact(folder, manifest))
        network = keras.saving.load_model(folder / manifest.engines["keras"].file, compile=False)
        weights = {name: network.get_layer(name).get_weights() for name in NAMES}
        _check_shapes(weights)
    except (ArtifactError, KeyError, ValueError) as error:
        raise TrainingError(
            f"--base: expected {IMAGENET} or the folder of an artifact that has VGG16's "
            f"convolutions {NAMES[0]} to {NAMES[-1]}, got {folder}: {error}"
        ) from error
    return Base(
        f"{manifest.name} {manifest.version}",
        _shown(folder, manifest),
        manifest.input.scale,
        weights,
        _sha256(weights),
    )


def _check_shapes(weights: Weights) -> None:
    expected = keras.Model(inputs := keras.Input((SHRINKAGE, SHRINKAGE, 3)), convolutions(inputs))
    for name, arrays in weights.items():
        shapes = [tuple(array.shape) for array in arrays]
        wanted = [tuple(variable.shape) for variable in expected.get_layer(name).weights]
        if shapes != wanted:
            raise ValueError(f"{name} has weights of the shapes {shapes}, not {wanted}")


def _shown(folder: Path, manifest: Manifest) -> str:
    """A path that is valid in another checkout too, where possible."""
    if folder.resolve().is_relative_to(Path.cwd()):
        return folder.resolve().relative_to(Path.cwd()).as_posix()
    return f"models/{manifest.name}/{manifest.version}"


def _sha256(weights: Weights) -> str:
    digest = hashlib.sha256()
    for arrays in weights.values():
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
