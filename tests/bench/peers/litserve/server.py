"""LitServe and LiteRT, batches of up to 64; quick with uvloop, httptools and a raw body."""

import argparse
import json
import multiprocessing
import signal
from io import BytesIO
from pathlib import Path
from typing import Annotated

import litserve
import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter
from fastapi import Body
from PIL import Image

Floats = npt.NDArray[np.float32]
Answer = dict[str, str | int | float]

MAX_BATCH = 64


class Peer(litserve.LitAPI):
    """An image in, its class out; `setup` and what follows it run in the inference workers."""

    def __init__(self, model: Path, labels: list[str], threads: int, batch_timeout: float) -> None:
        super().__init__(max_batch_size=MAX_BATCH, batch_timeout=batch_timeout)
        self._model = model
        self._labels = labels
        self._threads = threads

    def setup(self, device: str) -> None:
        file = str(self._model / "model.tflite")
        self._network = Interpreter(model_path=file, num_threads=self._threads)
        self._input: int = self._network.get_input_details()[0]["index"]
        self._output: int = self._network.get_output_details()[0]["index"]
        # The largest first, for LiteRT's memory then holds every smaller one.
        self.predict(np.zeros((MAX_BATCH, 28, 28, 1), np.float32))

    # The annotation makes LitServe hand over the raw body: that crosses to the worker as bytes,
    # a form would cross as a pickled file object.
    def decode_request(self, request: Annotated[bytes, Body()]) -> Floats:
        image = Image.open(BytesIO(request)).convert("L").resize((28, 28))
        return np.asarray(image, np.float32).reshape(28, 28, 1) / np.float32(255)

    def predict(self, x: Floats) -> Floats:
        self._network.resize_tensor_input(self._input, x.shape)
        self._network.allocate_tensors()
        self._network.set_tensor(self._input, x)
        self._network.invoke()
        scores: Floats = self._network.get_tensor(self._output)
        return scores

    def encode_response(self, output: Floats) -> Answer:
        index = int(output.argmax())
        probability = round(float(output[index]), 6)
        return {"label": self._labels[index], "index": index, "probability": probability}


def _interrupt(*_: object) -> None:
    if multiprocessing.parent_process() is None:  # forked processes inherit this handler
        raise KeyboardInterrupt


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=2, help="inference processes")
    parser.add_argument("--api-servers", type=int, help="HTTP processes; default: as many")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--labels", required=True, help="JSON list")
    parser.add_argument("--threads", type=int, default=1, help="LiteRT's, of each worker")
    parser.add_argument("--batch-timeout", type=float, default=0.001, help="seconds; 0: poll")
    arguments = parser.parse_args()
    # LitServe ends its processes on SIGINT alone; SIGTERM would leave them behind.
    signal.signal(signal.SIGTERM, _interrupt)
    model = Path(arguments.models, "fashion-mnist", "1")
    labels = json.loads(arguments.labels)
    peer = Peer(model, labels, arguments.threads, arguments.batch_timeout)
    # The documentation advises fast_queue for many requests, though 0.2.19 ignores it.
    server = litserve.LitServer(
        peer, accelerator="cpu", workers_per_device=arguments.workers, fast_queue=True
    )
    server.run(
        host="127.0.0.1",
        port=arguments.port,
        num_api_servers=arguments.api_servers,
        log_level="warning",
        generate_client_file=False,
        loop="uvloop",
        http="httptools",
        access_log=False,
    )


if __name__ == "__main__":
    main()
