"""One served model, whatever its task: decode, queue, engine, encode."""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from service.artifacts.files import Artifact
from service.call import Call
from service.engines.engine import Engine, Tensors
from service.errors import ArtifactError, RequestError
from service.inference.budget import Share
from service.inference.costs import Costs
from service.inference.decoding import Decoder, Source
from service.inference.job import Job
from service.inference.queue import BatchQueue
from service.inference.warmup import fastest_s, powers_of_two
from service.pixels.preprocess import Floats
from service.settings import Settings
from service.tasks.piecewise import PiecewiseTask
from service.tasks.task import JSON, Answer, Options, Task
from service.telemetry.metrics import STAGES, Metrics

GPU_BATCH_SIZE = 32
# Inputs are checked before an engine sees them: this many failures in a row are the device's.
MAX_FAILURES = 3


class Model:
    """A verified artifact with its task, its engine and its queue."""

    def __init__(
        self,
        artifact: Artifact,
        task: Task[Any, Any],
        engine: Engine,
        settings: Settings,
        metrics: Metrics,
        *,
        memory: Share,
    ) -> None:
        self.manifest = artifact.manifest
        self.task = task
        self.identity = (self.manifest.name, self.manifest.version, task.name)
        self.engine = engine
        self._piecewise = task if isinstance(task, PiecewiseTask) else None
        self._costs = Costs(task) if isinstance(task, PiecewiseTask) else None
        self._artifact = artifact
        self._settings = settings
        version = (self.manifest.name, self.manifest.version)
        self._queue = BatchQueue[Any, Any](
            self.manifest.name,
            self._compute,
            max_batch_size=self._max_batch_size() if task.batches else 1,
            limit=settings.queue_limit,
            timeout_s=settings.request_timeout_s,
            depth=metrics.queue_depth[version],
            batch_sizes=metrics.batch_size[version],
        )
        self._admission = self._queue.admission
        self._sizes = powers_of_two(self._queue.max_batch_size)
        self._stage_seconds = {stage: metrics.stage_seconds[*version, stage] for stage in STAGES}
        self._engine_failing = metrics.engine_failing[version]
        self._failures = 0
        progressive = metrics.progressive_jpegs[version]
        self._decoder = Decoder(task, settings, memory, progressive, self._costs)
        self._predictions = {label: metrics.predictions[*version, label] for label in task.labels}

    def _max_batch_size(self) -> int:
        measured = self.manifest.engines[self.engine.name].best_batch
        if self.engine.device == "gpu":  # export measured on a CPU
            measured = max(measured, GPU_BATCH_SIZE)
        return self._settings.max_batch_size or measured

    def prove(self) -> None:
        """Answer the artifact's own sample; raises ArtifactError if it is not as recorded."""
        sample = self.manifest.sample
        try:
            item = self.task.from_image(self._shipped(sample.file), self._settings)
            (output,) = self._compute_whole([item])
            self.task.check_sample(output, sample.expected, self._shipped)
        except (RequestError, ValueError) as error:
            where = f"{self._artifact.folder}: sample {sample.file} on {self.engine.name}"
            raise ArtifactError(f"{where}: {error}") from error

    def warm(self) -> None:
        """Compute a batch of every size that will be used, and plan batches by their times.

        The largest comes first, so that buffers have grown when the others are timed. Where items
        differ in size there is nothing to plan: each is computed by itself, in the thread. There
        the last one is timed, which is of the largest size that the engine gets.
        """
        items = self.task.blank_items()
        if self._costs is not None:
            self._compute_whole(items)
            # The fastest run, because other workers start meanwhile.
            runs = (fastest_s(self._compute_whole, items[-1:]) for _ in range(3))
            self._costs.measured(items[-1], min(runs))
            return
        sizes = reversed(self._sizes)
        self._queue.plan_by({size: fastest_s(self._compute, [*items] * size) for size in sizes})

    def check_room(self, items: int) -> None:
        """Raise Unavailable if that many more do not fit now, TooLarge if they never will."""
        self._admission.check_room(items)

    async def infer(self, source: Source, options: Options, call: Call) -> Answer:
        """Answer one item; raises RequestError, Unavailable, DeadlinePassed or ClientGone."""
        # A decoded image takes more memory than one that waits for it.
        with self._admission.place(call) as place:
            started = time.perf_counter()
            item, held = await self._decoder.decode(source, call, place)
            self._observe("decode", started, time.perf_counter() - started, call)
        try:
            output = await self._predict(item, call)
            started = time.perf_counter()
            if self.task.media_type == JSON:
                answer = self.task.encode(output, item, options)
            else:
                answer = await asyncio.to_thread(self.task.encode, output, item, options)
        finally:
            if held is not None:
                held.release()
        self._observe("encode", started, time.perf_counter() - started, call)
        for label in answer.labels:
            self._predictions[label].inc()
        return answer

    def close(self) -> None:
        """End the queue's thread."""
        self._queue.close()

    def _shipped(self, file: str) -> Image.Image:
        path = self._artifact.path(file)
        try:
            return self.task.open(path.read_bytes(), self._settings)
        except RequestError as error:
            raise ArtifactError(f"{path}: {error}") from error

    async def _predict(self, item: Any, call: Call) -> Any:
        started = time.perf_counter()
        if self._piecewise is None or self._costs is None:
            timed = await self._queue.submit(item, call)
        else:
            cost_s = self._costs.of_item(item)
            timed = await self._queue.submit(Job(self._piecewise, item), call, cost_s)
        self._observe("queue", started, timed.queue_s, call)
        self._observe("predict", started + timed.queue_s, timed.predict_s, call)
        call.items += 1
        call.batch_size = max(call.batch_size, timed.batch_size)
        return timed.result

    def _observe(self, stage: str, started: float, seconds: float, call: Call) -> None:
        self._stage_seconds[stage].observe(seconds)
        call.stages.append((stage, started, seconds))

    def _compute_whole(self, items: Sequence[Any]) -> Sequence[Any]:
        return self.task.compute(items, self._run)

    def _compute(self, items: Sequence[Any]) -> Sequence[Any]:
        if self._piecewise is not None:
            return [job.advance(self._run) for job in items]
        return self._compute_whole(items)

    def _run(self, batch: Tensors) -> Mapping[str, Floats]:
        """The engine's outputs; MAX_FAILURES failures in a row make `/livez` answer 503."""
        count = len(next(iter(batch.values()))) if self.engine.fixed_sizes else None
        if count is not None:
            batch = self._padded(batch, count)
        try:
            outputs = self.engine.predict(batch)
        except Exception:
            self._failures += 1
            if self._failures >= MAX_FAILURES:
                self._engine_failing.set(1)
            raise
        if self._failures:
            self._failures = 0
            self._engine_failing.set(0)
        for name, output in outputs.items():
            # An image can overflow half precision. A sum tells in half the time that all is finite.
            if not math.isfinite(output.sum()) and not np.isfinite(output).all():
                raise FloatingPointError(f"{self.engine.name}: {name} is not finite")
        if count is None:
            return outputs
        return {name: output[:count] for name, output in outputs.items()}

    def _padded(self, batch: Tensors, count: int) -> Tensors:
        """The batch at one of the sizes that are warm; a larger one stays as it is."""
        missing = next((size for size in self._sizes if size >= count), count) - count
        if not missing:
            return batch
        return {
            name: np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
            for name, array in batch.items()
        }
