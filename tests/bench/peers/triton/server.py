"""Triton through PyTriton and LiteRT; quick with binary tensors, dynamic batches, HTTP alone."""

import argparse
import signal
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

Floats = npt.NDArray[np.float32]

MAX_BATCH = 64


class Network:
    """The network of one instance: images in, probabilities out; naming them is left to clients."""

    def __init__(self, model: Path, threads: int) -> None:
        self._network = Interpreter(model_path=str(model / "model.tflite"), num_threads=threads)
        self._input: int = self._network.get_input_details()[0]["index"]
        self._output: int = self._network.get_output_details()[0]["index"]
        # The largest first, for LiteRT's memory then holds every smaller one.
        self.predict(np.zeros((MAX_BATCH, 28, 28, 1), np.float32))

    @batch
    def __call__(self, image: Floats) -> dict[str, Floats]:
        return {"probabilities": self.predict(image)}

    def predict(self, image: Floats) -> Floats:
        self._network.resize_tensor_input(self._input, image.shape)
        self._network.allocate_tensors()
        self._network.set_tensor(self._input, image)
        self._network.invoke()
        probabilities: Floats = self._network.get_tensor(self._output)
        return probabilities


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=2, help="Triton instances of the model")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1, help="LiteRT's, of each instance")
    arguments = parser.parse_args()
    # PyTriton ends Triton and removes its copy of it on SIGINT alone.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    model = Path(arguments.models, "fashion-mnist", "1")
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=arguments.port,
        allow_grpc=False,
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="fashion-mnist",
            infer_func=[Network(model, arguments.threads) for _ in range(arguments.workers)],
            inputs=[Tensor(name="image", dtype=np.float32, shape=(28, 28, 1))],
            outputs=[Tensor(name="probabilities", dtype=np.float32, shape=(10,))],
            # No delay: what came while an instance was busy makes its next batch.
            config=ModelConfig(
                max_batch_size=MAX_BATCH, batcher=DynamicBatcher(max_queue_delay_microseconds=0)
            ),
        )
        triton.serve()


if __name__ == "__main__":
    main()
