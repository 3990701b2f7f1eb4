"""No framework: a bare ASGI app under uvicorn; quick with uvloop, httptools and no access log."""

import argparse
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class App:
    """POST: the body is an image, the answer its class. Anything else: 200 once it serves."""

    def __init__(self, model: Path, labels: list[str]) -> None:
        self._labels = labels
        # One thread, for there are as many workers as cores; a batch of one gains nothing by more.
        self._network = Interpreter(model_path=str(model / "model.tflite"), num_threads=1)
        self._network.allocate_tensors()
        self._input: int = self._network.get_input_details()[0]["index"]
        self._output: int = self._network.get_output_details()[0]["index"]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        reply = b""
        if scope["method"] == "POST":
            reply = self._classify(await _read_body(receive))
        # With a length, for uvicorn would send the body in chunks without one.
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(reply)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": reply})

    def _classify(self, body: bytes) -> bytes:
        image = Image.open(BytesIO(body)).convert("L").resize((28, 28))
        pixels = np.asarray(image, np.float32).reshape(1, 28, 28, 1) / np.float32(255)
        self._network.set_tensor(self._input, pixels)
        # It computes on the event loop: a thread would cost more than the network itself.
        self._network.invoke()
        scores = self._network.get_tensor(self._output)[0]
        index = int(scores.argmax())
        answer = {
            "label": self._labels[index],
            "index": index,
            "probability": round(float(scores[index]), 6),
        }
        return json.dumps(answer).encode()


async def _read_body(receive: Receive) -> bytes:
    parts = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def create_app() -> App:
    """Make a worker's app; uvicorn calls this in each of them."""
    model = Path(os.environ["MODELS"], "fashion-mnist", "1")
    return App(model, json.loads(os.environ["LABELS"]))


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
        lifespan="off",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
    )


if __name__ == "__main__":
    main()
