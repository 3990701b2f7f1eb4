"""The network itself: `predict(batch) -> batch`, on LiteRT or on Keras; knows nothing of HTTP."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from service.artifacts.manifest import Device, EngineName
from service.pixels.preprocess import Floats

HALF_POLICY = "mixed_float16"


class Engine(Protocol):
    """A loaded network; not safe across threads."""

    name: EngineName
    device: Device
    fixed_sizes: bool
    """Whether a batch of a new size is slow at first: batches are padded to a few sizes then."""

    def predict(self, batch: Floats) -> Floats:
        """A batch (n, height, width, channels) -> (n, …), in the same order."""
        ...


class LiteRTEngine:
    """A `.tflite` file on the CPU, through XNNPACK."""

    device: Device = "cpu"
    fixed_sizes = False

    def __init__(self, model: Path, threads: int, name: EngineName = "litert") -> None:
        self.name = name
        self._interpreter = Interpreter(model_path=str(model), num_threads=threads)
        self._input: int = self._interpreter.get_input_details()[0]["index"]
        self._output: int = self._interpreter.get_output_details()[0]["index"]
        self._shape: tuple[int, ...] = ()

    def predict(self, batch: Floats) -> Floats:
        """A batch (n, height, width, channels) -> (n, …), in the same order."""
        if batch.shape != self._shape:
            self._interpreter.resize_tensor_input(self._input, batch.shape)
            self._interpreter.allocate_tensors()
            self._shape = batch.shape
        self._interpreter.set_tensor(self._input, batch)
        self._interpreter.invoke()
        scores: Floats = self._interpreter.get_tensor(self._output)
        return scores


class KerasEngine:
    """A `.keras` file on Keras 3's backend: TensorFlow, JAX or PyTorch.

    Called `keras-half`, it computes in half precision; weights and answers stay in float32.
    """

    fixed_sizes = True  # its backends compile the network anew for a shape that they do not know

    def __init__(self, model: Path, device: Device, name: EngineName = "keras") -> None:
        import keras

        self.name = name
        self.device = device
        network = keras.saving.load_model(model, compile=False)
        self.network = _in_half(network) if name == "keras-half" else network

    def predict(self, batch: Floats) -> Floats:
        """A batch (n, height, width, channels) -> (n, …), in the same order."""
        return np.asarray(self.network.predict_on_batch(batch), dtype=np.float32)


def open_engine(name: EngineName, model: Path, device: Device, threads: int) -> Engine:
    """Load a network; `threads` are for LiteRT, and a device other than the CPU for Keras."""
    if name in ("keras", "keras-half"):
        return KerasEngine(model, device, name)
    return LiteRTEngine(model, threads, name)


def _in_half(network: Any) -> Any:
    """The same network with every layer computing in half precision, but for a softmax alone."""
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


def count_gpus() -> int:
    """How many GPUs Keras's backend sees; imports the backend."""
    import keras

    match keras.backend.backend():
        case "tensorflow":
            import tensorflow

            return len(tensorflow.config.list_physical_devices("GPU"))
        case "jax":
            import jax

            return sum(device.platform == "gpu" for device in jax.devices())
        case "torch":
            import torch

            return int(torch.cuda.device_count())
        case _:
            return 0
