"""Weights on a grid of 8 bits, rounded so that the layers' answers change least: GPTQ.

Frantar, Ashkboos, Hoefler, Alistarh 2022, arXiv:2210.17323. The weights that feed an output are
rounded one after another, and those that are still to come make up for the error of each, as far as
the layer's inputs are correlated. In VGG16's convolutions that leaves a tenth of the squared error
that rounding each to its nearest makes.
"""

import math

import keras
import numpy as np
from tqdm import tqdm

from service.preprocess import Floats

LEVELS = 127  # the converter's grid, for each output channel: -127 to 127 times a scale
ROWS = 8192  # of inputs to a layer that its errors are weighed with
DAMPING = 0.01  # of the mean square of an input
BLOCK = 128  # weights that are rounded before the others hear of it


def round_weights(network: keras.Model, images: Floats) -> keras.Model:
    """A copy whose convolutions and dense layers have weights that 8 bits hold exactly.

    images (n, height, width, channels) are what the network may be given, about 400 of them.
    """
    rounded = keras.models.clone_model(network)
    rounded.set_weights(network.get_weights())
    layers = [layer for layer in network.layers if _can_be_rounded(layer)]
    moments = _moments(network, layers, images)
    for layer in tqdm(layers, "round"):
        kernel, *bias = layer.get_weights()
        flat = kernel.reshape(-1, kernel.shape[-1])
        on_grid = round_to_grid(flat, moments.pop(layer.name)).reshape(kernel.shape)
        rounded.get_layer(layer.name).set_weights([on_grid, *bias])
    return rounded


def round_to_grid(weights: np.ndarray, moments: np.ndarray) -> Floats:
    """Weights (inputs, outputs), each column on its grid.

    moments (inputs, inputs) are the means of the products of two inputs. The largest weight of a
    column stays where it is, for the converter takes the scale from it.
    """
    scale = np.abs(weights).max(axis=0) / LEVELS
    scale[scale == 0] = 1
    power = np.diag(moments)
    order = np.argsort(-power)  # the inputs that matter most have the most others to make up
    damped = moments[np.ix_(order, order)].astype(np.float64)
    damped[np.diag_indices_from(damped)] += DAMPING * power.mean() + np.finfo(np.float32).tiny
    share = np.linalg.cholesky(np.linalg.inv(damped)).T
    left = weights[order].astype(np.float64)
    fixed = np.abs(left).argmax(axis=0)
    whole = np.empty_like(left)
    for start in range(0, len(left), BLOCK):
        end = min(start + BLOCK, len(left))
        errors = np.empty((end - start, left.shape[1]))
        for row in range(start, end):
            nearest = np.clip(np.round(left[row] / scale), -LEVELS, LEVELS)
            whole[row] = np.where(fixed == row, weights[order[row]], nearest * scale)
            errors[row - start] = (left[row] - whole[row]) / share[row, row]
            left[row + 1 : end] -= np.outer(share[row, row + 1 : end], errors[row - start])
        left[end:] -= share[start:end, end:].T @ errors
    result = np.empty_like(weights, dtype=np.float32)
    result[order] = whole
    return result


def _can_be_rounded(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.layers.Conv2D):
        return layer.groups == 1
    return isinstance(layer, keras.layers.Dense)


def _moments(
    network: keras.Model, layers: list[keras.layers.Layer], images: Floats
) -> dict[str, np.ndarray]:
    """By layer: the means of the products of its inputs, over random places of every image."""
    inputs = keras.Model(network.input, {layer.name: layer.input for layer in layers})
    random = np.random.default_rng(0)
    places = math.ceil(ROWS / len(images))
    sums: dict[str, np.ndarray] = {}
    counts = dict.fromkeys(inputs.output, 0)
    for image in tqdm(images, "weigh inputs"):
        values = inputs.predict_on_batch(image[np.newaxis])
        for layer in layers:
            rows = _rows(layer, values[layer.name])
            rows = rows[random.permutation(len(rows))[:places]]
            sums[layer.name] = sums.get(layer.name, 0) + rows.T @ rows
            counts[layer.name] += len(rows)
    return {name: total / counts[name] for name, total in sums.items()}


def _rows(layer: keras.layers.Layer, values: Floats) -> Floats:
    """What the layer multiplies its kernel with, (n, inputs): of a convolution, its windows."""
    if isinstance(layer, keras.layers.Dense):
        return values.reshape(-1, values.shape[-1])
    import tensorflow as tf

    windows: Floats = tf.image.extract_patches(
        values,
        sizes=[1, *layer.kernel_size, 1],
        strides=[1, *layer.strides, 1],
        rates=[1, *layer.dilation_rate, 1],
        padding=layer.padding.upper(),
    ).numpy()
    return windows.reshape(-1, windows.shape[-1])
