"""MLServer and LiteRT, JSON tensors; quick with adaptive batches, uvloop, no metrics, no gzip."""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import uvloop
from ai_edge_litert.interpreter import Interpreter
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse

Floats = npt.NDArray[np.float32]

MAX_BATCH = 64


class Peer(MLModel):
    """Images in, probabilities out; naming them is left to clients."""

    async def load(self) -> bool:
        model = Path(os.environ["MODELS"], "fashion-mnist", "1", "model.tflite")
        self._network = Interpreter(model_path=str(model), num_threads=int(os.environ["THREADS"]))
        self._input: int = self._network.get_input_details()[0]["index"]
        self._output: int = self._network.get_output_details()[0]["index"]
        # The largest first, for LiteRT's memory then holds every smaller one.
        self._run(np.zeros((MAX_BATCH, 28, 28, 1), np.float32))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        batch = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        output = NumpyCodec.encode_output("probabilities", self._run(batch))
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])

    def _run(self, batch: Floats) -> Floats:
        self._network.resize_tensor_input(self._input, batch.shape)
        self._network.allocate_tensors()
        self._network.set_tensor(self._input, batch)
        self._network.invoke()
        probabilities: Floats = self._network.get_tensor(self._output)
        return probabilities


async def serve(port: int, workers: int, batch_time: float) -> None:
    """Serve until SIGTERM or SIGINT."""
    scratch = Path(sys.prefix, "mlserver")
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=0,  # MLServer always has one, on whatever port is free
        parallel_workers=workers,
        debug=False,  # which is also what turns the access log off
        metrics_endpoint=None,
        gzip_enabled=False,
        environments_dir=str(scratch / "environments"),
        metrics_dir=str(scratch / "metrics"),
    )
    model = ModelSettings(
        name="fashion-mnist",
        implementation="server.Peer",
        max_batch_size=MAX_BATCH,
        max_batch_time=batch_time,
        parameters=ModelParameters(version="1"),
    )
    await MLServer(settings).start([model])


def main() -> None:
    """Read the arguments; the workers get theirs through the environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=2, help="0: compute in the HTTP process")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1, help="LiteRT's, of each worker")
    parser.add_argument("--batch-time", type=float, default=0.001, help="seconds; 0: no batches")
    arguments = parser.parse_args()
    os.environ |= {"MODELS": str(arguments.models), "THREADS": str(arguments.threads)}
    uvloop.run(serve(arguments.port, arguments.workers, arguments.batch_time))


if __name__ == "__main__":
    main()
