"""Rounding to 8 bits by GPTQ: on the converter's grid, and nearer to the layer's answers."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="windows are cut out with TensorFlow")

import keras

from service.pixels.preprocess import Floats
from training.rounding import LEVELS, MAX_INPUTS, round_to_grid, round_weights


def grid(weights: Floats) -> Floats:
    """The step of each column, as the converter takes it."""
    scale: Floats = np.abs(weights).max(axis=0) / LEVELS
    return scale


def correlated(random: np.random.Generator) -> Floats:
    """Inputs (2000, 40) of which every one is nearly a mixture of a few."""
    few = random.normal(size=(2000, 6)) @ random.normal(size=(6, 40))
    return (few + 0.1 * random.normal(size=few.shape)).astype(np.float32)


def test_weights_lie_on_the_grid_that_the_converter_finds() -> None:
    random = np.random.default_rng(0)
    inputs = correlated(random)
    weights = random.normal(size=(40, 8)).astype(np.float32)
    rounded = round_to_grid(weights, inputs.T @ inputs / len(inputs))
    np.testing.assert_array_equal(grid(rounded), grid(weights))
    steps = rounded / grid(weights)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    assert np.abs(steps).max() == pytest.approx(LEVELS)


def test_answers_are_nearer_than_with_each_weight_at_its_nearest() -> None:
    random = np.random.default_rng(0)
    inputs = correlated(random)
    weights = random.normal(size=(40, 8)).astype(np.float32)
    rounded = round_to_grid(weights, inputs.T @ inputs / len(inputs))
    nearest = np.round(weights / grid(weights)) * grid(weights)
    errors = [float(np.square(inputs @ (it - weights)).mean()) for it in (rounded, nearest)]
    assert errors[0] < 0.3 * errors[1]


def test_output_without_weights_stays_without() -> None:
    weights = np.zeros((4, 2), np.float32)
    np.testing.assert_array_equal(round_to_grid(weights, np.eye(4, dtype=np.float32)), weights)


def test_input_that_is_always_0_does_no_harm() -> None:
    moments = np.diag([1.0, 0.0, 2.0]).astype(np.float32)
    weights = np.array([[1.0], [0.503], [0.2504]], np.float32)
    rounded = round_to_grid(weights, moments)
    np.testing.assert_allclose(rounded, weights, atol=0.5 / LEVELS)


@pytest.mark.parametrize(("padding", "strides"), [("same", 1), ("valid", 1), ("same", 2)])
def test_network_answers_nearly_the_same(padding: str, strides: int) -> None:
    network = build(padding, strides)
    random = np.random.default_rng(1)
    coarse = random.random((40, 3, 3, 2), dtype=np.float32)
    images = coarse.repeat(4, axis=1).repeat(4, axis=2)  # neighbours alike, as in photos
    rounded = round_weights(network, images)
    for name in ("first", "second", "last"):
        kernel = rounded.get_layer(name).get_weights()[0]
        steps = kernel / grid(kernel.reshape(-1, kernel.shape[-1]))
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
        np.testing.assert_array_equal(
            *(n.get_layer(name).get_weights()[1] for n in (network, rounded))
        )
    nearest = keras.models.clone_model(network)
    for name in ("first", "second", "last"):
        kernel, bias = network.get_layer(name).get_weights()
        step = grid(kernel.reshape(-1, kernel.shape[-1]))
        nearest.get_layer(name).set_weights([np.round(kernel / step) * step, bias])
    exact = network.predict_on_batch(images)
    ours, theirs = (np.abs(n.predict_on_batch(images) - exact).mean() for n in (rounded, nearest))
    assert ours < theirs


def test_layer_of_too_many_inputs_stays_as_it_is() -> None:
    inputs = keras.Input((2, MAX_INPUTS // 2 + 1, 1))
    network = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
    images = np.ones((2, *inputs.shape[1:]), np.float32)
    rounded = round_weights(network, images)
    for before, after in zip(network.get_weights(), rounded.get_weights(), strict=True):
        np.testing.assert_array_equal(after, before)


def test_layer_that_the_converter_leaves_alone_stays_as_it_is() -> None:
    inputs = keras.Input((1, 1, 255))
    network = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    rounded = round_weights(network, np.ones((2, 1, 1, 255), np.float32))
    np.testing.assert_array_equal(rounded.get_weights()[0], network.get_weights()[0])


def test_sequential_network_is_rounded_as_the_same_functional_one() -> None:
    functional = build("same", 1)
    sequential = keras.Sequential([keras.layers.Conv2D(64, 3, padding="same", activation="relu")])
    for layer in functional.layers[2:]:
        sequential.add(type(layer).from_config(layer.get_config()))
    images = np.random.default_rng(1).random((10, 12, 12, 2), dtype=np.float32)
    sequential(images)  # without an Input layer, the first call gives it its shape
    sequential.set_weights(functional.get_weights())
    expected, came = round_weights(functional, images), round_weights(sequential, images)
    for before, after in zip(expected.get_weights(), came.get_weights(), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-6)


def build(padding: str, strides: int) -> Any:
    """Two convolutions and a dense layer with random weights and biases."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((12, 12, 2))
    x = layers.Conv2D(64, 3, padding=padding, activation="relu", name="first")(inputs)
    x = layers.Conv2D(32, 3, padding=padding, strides=strides, name="second")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(32, name="last")(x))
