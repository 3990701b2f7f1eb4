"""One served model, and the path of an image through it: decode, queue, engine, encode."""

import asyncio
import time
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from service.artifacts.files import Artifact
from service.artifacts.manifest import ExpectedLabel
from service.engines.engine import Engine
from service.errors import ArtifactError, BadInput, RequestError, Unavailable
from service.inference.queue import BatchQueue
from service.pixels.decode import check_denoise_size, decode, decode_planes, open_image
from service.pixels.encode import Prediction, encode_planes, encode_scores
from service.pixels.preprocess import Floats
from service.pixels.tiles import predict_tiled
from service.protocols.request import Request
from service.settings import Settings
from service.telemetry.metrics import STAGES, Metrics

# Up to this many pixels, unpacking takes less than handing over to a thread and back.
INLINE_PIXELS = 128 * 128
# Batches that take longer are not timed a second time: no noise hides what they cost.
LONG_S = 0.005
TIMED_RUNS = 10
GPU_BATCH_SIZE = 32
# Inputs are checked before an engine sees them: this many failures in a row are the device's.
MAX_FAILURES = 3


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
        version = (self.manifest.name, self.manifest.version)
        measured = self.manifest.engines[engine.name].best_batch
        if engine.device == "gpu":  # what was measured is what a CPU takes
            measured = max(measured, GPU_BATCH_SIZE)
        self._queue = BatchQueue[Floats, Floats](
            self.manifest.name,
            self._compute_tiled if tiled else self._compute_batch,
            max_batch_size=1 if tiled else settings.max_batch_size or measured,
            limit=settings.queue_limit,
            depth=metrics.queue_depth[version],
            batch_sizes=metrics.batch_size[version],
        )
        self._sizes = _sizes(self._queue.max_batch_size)
        self._stage_seconds = {stage: metrics.stage_seconds[*version, stage] for stage in STAGES}
        self._engine_failing = metrics.engine_failing[version]
        self._failures = 0
        self._progressive_jpegs = metrics.progressive_jpegs[version]
        self._predictions = {
            label: metrics.predictions[*version, label] for label in self.manifest.labels
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
            there = float(probabilities[wanted.index])
            close = abs(there - wanted.probability) <= wanted.tolerance
            # Two labels that are as likely may change places from one processor to another.
            if came["probability"] - there > wanted.tolerance or not close:
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
        """Compute and time a batch of every size that will be used, largest first: buffers grow.

        Where the network takes any size, compute two odd ones, which have to be padded: TensorFlow
        makes no more of its own after the second.
        """
        height, width, channels = self.manifest.input.shape
        if height is None or width is None:
            for odd in ((61, 35), (45, 83)):
                self._compute_tiled([np.zeros((1, *odd, channels), dtype=np.float32)])
            return
        blank = np.zeros((height, width, channels), dtype=np.float32)
        batch_s = {
            size: _shortest_s(self._compute_batch, [blank] * size) for size in reversed(self._sizes)
        }
        self._queue.plan_by(batch_s)

    @property
    def is_full(self) -> bool:
        """Whether the queue takes nothing more."""
        return self._queue.is_full

    def overload(self) -> Unavailable:
        """What to answer where the queue takes nothing more."""
        return self._queue.overload()

    def check_room(self, images: int) -> None:
        """Raise Unavailable, or TooLarge, where the queue cannot take that many more."""
        self._queue.check_room(images)

    async def classify(self, data: bytes, top_k: int, request: Request) -> Prediction:
        """Encoded image -> the likeliest classes.

        Raises RequestError, Unavailable, DeadlinePassed or ClientGone.
        """
        self._expect("classification", "label")
        with self._queue.place():  # a decoded image takes more memory than one that waits for it
            started = time.perf_counter()
            image = self._open(data)
            if image.width * image.height <= INLINE_PIXELS:
                pixels = decode(image, self.manifest.input)
            else:
                pixels = await asyncio.to_thread(decode, image, self.manifest.input)
            self._observe("decode", started, time.perf_counter() - started, request)
        probabilities = await self._predict(pixels, request)
        started = time.perf_counter()
        prediction = encode_scores(probabilities, self.manifest.labels, top_k)
        self._observe("encode", started, time.perf_counter() - started, request)
        self._predictions[prediction["label"]].inc()
        return prediction

    async def denoise(self, data: bytes, request: Request) -> bytes:
        """Encoded image of any size -> PNG of the same size; raises as classify does."""
        self._expect("denoising", "denoise")
        with self._queue.place():
            started = time.perf_counter()
            image = self._open(data)
            check_denoise_size(image, self._settings.max_denoise_pixels)
            planes, alpha = await asyncio.to_thread(decode_planes, image)
            self._observe("decode", started, time.perf_counter() - started, request)
        denoised = await self._predict(planes, request)
        started = time.perf_counter()
        png = await asyncio.to_thread(encode_planes, denoised, alpha)
        self._observe("encode", started, time.perf_counter() - started, request)
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
        settings = self._settings
        image = open_image(data, settings.max_image_bytes, settings.max_image_pixels)
        if "progressive" in image.info:
            self._progressive_jpegs.inc()
        return image

    async def _predict(self, item: Floats, request: Request) -> Floats:
        started = time.perf_counter()
        timed = await self._queue.submit(item, request)
        self._observe("queue", started, timed.queue_s, request)
        self._observe("predict", started + timed.queue_s, timed.predict_s, request)
        request.images += 1
        request.batch_size = max(request.batch_size, timed.batch_size)
        return timed.result

    def _observe(self, stage: str, started: float, seconds: float, request: Request) -> None:
        self._stage_seconds[stage].observe(seconds)
        request.stages.append((stage, started, seconds))

    def _compute_batch(self, items: Sequence[Floats]) -> Sequence[Floats]:
        count = len(items)
        if self.engine.fixed_sizes:
            size = next(known for known in self._sizes if known >= count)
            items = [*items, *[np.zeros_like(items[0])] * (size - count)]
        batch = np.stack(items) if len(items) > 1 else items[0][np.newaxis]
        return list(self._run(batch)[:count])

    def _compute_tiled(self, items: Sequence[Floats]) -> Sequence[Floats]:
        assert self.manifest.tiling is not None
        return [predict_tiled(item, self._run, self.manifest.tiling) for item in items]

    def _run(self, batch: Floats) -> Floats:
        """The engine's answer; one that fails time after time marks this process as not alive."""
        try:
            answer = self.engine.predict(batch)
        except Exception:
            self._failures += 1
            if self._failures >= MAX_FAILURES:
                self._engine_failing.set(1)
            raise
        if self._failures:
            self._failures = 0
            self._engine_failing.set(0)
        if not np.isfinite(answer).all():  # the image's doing, in half precision, not the device's
            raise FloatingPointError(f"{self.engine.name} answered what is no number")
        return answer


def _sizes(max_batch_size: int) -> tuple[int, ...]:
    """The powers of two up to the largest batch, and that."""
    powers = {2**exponent for exponent in range(max_batch_size.bit_length())}
    return tuple(sorted(powers | {max_batch_size}))


def _shortest_s(compute: Callable[[Sequence[Floats]], object], batch: Sequence[Floats]) -> float:
    """Seconds of the quickest of several runs, but only of the first where that is long."""
    runs: list[float] = []
    while len(runs) < TIMED_RUNS and (not runs or runs[0] < LONG_S):
        started = time.perf_counter()
        compute(batch)
        runs.append(time.perf_counter() - started)
    return min(runs)
