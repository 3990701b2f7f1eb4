"""What one process serves with: settings, models, handlers and metrics; nothing of a server."""

import asyncio
import contextlib
import gc
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from service.artifacts.files import find_artifacts
from service.artifacts.manifest import Manifest
from service.engines.gpus import take_gpu
from service.errors import StartError
from service.inference.registry import load_models
from service.protocols.native import Handlers
from service.protocols.tokens import read_tokens
from service.server.drain import Drain
from service.settings import Settings
from service.telemetry.log import configure_logging
from service.telemetry.metrics import Metrics, ServedModel
from service.telemetry.usage import WorkerState, limit_metrics, usage_metrics

# The folder whose files all workers of a server share; BentoML hands this name down to its workers.
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
# Values of the label `protocol`, and the one of a task's own form.
PROTOCOLS = ("classify", "denoise", "v1", "page", "other")
_FORMS = {"classification": "classify", "denoising": "denoise"}
# Until the manifest says it. A denoiser has none: its time grows with the image.
_LATENCY_OBJECTIVES_S = {"cats-vs-dogs": 1.0, "clothing": 1.0, "doggy-door": 1.0, "vgg16-base": 1.0}
_LATENCY_OBJECTIVE_S = {"classification": 0.25}
# Objects before a collection of each generation: a full one walks every object that is not frozen,
# and with Python's own thresholds that took 20 to 80 ms.
GC_THRESHOLDS = (100_000, 50, 1000)
# Large images are unpacked in threads, and so many at most lie in memory at once. Python's own
# number goes by the machine's cores, whatever the cgroup's limit; with one, a huge image would hold
# up all others.
DECODE_THREADS = 2


class App:
    """The loaded models of one process and what answers for them."""

    def __init__(
        self, settings: Settings, worker: int | None = None, drain: Drain | None = None
    ) -> None:
        """Load and prove every model; raises StartError. A `worker` by number takes its GPU."""
        configure_logging(settings.log_format)
        # Pillow's own limit is lower than what a setting may allow; decode checks first.
        Image.MAX_IMAGE_PIXELS = None
        shared = os.environ.get(METRICS_FOLDER)
        folder = Path(shared) if shared and worker is not None else None
        state = None if folder is None else WorkerState(folder)
        if settings.device != "cpu" and worker is not None:
            take_gpu(worker)
        artifacts = find_artifacts(settings.models_dir, settings.models)
        served = [served_model(artifact.manifest) for artifact in artifacts]
        self.settings = settings
        self.drain = drain or Drain()
        self.tokens = read_tokens(settings.api_tokens_file)
        self.metrics = Metrics(served, PROTOCOLS, folder, is_on=settings.metrics)
        self.models = load_models(artifacts, settings, self.metrics)
        self.handlers = Handlers(self.models, settings)
        # Not among the threads that unpack images: a scrape is wanted most when these are busy.
        self.scraper = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self.metrics.watch(partial(limit_metrics, settings, served))
        if state is not None:
            self.metrics.watch(partial(usage_metrics, os.getppid()))
            self.metrics.watch(state.metrics)
            state.set_ready()

    def close(self) -> None:
        """Let the models' threads end."""
        self.models.close()
        self.scraper.shutdown(wait=False)


def served_model(manifest: Manifest) -> ServedModel:
    """What the metrics need to know of a model."""
    objective_s = _LATENCY_OBJECTIVES_S.get(manifest.name, _LATENCY_OBJECTIVE_S.get(manifest.task))
    return ServedModel(
        manifest.name,
        manifest.version,
        manifest.task,
        manifest.labels,
        objective_s,
        ("v1", _FORMS[manifest.task]),
    )


def settle() -> None:
    """Keep the garbage collector from everything that is there by now: it will stay."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def bound_threads() -> None:
    """Let no more than DECODE_THREADS work for the running event loop; engines have their own."""
    executor = ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode")
    asyncio.get_running_loop().set_default_executor(executor)


@contextlib.contextmanager
def stop_on_error() -> Iterator[None]:
    """End the process with a StartError's message; a worker that raised would be started again."""
    try:
        yield
    except StartError as error:
        raise SystemExit(f"error: {error}") from error
