"""A `.keras` file on Keras 3's backend: TensorFlow, JAX or PyTorch, loaded when one is opened."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from service.artifacts.manifest import Device, EngineName
from service.engines.engine import Tensors, match_names
from service.errors import ArtifactError
from service.pixels.preprocess import Floats

HALF_POLICY = "mixed_float16"
SAFE_SUFFIX = ".keras"  # HDF5 and TensorFlow's saved models may hold code
MAX_REASON_LENGTH = 200


class KerasEngine:
    """A Keras network; `keras-half` computes in half precision.

    Weights and answers stay in float32.
    """

    fixed_sizes = True  # its backends compile the network again for each new shape

    def __init__(
        self,
        model: Path,
        device: Device,
        name: EngineName = "keras",
        *,
        inputs: Collection[str],
        outputs: Collection[str],
    ) -> None:
        """Load the file; raises ArtifactError where it is unsafe or not as described."""
        self.name = name
        self.device = device
        network = _load(model)
        self._inputs = match_names(inputs, _names(network, "input"), "inputs")
        self._outputs = match_names(outputs, _names(network, "output"), "outputs")
        self._takes_names = len(inputs) > 1 or _is_named(network, "input")
        self.network = _in_half(network) if name == "keras-half" else network

    def predict(self, batch: Tensors) -> dict[str, Floats]:
        """The network's outputs for a batch of its inputs, in the same order."""
        given = {own: batch[name] for name, own in self._inputs.items()}
        if self._takes_names:
            answer = self.network.predict_on_batch(given)
        else:
            (array,) = given.values()
            answer = self.network.predict_on_batch(array)
        if isinstance(answer, list):
            answer = dict(zip(self.network.output_names, answer, strict=True))
        if not isinstance(answer, dict):
            answer = dict.fromkeys(self._outputs.values(), answer)
        return {
            name: np.asarray(answer[own], dtype=np.float32) for name, own in self._outputs.items()
        }


def _load(model: Path) -> Any:
    """The network in a file, which may hold no code of its own, such as a Lambda layer."""
    import keras

    if model.suffix != SAFE_SUFFIX:
        raise ArtifactError(f"{model}: expected a {SAFE_SUFFIX} file, got another type")
    try:
        return keras.saving.load_model(model, compile=False, safe_mode=True)
    except (ValueError, TypeError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:MAX_REASON_LENGTH]
        raise ArtifactError(f"{model} is not loaded: {reason}") from error


def _names(network: Any, side: str) -> list[str]:
    """The names of a network's inputs or outputs: a dictionary's keys, or those of the layers."""
    if _is_named(network, side):
        return list(_structure(network, side))
    return list(getattr(network, f"{side}_names", None) or [side])


def _is_named(network: Any, side: str) -> bool:
    return isinstance(_structure(network, side), dict)


def _structure(network: Any, side: str) -> Any:
    return getattr(network, f"_{side}s_struct", None)  # Keras keeps the keys nowhere else


def _in_half(network: Any) -> Any:
    """The same network with every layer in half precision, except Softmax layers."""
    import keras

    def convert(layer: Any) -> Any:
        config = layer.get_config()
        # An operation without weights takes the type that it is given.
        if "dtype" in config and not isinstance(
            layer, keras.layers.InputLayer | keras.layers.Softmax
        ):
            config["dtype"] = HALF_POLICY
        return type(layer).from_config(config)

    half = keras.models.clone_model(network, clone_function=convert)
    half.set_weights(network.get_weights())
    return half
