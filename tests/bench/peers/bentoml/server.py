"""BentoML on LiteRT or Keras as its docs write it; quick without access log, metrics and spans."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
import numpy.typing as npt
from PIL.Image import Image

Floats = npt.NDArray[np.float32]
Answer = dict[str, str | int | float]

MAX_BATCH = 64
# Mean and deviation of the pixels, after a division by 255, that a network was trained with.
SCALES = {"fashion-mnist": (0.0, 1.0), "cats-vs-dogs": (0.45, 0.27)}


# The environment brings the arguments, for BentoML imports this module anew in every worker.
@bentoml.service(
    name="peer",
    workers=int(os.environ.get("WORKERS", "2")),
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    # BentoML opens spans even where nothing collects them; this matches every URL.
    tracing={"excluded_urls": ".*"},
)
class Peer:
    """One image a call, or BentoML's adaptive batches."""

    def __init__(self) -> None:
        name, engine = os.environ["MODEL"], os.environ["ENGINE"]
        model = Path(os.environ["MODELS"], name, "1")
        self._labels: list[str] = json.loads(os.environ["LABELS"])
        self._mean, self._deviation = SCALES[name]
        load = load_litert if engine == "litert" else load_keras
        self._predict, self._shape = load(model)
        # The largest first, for LiteRT's memory then holds every smaller one; TensorFlow traces
        # anew for the first few sizes.
        for size in (MAX_BATCH, 2, 1):
            self._predict(np.zeros((size, *self._shape), np.float32))

    # Which is quicker depends on the network: an async API computes on the event loop, a plain one
    # in a thread, and for a small network the hand-over takes longer than the network itself.
    @bentoml.api
    async def classify_async(self, image: Image) -> Answer:
        return self._classify([image])[0]

    @bentoml.api
    def classify(self, image: Image) -> Answer:
        return self._classify([image])[0]

    # A client sends a list of one; BentoML joins the lists that wait and splits the answers.
    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=1000)
    async def classify_batch_async(self, images: list[Image]) -> list[Answer]:
        return self._classify(images)

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=1000)
    def classify_batch(self, images: list[Image]) -> list[Answer]:
        return self._classify(images)

    def _classify(self, images: list[Image]) -> list[Answer]:
        height, width, channels = self._shape
        mode = "L" if channels == 1 else "RGB"
        pixels = [image.convert(mode).resize((width, height)) for image in images]
        batch = np.stack([np.asarray(each, np.float32) for each in pixels])
        scaled = batch.reshape(-1, height, width, channels) / np.float32(255)
        if (self._mean, self._deviation) != (0, 1):
            scaled = (scaled - np.float32(self._mean)) / np.float32(self._deviation)
        scores = self._predict(scaled)
        return [
            {
                "label": self._labels[index],
                "index": int(index),
                "probability": round(float(row[index]), 6),
            }
            for row, index in zip(scores, scores.argmax(axis=1), strict=True)
        ]


Network = tuple[Callable[[Floats], Floats], tuple[int, int, int]]
"""What computes a batch, and the height, width and channels of an image."""


def load_litert(model: Path) -> Network:
    """The file that Vitrine serves, too."""
    from ai_edge_litert.interpreter import Interpreter

    threads = int(os.environ["THREADS"])
    network = Interpreter(model_path=str(model / "model.tflite"), num_threads=threads)
    (given,), (gained,) = network.get_input_details(), network.get_output_details()
    size = 0

    def predict(batch: Floats) -> Floats:
        nonlocal size
        if len(batch) != size:
            network.resize_tensor_input(given["index"], batch.shape)
            network.allocate_tensors()
            size = len(batch)
        network.set_tensor(given["index"], batch)
        network.invoke()
        scores: Floats = network.get_tensor(gained["index"])
        return scores

    height, width, channels = given["shape"][1:].tolist()
    return predict, (height, width, channels)


def load_keras(model: Path) -> Network:
    """The float32 network."""
    import keras

    network: Any = keras.saving.load_model(model / "model.keras", compile=False)
    # Not predict(), which sets up a loop over a data set, and takes many times as long.
    return network.predict_on_batch, network.input_shape[1:]


def main() -> None:
    """Become `bentoml serve`, which serves until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--labels", required=True, help="JSON list")
    parser.add_argument("--engine", choices=("litert", "keras"), default="litert")
    parser.add_argument("--model", choices=tuple(SCALES), default="fashion-mnist")
    parser.add_argument("--threads", type=int, default=1, help="of the network, of each worker")
    arguments = parser.parse_args()
    os.environ |= {
        "WORKERS": str(arguments.workers),
        "MODELS": str(arguments.models.resolve()),
        "MODEL": arguments.model,
        "LABELS": arguments.labels,
        "ENGINE": arguments.engine,
        "THREADS": str(arguments.threads),
        "TF_NUM_INTRAOP_THREADS": str(arguments.threads),
        "TF_NUM_INTEROP_THREADS": "1",
        "BENTOML_DO_NOT_TRACK": "True",
    }
    folder = str(Path(__file__).resolve().parent)
    serve = [sys.executable, "-m", "bentoml", "serve", "server:Peer", "--working-dir", folder]
    os.execv(sys.executable, [*serve, "--host", "127.0.0.1", "--port", str(arguments.port)])


if __name__ == "__main__":
    main()
