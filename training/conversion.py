"""A Keras network as LiteRT files: in float32, and in 8 bits in two ways."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from service.artifacts.manifest import EngineName
from service.pixels.preprocess import Floats
from training.errors import ExportError
from training.rounding import round_weights

REPRESENTATIVE_IMAGES = 100  # the ranges of activations are measured on them


def convert(network: keras.Model, images: Floats, folder: Path) -> dict[EngineName, Path]:
    """Write the network in float32, with 8-bit weights, and with 8-bit weights and activations.

    `images` (n, height, width, channels) are typical inputs: the rounding is fitted to them. Raises
    ExportError if LiteRT cannot take the network.
    """
    import tensorflow as tf

    def representative() -> Iterator[list[Floats]]:
        yield from ([image[np.newaxis]] for image in images[:REPRESENTATIVE_IMAGES])

    def converter(name: str) -> Any:
        return tf.lite.TFLiteConverter.from_saved_model(str(folder / name))

    network.export(folder / "exact", verbose=False)
    round_weights(network, images).export(folder / "rounded", verbose=False)
    exact, dynamic, static = (converter(name) for name in ("exact", "rounded", "rounded"))
    dynamic.optimizations = static.optimizations = [tf.lite.Optimize.DEFAULT]
    static.representative_dataset = representative
    converters: dict[EngineName, Any] = {
        "litert": exact,
        "litert-dynamic-int8": dynamic,
        "litert-int8": static,
    }
    files: dict[EngineName, Path] = {}
    for name, each in tqdm(converters.items(), "convert"):
        try:
            converted = each.convert()
        except Exception as error:  # the converter raises many types
            if name == "litert":
                raise ExportError(f"LiteRT cannot take this network: {error}") from error
            print(f"No {name}: the network cannot be converted: {error}")
            continue
        files[name] = folder / f"{name}.tflite"
        files[name].write_bytes(converted)
    return files
