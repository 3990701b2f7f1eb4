"""One served model, and the path of an image through it: decode, queue, engine, encode."""

import asyncio
import time
from collections.abc import Sequence

import numpy as np
from PIL import Image

from service.artifact import Artifact
from service.decode import check_denoise_size, decode, decode_planes, open_image
from service.encode import Prediction, encode_planes, encode_scores
from service.engine import Engine
from service.errors import ArtifactError, BadInput, RequestError
from service.manifest import ExpectedLabel
from service.metrics import Metrics
from service.preprocess import Floats
from service.queue import BatchQueue, Timed
from service.record import Record
from service.settings import Settings
from service.tiles import predict_tiled

# Up to this many pixels, unpacking takes less than handing over to a thread and back.
INLINE_PIXELS = 128 * 128


class Model:
    """A verified artifact with its engine and its queue."""

    def __init__(
        self, artifact: Artifact, engine: Engine, settings: Settings, metrics: Metrics
    ) -> None:
        self.manifest = artifact.manifest
        self.engine = engine
        self._artifact = artifact
        self._settings = settings
        tiled = self.manifest.task == "denoising"
        self._queue = BatchQueue[Floats, Floats](
            self.manifest.name,
            self._compute_tiled if tiled else self._compute_batch,
            max_batch_size=1 if tiled else settings.max_batch_size,
            limit=settings.queue_limit,
            on_depth_change=metrics.queue_depth.labels(self.manifest.name).inc,
        )
        stages = ("decode", "queue", "predict", "encode")
        self._stage_seconds = {
            stage: metrics.stage_seconds.labels(self.manifest.name, stage) for stage in stages
        }
        self._batch_size = metrics.batch_size.labels(self.manifest.name)
        self._predictions = {
            label: metrics.predictions.labels(self.manifest.name, label)
            for label in self.manifest.labels
        }

    def prove(self) -> None:
        """Answer the artifact's own sample; raises ArtifactError if it is not as recorded."""
        sample = self.manifest.sample
        image = self._shipped(sample.file)
        where = f"{self._artifact.folder}: sample {sample.file} on {self.engine.name}"
        if isinstance(sample.expected, ExpectedLabel):
            pixels = decode(image, self.manifest.input)
            probabilities = self._compute_batch([pixels])[0]
            if probabilities.shape != self.manifest.output.shape:
                raise ArtifactError(
                    f"{where}: expected an output of shape {self.manifest.output.shape}, "
                    f"got {probabilities.shape}"
                )
            came = encode_scores(probabilities, self.manifest.labels, 1)
            wanted = sample.expected
            close = abs(came["probability"] - wanted.probability) <= wanted.tolerance
            if came["label"] != wanted.label or not close:
                raise ArtifactError(
                    f"{where}: expected {wanted.label!r} with probability {wanted.probability} "
                    f"(within {wanted.tolerance}), got {came['label']!r} with {came['probability']}"
                )
            return
        planes, _ = decode_planes(image)
        came_planes = self._compute_tiled([planes])[0]
        wanted_planes, _ = decode_planes(self._shipped(sample.expected.file))
        if came_planes.shape != wanted_planes.shape:
            raise ArtifactError(
                f"{where}: expected an image of shape {wanted_planes.shape}, "
                f"got {came_planes.shape}"
            )
        off = float(np.abs(np.clip(came_planes, 0, 1) - wanted_planes).max()) * 255
        if not off <= sample.expected.tolerance:  # not a number is not close, either
            raise ArtifactError(
                f"{where}: expected {sample.expected.file} within {sample.expected.tolerance} "
                f"levels, got {off:.1f} levels off"
            )

    def warm(self) -> None:
        """Compute a batch of every size up to the largest, largest first: buffers only grow.

        Where the network takes any size, compute an odd one, which has to be padded.
        """
        height, width, channels = self.manifest.input.shape
        if height is None or width is None:
            self._compute_tiled([np.zeros((1, 61, 35, channels), dtype=np.float32)])
            return
        largest = self._queue.max_batch_size
        powers = {2**exponent for exponent in range(largest.bit_length())}
        for size in sorted(powers | {largest}, reverse=True):
            self.engine.predict(np.zeros((size, height, width, channels), dtype=np.float32))

    async def classify(self, data: bytes, top_k: int, record: Record) -> Prediction:
        """Encoded image -> the likeliest classes; raises RequestError or Unavailable."""
        self._expect("classification", "label")
        started = time.perf_counter()
        image = self._open(data)
        if image.width * image.height <= INLINE_PIXELS:
            pixels = decode(image, self.manifest.input)
        else:
            pixels = await asyncio.to_thread(decode, image, self.manifest.input)
        self._observe("decode", time.perf_counter() - started, record)
        probabilities = await self._predict(pixels, record)
        started = time.perf_counter()
        prediction = encode_scores(probabilities, self.manifest.labels, top_k)
        self._observe("encode", time.perf_counter() - started, record)
        self._predictions[prediction["label"]].inc()
        return prediction

    async def denoise(self, data: bytes, record: Record) -> bytes:
        """Encoded image of any size -> PNG of the same size; raises RequestError or Unavailable."""
        self._expect("denoising", "denoise")
        started = time.perf_counter()
        image = self._open(data)
        check_denoise_size(image, self._settings.max_denoise_pixels)
        planes, alpha = await asyncio.to_thread(decode_planes, image)
        self._observe("decode", time.perf_counter() - started, record)
        denoised = await self._predict(planes, record)
        started = time.perf_counter()
        png = await asyncio.to_thread(encode_planes, denoised, alpha)
        self._observe("encode", time.perf_counter() - started, record)
        return png

    def close(self) -> None:
        """Let the queue's thread end."""
        self._queue.close()

    def _expect(self, task: str, verb: str) -> None:
        if self.manifest.task != task:
            raise BadInput(
                f"expected a model for {task} to {verb} an image, "
                f"got {self.manifest.name}, which is for {self.manifest.task}"
            )

    def _shipped(self, file: str) -> Image.Image:
        path = self._artifact.path(file)
        try:
            return self._open(path.read_bytes())
        except RequestError as error:
            raise ArtifactError(f"{path}: {error}") from error

    def _open(self, data: bytes) -> Image.Image:
        return open_image(data, self._settings.max_image_bytes, self._settings.max_image_pixels)

    async def _predict(self, item: Floats, record: Record) -> Floats:
        timed: Timed[Floats] = await self._queue.submit(item)
        self._observe("queue", timed.queue_s, record)
        self._observe("predict", timed.predict_s, record)
        self._batch_size.observe(timed.batch_size)
        record.images += 1
        record.batch_size = max(record.batch_size, timed.batch_size)
        return timed.result

    def _observe(self, stage: str, seconds: float, record: Record) -> None:
        self._stage_seconds[stage].observe(seconds)
        record.add_stage(stage, seconds)

    def _compute_batch(self, items: Sequence[Floats]) -> Sequence[Floats]:
        return list(self.engine.predict(np.stack(items)))

    def _compute_tiled(self, items: Sequence[Floats]) -> Sequence[Floats]:
        assert self.manifest.tiling is not None
        return [predict_tiled(item, self.engine.predict, self.manifest.tiling) for item in items]
