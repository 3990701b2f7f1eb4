"""VGG16's convolutions: the network that Keras has, without batch normalisation, on both bases."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="training needs TensorFlow")

import keras

from service.pixels.preprocess import scale
from service.pixels.spec import Cover, Input
from tests.conftest import SHIPPED_MODELS
from training.errors import TrainingError
from training.recipes.vgg16_base import build
from training.vgg16 import (
    IMAGENET,
    NAMES,
    BatchNormalization,
    classifier,
    fold,
    load_base,
    set_weights,
)

SIDE = 32


@pytest.fixture(scope="module")
def pixels() -> Any:
    return np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)


def features(network: Any, images: Any) -> Any:
    """What the last convolution's pooling gives."""
    part = keras.Model(network.input, network.get_layer("block5_pool").output)
    return np.asarray(part.predict_on_batch(images))


def test_layout_is_that_of_keras() -> None:
    ours = classifier(2, 224)
    theirs = keras.applications.VGG16(weights=None, include_top=False, input_shape=(224, 224, 3))
    for name in NAMES:
        assert [w.shape for w in ours.get_layer(name).weights] == [
            w.shape for w in theirs.get_layer(name).weights
        ]
    assert len(NAMES) == 13
    assert ours.get_layer("block5_pool").output.shape == theirs.output.shape


def test_network_without_batch_normalisation_answers_as_the_one_with_it(pixels: Any) -> None:
    keras.utils.set_random_seed(1)
    trained, random = build(5), np.random.default_rng(1)
    for name in NAMES:
        normalisation = trained.get_layer(f"{name}_bn")
        shape = normalisation.gamma.shape
        gamma, beta, mean, variance = (random.uniform(0.5, 1.5, shape) for _ in range(4))
        normalisation.set_weights([gamma, beta - 1, mean - 1, variance])
    plain = classifier(5, SIDE)
    set_weights(plain, fold(trained) | {"logits": trained.get_layer("logits").get_weights()})
    images = pixels.astype(np.float32) / 255
    np.testing.assert_allclose(
        plain.predict_on_batch(images), trained.predict_on_batch(images), rtol=1e-3, atol=1e-5
    )


def test_batch_normalisation_in_one_operation_is_that_of_keras() -> None:
    images = np.random.default_rng(2).normal(3, 2, (8, 5, 5, 4)).astype(np.float32)
    ours, theirs = BatchNormalization(momentum=0.9), keras.layers.BatchNormalization(momentum=0.9)
    for training in (True, True, False):
        came, expected = (np.asarray(each(images, training=training)) for each in (ours, theirs))
        np.testing.assert_allclose(came, expected, atol=1e-2)
    assert abs(came.mean()) > 0.1  # what is kept of two batches is not yet their mean
    for kept, wanted in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        # The variance that is kept is the sample's, n - 1, in one of them.
        np.testing.assert_allclose(kept, wanted, rtol=1e-2)


def test_weights_of_imagenet_see_what_keras_prepares_for_them(
    pixels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras.utils.set_random_seed(1)
    theirs = keras.applications.VGG16(weights=None, include_top=False)
    monkeypatch.setattr(keras.applications, "VGG16", lambda **_: theirs)
    base = load_base(IMAGENET)
    ours = classifier(2, SIDE)
    set_weights(ours, base.weights)
    prepared = keras.applications.vgg16.preprocess_input(pixels.astype(np.float32))
    spec = Input(shape=(SIDE, SIDE, 3), color="rgb", resize=Cover(), scale=base.scale)
    np.testing.assert_allclose(
        features(ours, scale(pixels, spec.scale)),
        np.asarray(theirs.predict_on_batch(prepared)),
        rtol=1e-3,
        atol=1e-3,
    )


def test_weights_of_imagenet_that_cannot_be_had_are_an_error_that_names_the_alternative(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(**_: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(keras.applications, "VGG16", fail)
    with pytest.raises(TrainingError) as caught:
        load_base(IMAGENET)
    assert "no network" in str(caught.value)
    assert "--base models/vgg16-base/1" in str(caught.value)


@pytest.mark.parametrize(
    "folder", [SHIPPED_MODELS / "hand-signs" / "1", Path("nowhere"), SHIPPED_MODELS]
)
def test_folder_without_these_convolutions_is_refused(folder: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        load_base(str(folder))
    assert "expected imagenet or the folder of an artifact that has VGG16's" in str(caught.value)
    assert str(folder) in str(caught.value)
