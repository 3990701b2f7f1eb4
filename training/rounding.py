"""Round weights to 8 bits so that the outputs of the layers change least: GPTQ.

Frantar, Ashkboos, Hoefler, Alistarh 2022, arXiv:2210.17323; here without a matrix inverse, as LDLQ
in Chee, Cai, Kuleshov, De Sa 2023, arXiv:2307.13304. The weights of an output are rounded one after
another. Each one compensates for the errors of those before it, as far as the layer's inputs are
correlated. On VGG16's convolutions the squared error is a tenth of that of plain rounding.
"""

import math

import keras
import numpy as np
from tqdm import tqdm

from service.pixels.preprocess import Floats

LEVELS = 127  # the converter's grid, for each output channel: -127 to 127 times a scale
MIN_WEIGHTS = 1024  # of a layer: the converter does not quantise smaller ones
MAX_INPUTS = 8192  # to a layer: their moments and copies of these take 2 GiB
ROWS = 8192  # samples of a layer's inputs that its moments are estimated from
CHUNK = 50  # images per matrix product: products of few rows are mostly overhead
DAMPING = 0.01  # of the mean square of an input
BLOCK = 128  # rows that are rounded before the rest is updated


def round_weights(network: keras.Model, images: Floats) -> keras.Model:
    """A copy whose convolutions and dense layers have weights that are exact in 8 bits.

    images (n, height, width, channels) are typical inputs of the network, about 400 of them. Layers
    of more than MAX_INPUTS inputs or fewer than MIN_WEIGHTS weights are not changed.
    """
    rounded = keras.models.clone_model(network)
    rounded.set_weights(network.get_weights())
    layers = [layer for layer in network.layers if _can_be_rounded(layer)]
    moments = _moments(network, layers, images) if layers else {}
    for layer in tqdm(layers, "round"):
        kernel, *bias = layer.get_weights()
        flat = kernel.reshape(-1, kernel.shape[-1])
        on_grid = round_to_grid(flat, moments.pop(layer.name)).reshape(kernel.shape)
        rounded.get_layer(layer.name).set_weights([on_grid, *bias])
    return rounded


def round_to_grid(weights: np.ndarray, moments: np.ndarray) -> Floats:
    """Round weights (inputs, outputs), each column to its own grid.

    moments (inputs, inputs) are the means of the products of two inputs. The largest weight of a
    column is not changed, because the converter derives the scale from it.
    """
    scale = np.abs(weights).max(axis=0) / LEVELS
    scale[scale == 0] = 1
    power = np.diag(moments)
    order = np.argsort(-power)  # errors of large inputs first: more weights are left to compensate
    damped = moments[np.ix_(order, order)].astype(np.float64)
    damped[np.diag_indices_from(damped)] += DAMPING * power.mean() + np.finfo(np.float32).tiny
    # moments = upper @ upper.T: a Cholesky decomposition in reverse order.
    upper = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
    feedback = np.ascontiguousarray(upper / np.diag(upper))
    exact = weights[order].astype(np.float64)
    fixed = np.abs(exact).argmax(axis=0)
    wanted, errors = exact.copy(), np.empty_like(exact)
    for start in range(0, len(exact), BLOCK):
        block = slice(start, start + BLOCK)
        for row in range(start, min(start + BLOCK, len(exact))):
            before = slice(start, row)
            wanted[row] += feedback[before, row] @ errors[before]
            nearest = scale * np.clip(np.round(wanted[row] / scale), -LEVELS, LEVELS)
            errors[row] = np.where(fixed == row, 0, exact[row] - nearest)
        after = slice(start + BLOCK, None)
        wanted[after] += feedback[block, after].T @ errors[block]
    rounded = np.empty(weights.shape, np.float32)
    rounded[order] = exact - errors
    return rounded


def _can_be_rounded(layer: keras.layers.Layer) -> bool:
    whole_convolution = isinstance(layer, keras.layers.Conv2D) and layer.groups == 1
    if not (whole_convolution or isinstance(layer, keras.layers.Dense)):
        return False
    *inputs, outputs = layer.kernel.shape
    return math.prod(inputs) <= MAX_INPUTS and math.prod(inputs) * outputs >= MIN_WEIGHTS


def _moments(
    network: keras.Model, layers: list[keras.layers.Layer], images: Floats
) -> dict[str, np.ndarray]:
    """Layer name -> the means of the products of its inputs, at random places of every image."""
    inputs = keras.Model(network.inputs, {layer.name: layer.input for layer in layers})
    random = np.random.default_rng(0)
    places = math.ceil(ROWS / len(images))
    sums: dict[str, np.ndarray] = {}
    counts = dict.fromkeys(inputs.output, 0)
    for start in tqdm(range(0, len(images), CHUNK), "input moments"):
        chunk: dict[str, list[Floats]] = {name: [] for name in counts}
        for image in images[start : start + CHUNK]:
            values = inputs.predict_on_batch(image[np.newaxis])
            for layer in layers:
                rows = _rows(layer, values[layer.name])
                chunk[layer.name].append(rows[random.permutation(len(rows))[:places]])
        for name, parts in chunk.items():
            together = np.concatenate(parts)
            sums[name] = sums.get(name, 0) + together.T @ together
            counts[name] += len(together)
    return {name: total / counts[name] for name, total in sums.items()}


def _rows(layer: keras.layers.Layer, values: Floats) -> Floats:
    """What the layer multiplies by its kernel, (n, inputs): for a convolution, its windows."""
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
