"""FastAPI and LiteRT; quick with uvloop, httptools, no access log and async routes, no threads."""

import argparse
import json
import os
from io import BytesIO
from pathlib import Path

import numpy as np
import uvicorn
from ai_edge_litert.interpreter import Interpreter
from fastapi import FastAPI, Request, UploadFile
from PIL import Image
from pydantic import BaseModel


class Answer(BaseModel):
    """One class and its probability."""

    label: str
    index: int
    probability: float


class Classifier:
    """The network of one worker."""

    def __init__(self, model: Path, labels: list[str]) -> None:
        self._labels = labels
        # One thread, for there are as many workers as cores; a batch of one gains nothing by more.
        self._network = Interpreter(model_path=str(model / "model.tflite"), num_threads=1)
        self._network.allocate_tensors()
        self._input: int = self._network.get_input_details()[0]["index"]
        self._output: int = self._network.get_output_details()[0]["index"]

    def classify(self, data: bytes) -> Answer:
        image = Image.open(BytesIO(data)).convert("L").resize((28, 28))
        pixels = np.asarray(image, np.float32).reshape(1, 28, 28, 1) / np.float32(255)
        self._network.set_tensor(self._input, pixels)
        self._network.invoke()
        scores = self._network.get_tensor(self._output)[0]
        index = int(scores.argmax())
        probability = round(float(scores[index]), 6)
        return Answer(label=self._labels[index], index=index, probability=probability)


def create_app() -> FastAPI:
    """Make a worker's app; uvicorn calls this in each of them."""
    model = Path(os.environ["MODELS"], "fashion-mnist", "1")
    classifier = Classifier(model, json.loads(os.environ["LABELS"]))
    app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})

    # The routes are async although they compute, for FastAPI runs plain functions in a thread
    # pool, and a hand-over to one takes longer than the network does.
    @app.post("/classify")
    async def classify(image: UploadFile) -> Answer:
        return classifier.classify(await image.read())

    @app.post("/raw")
    async def raw(request: Request) -> Answer:
        return classifier.classify(await request.body())

    @app.get("/ready")
    async def ready() -> None:
        pass

    return app


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--labels", required=True, help="JSON list")
    arguments = parser.parse_args()
    os.environ |= {"MODELS": str(arguments.models), "LABELS": arguments.labels}
    uvicorn.run(
        "server:create_app",
        factory=True,
        host="127.0.0.1",
        port=arguments.port,
        workers=arguments.workers,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
    )


if __name__ == "__main__":
    main()
