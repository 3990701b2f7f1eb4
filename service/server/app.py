"""Everything that one process serves with: settings, models, routes, metrics; no sockets."""

import asyncio
import gc
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from PIL import AvifImagePlugin, Image

from service.artifacts.files import find_artifacts
from service.artifacts.manifest import Manifest
from service.engines.gpus import take_gpu
from service.errors import SettingsError
from service.inference.memory import Memory
from service.inference.registry import load_registry
from service.protocols import catalog, health, native, pages
from service.protocols.rates import RateLimit
from service.protocols.route import Context, Route
from service.protocols.tokens import read_tokens
from service.server.dispatch import Dispatcher
from service.server.drain import Drain
from service.settings import Settings
from service.tasks import TASKS, load_plugins
from service.telemetry import tracing
from service.telemetry.log import logger
from service.telemetry.metrics import Metrics, ServedModel
from service.telemetry.usage import WorkerState, limit_metrics, usage_metrics

# Objects before a collection of each generation: a full one walks every object that is not frozen,
# and with Python's own thresholds that took 20 to 80 ms.
GC_THRESHOLDS = (100_000, 50, 1000)
# Large images are decoded in threads, so this also limits how many are in memory at once. asyncio's
# default counts the machine's cores and ignores the cgroup's limit. With one thread, a huge image
# would block all others.
DECODE_THREADS = 2
IN_PROCESS = "bentoml"
"""The protocol of calls that come without HTTP."""


class App:
    """The loaded models of one process, and the dispatcher that answers requests to them."""

    def __init__(
        self,
        settings: Settings,
        worker: int | None = None,
        drain: Drain | None = None,
        bentoml_schema: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        """Load and prove every model; raises StartError. A `worker` by number takes its GPU."""
        load_plugins(settings.plugins)
        # Pillow's own limit is lower than what a setting may allow; decode checks first.
        Image.MAX_IMAGE_PIXELS = None
        # By default it takes as many threads, and their memory, as the machine has cores.
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
        folder = None if worker is None else settings.metrics_dir
        state = None if folder is None else WorkerState(folder)
        if settings.device != "cpu" and worker is not None:
            take_gpu(worker)
        self.memory = Memory(settings, folder, worker or 0)
        tokens = None if settings.api_tokens_file is None else read_tokens(settings.api_tokens_file)
        artifacts = find_artifacts(settings.models_dir, settings.models, TASKS)
        routes = all_routes()
        served = [served_model(artifact.manifest, routes) for artifact in artifacts]
        self.settings = settings
        self.drain = drain or Drain()
        self.metrics = Metrics(served, all_protocols(routes), folder, is_on=settings.metrics)
        self.registry = load_registry(
            artifacts, TASKS, settings, self.metrics, memory=self.memory, folder=folder
        )
        self._scraper = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        context = Context(
            settings,
            self.registry,
            self.metrics,
            routes,
            self._scraper,
            lambda: self.drain.is_on,
            bentoml_schema,
            self.memory.share_of_body,
        )
        rate_per_s = settings.rate_limit_per_s
        self.dispatcher = Dispatcher(context, RateLimit(rate_per_s, folder) if rate_per_s else None)
        if tokens is not None:
            self.dispatcher.require(tokens)
        if tracing.is_configured():
            self.dispatcher.on_answer = tracing.annotate_span
        self.metrics.watch(self.memory.metrics)
        self.metrics.watch(partial(limit_metrics, settings, served))
        if state is not None:
            self.metrics.watch(partial(usage_metrics, os.getppid()))
            self.metrics.watch(state.metrics)
            state.set_ready()

    def reload(self) -> None:
        """Read the tokens' file again; where it is unusable, the tokens so far stay."""
        file = self.settings.api_tokens_file
        if file is None:
            return
        try:
            tokens = read_tokens(file)
            self.dispatcher.require(tokens)
        except (SettingsError, OSError) as error:
            logger.error("the tokens stay as they were: %s", error)
            return
        logger.info("tokens read again", extra={"fields": {"tokens": len(tokens.known)}})

    def close(self) -> None:
        """End the threads of the models and of the metrics."""
        self.registry.close()
        self._scraper.shutdown(wait=False)


def all_routes() -> tuple[Route, ...]:
    """The routes of every protocol, for the tasks that are known by now."""
    return (*native.routes(), *catalog.ROUTES, *health.ROUTES, *pages.ROUTES)


def all_protocols(routes: Sequence[Route]) -> tuple[str, ...]:
    """The values of the metrics' label `protocol`."""
    return tuple(dict.fromkeys([*(route.protocol for route in routes), IN_PROCESS, "other"]))


def served_model(manifest: Manifest, routes: Sequence[Route]) -> ServedModel:
    """What metrics need to know of a model; protocols that serve every task come first."""
    task = TASKS[manifest.task.type]
    own = [route for route in routes if route.is_inference and route.task in ("", task.name)]
    by_any = sorted(own, key=lambda route: bool(route.task))
    return ServedModel(
        manifest.name,
        manifest.version,
        task.name,
        task(manifest).labels,
        manifest.latency_objective_s,
        tuple(dict.fromkeys(route.protocol for route in by_any)),
    )


def freeze_loaded_objects() -> None:
    """Exclude all objects that exist now from garbage collection: they are never freed."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def limit_decode_threads() -> None:
    """Give the running event loop DECODE_THREADS threads; engines have their own."""
    executor = ThreadPoolExecutor(DECODE_THREADS, "decode")
    asyncio.get_running_loop().set_default_executor(executor)
