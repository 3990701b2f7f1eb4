"""BentoML and Keras as its docs write them; quick without access log, metrics and trace spans."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
from PIL.Image import Image

Answer = dict[str, str | int | float]

MAX_BATCH = 64


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
        import keras

        model = Path(os.environ["MODELS"], os.environ["MODEL"], "1")
        manifest = json.loads((model / "manifest.json").read_bytes())
        self._labels: list[str] = manifest["labels"]
        self._input = manifest["input"]
        self._network = keras.saving.load_model(model / "model.keras", compile=False)
        for size in (1, 2, MAX_BATCH):  # TensorFlow traces anew for the first few sizes
            self._network.predict_on_batch(np.zeros((size, *self._input["shape"]), np.float32))

    @bentoml.api
    def classify(self, image: Image) -> Answer:
        return self._predict([image])[0]

    # A client sends a list of one; BentoML joins the lists that wait and splits the answers.
    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=1000)
    def classify_batch(self, images: list[Image]) -> list[Answer]:
        return self._predict(images)

    def _predict(self, images: list[Image]) -> list[Answer]:
        height, width, channels = self._input["shape"]
        mode = "L" if channels == 1 else "RGB"
        pixels = [image.convert(mode).resize((width, height)) for image in images]
        batch = np.stack([np.asarray(each, np.float32) for each in pixels])
        scaled = batch.reshape(-1, height, width, channels) / np.float32(255)
        scale = self._input["scale"]
        if (scale["mean"], scale["deviation"]) != (0, 1):
            scaled = (scaled - np.float32(scale["mean"])) / np.float32(scale["deviation"])
        # Not predict(), which sets up a loop over a data set, and takes many times as long.
        scores: Any = self._network.predict_on_batch(scaled)
        return [
            {
                "label": self._labels[index],
                "index": int(index),
                "probability": round(float(row[index]), 6),
            }
            for row, index in zip(scores, scores.argmax(axis=1), strict=True)
        ]


def main() -> None:
    """Become `bentoml serve`, which serves until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--model", default="fashion-mnist")
    parser.add_argument("--threads", type=int, default=1, help="TensorFlow's, of each worker")
    arguments = parser.parse_args()
    os.environ |= {
        "WORKERS": str(arguments.workers),
        "MODELS": str(arguments.models.resolve()),
        "MODEL": arguments.model,
        "TF_NUM_INTRAOP_THREADS": str(arguments.threads),
        "TF_NUM_INTEROP_THREADS": "1",
        "BENTOML_DO_NOT_TRACK": "True",
        # Its default is a folder in the home, which a start empties under other servers' feet.
        "BENTOML_HOME": str(Path(sys.prefix, "bentoml")),
    }
    folder = str(Path(__file__).resolve().parent)
    serve = [sys.executable, "-m", "bentoml", "serve", "server:Peer", "--working-dir", folder]
    os.execv(sys.executable, [*serve, "--host", "127.0.0.1", "--port", str(arguments.port)])


if __name__ == "__main__":
    main()
