"""All served models, and their entry point: `infer`, which every protocol calls."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from service.artifacts.files import Artifact, verify
from service.call import Call
from service.engines.device import choose_device, choose_engine
from service.engines.gpus import gpu_memory, gpu_metrics
from service.errors import (
    ArtifactError,
    BadInput,
    RequestError,
    SettingsError,
    StartError,
    UnknownModel,
    VitrineError,
)
from service.inference.decoding import Source
from service.inference.memory import Memory
from service.inference.model import Model
from service.machine import cpu_limit
from service.settings import Settings
from service.tasks.task import Answer, Options, Task
from service.telemetry.log import logger
from service.telemetry.metrics import Metrics

TaskType = type[Task[Any, Any]]


class Registry:
    """The served models by name and version."""

    def __init__(self, models: Sequence[Model], default_models: Mapping[str, str]) -> None:
        """`default_models` has the model of each verb; raises SettingsError for an unknown one."""
        self._by_name: dict[str, dict[str, Model]] = {}
        for model in sorted(models, key=lambda model: int(model.manifest.version)):
            versions = self._by_name.setdefault(model.manifest.name, {})
            versions[model.manifest.version] = model
        self._by_key = dict(_keys(self._by_name))
        self._default_models = default_models
        self._check_defaults()
        self.default = cache(self._default)
        """The name of the model that answers where none is named; raises BadInput without one."""

    def names(self) -> list[str]:
        """The names of all models, sorted."""
        return sorted(self._by_name)

    def versions(self, name: str) -> list[Model]:
        """All versions of a model, the lowest first; raises UnknownModel."""
        self.find(name)
        return list(self._by_name[name].values())

    def find(self, name: str, version: str | None = None) -> Model:
        """A model; without a version the highest; raises UnknownModel."""
        model = self._by_key.get((name, version))
        if model is not None:
            return model
        versions = self._by_name.get(name)
        if versions is None:
            raise UnknownModel(
                f"unknown model {name!r:.80}; expected one of {', '.join(self.names())}"
            )
        raise UnknownModel(
            f"{name}: unknown version {version!r:.80}; expected one of {', '.join(versions)}"
        )

    def select(self, name: str, version: str | None, call: Call) -> Model:
        """A model that a call is for, noted in the call; raises UnknownModel."""
        model = self.find(name, version)
        call.model, call.version, call.task = model.identity
        return model

    def select_for(self, task: TaskType, name: str | None, call: Call) -> Model:
        """The named model, or the task's default; raises UnknownModel or BadInput."""
        model = self.select(self.default(task) if name is None else name, None, call)
        if not isinstance(model.task, task):
            raise BadInput(
                f"expected a model for {task.name}, "
                f"got {model.manifest.name}, a model for {model.task.name}"
            )
        return model

    def _default(self, task: TaskType) -> str:
        served = [name for name in self.names() if isinstance(self.find(name).task, task)]
        setting = self._default_models.get(task.verb or "")
        if setting is not None:
            return setting
        if len(served) == 1:
            return served[0]
        if task.default_model in served:
            return str(task.default_model)
        if not served:
            raise BadInput(f"no model for {task.name} is served here")
        raise BadInput(f"expected the name of a model, one of {', '.join(served)}; got none")

    def is_default(self, model: Model) -> bool:
        """Whether a model answers where its task's form route is asked without a name."""
        try:
            name = self.default(type(model.task))
        except RequestError:
            return False
        return model is self.find(name)

    async def infer(
        self, name: str, version: str | None, source: Source, call: Call, options: Options
    ) -> Answer:
        """Answer one item with a model.

        Raises RequestError, Unavailable, DeadlinePassed or ClientGone.
        """
        return await self.select(name, version, call).infer(source, options, call)

    async def infer_each(
        self,
        name: str,
        version: str | None,
        sources: Sequence[Source],
        call: Call,
        options: Options,
    ) -> list[Answer | Exception]:
        """Answer several items, in order; an item that cannot be answered becomes its error.

        What ends the whole call (overload, deadline, a client that has gone) is raised.
        """
        model = self.select(name, version, call)
        model.check_room(len(sources))
        work = (model.infer(source, options, call) for source in sources)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_or_error(each)) for each in work]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    def _check_defaults(self) -> None:
        tasks = {model.task.verb: type(model.task) for model in self._models() if model.task.verb}
        for verb, name in self._default_models.items():
            if verb not in tasks:
                known = ", ".join(sorted(tasks)) or "none"
                raise SettingsError(
                    f"VITRINE_DEFAULT_MODELS: expected one of {known} before =, got {verb!r:.80}"
                )
            try:
                self.select_for(tasks[verb], name, Call("start"))
            except RequestError as error:
                raise SettingsError(f"VITRINE_DEFAULT_MODELS: {error}") from error

    def _models(self) -> list[Model]:
        return [model for versions in self._by_name.values() for model in versions.values()]

    def close(self) -> None:
        """End every model's queue."""
        for model in self._models():
            model.close()


def _keys(
    by_name: Mapping[str, Mapping[str, Model]],
) -> Iterator[tuple[tuple[str, str | None], Model]]:
    """Each model by name and version, and the highest version by its name alone."""
    for name, versions in by_name.items():
        for version, model in versions.items():
            yield (name, version), model
            yield (name, None), model


async def _or_error(work: Any) -> Answer | Exception:
    try:
        answer: Answer = await work
        return answer
    except RequestError as error:
        return error
    except VitrineError:
        raise
    except Exception as error:
        return error


def load_registry(
    artifacts: Sequence[Artifact],
    tasks: Mapping[str, TaskType],
    settings: Settings,
    metrics: Metrics,
    *,
    memory: Memory,
    folder: Path | None = None,
) -> Registry:
    """Verify, load, prove and warm every model; `folder` is what the workers share.

    Raises ArtifactError, SettingsError or OSError.
    """
    device = choose_device(settings.device)
    if device == "gpu":
        _announce_gpus(metrics)
    threads = max(1, cpu_limit() // settings.workers)
    loaded: list[Model] = []
    for artifact in artifacts:
        verify(artifact, device)
        try:
            task = tasks[artifact.manifest.task.type](artifact.manifest)
            engine = choose_engine(artifact, device, threads, folder)
            model = Model(artifact, task, engine, settings, metrics, memory=memory.share_of_model())
            model.prove()
            model.warm()
        except (StartError, OSError):
            raise
        except Exception as error:  # whatever an engine makes of a file that is no network
            raise ArtifactError(
                f"{artifact.folder}: its network and its manifest do not fit: {error}"
            ) from error
        _announce(model, metrics)
        loaded.append(model)
    return Registry(loaded, settings.default_models)


def _announce(model: Model, metrics: Metrics) -> None:
    manifest, engine = model.manifest, model.engine
    sha256 = manifest.files[str(manifest.engines[engine.name].file)].sha256
    metrics.announce(manifest.name, manifest.version, engine.name, engine.device, sha256)
    fields = {
        "model": manifest.name,
        "version": manifest.version,
        "engine": engine.name,
        "device": engine.device,
    }
    logger.info("loaded", extra={"fields": fields})


def _announce_gpus(metrics: Metrics) -> None:
    metrics.watch(gpu_metrics)
    for gpu in gpu_memory():
        fields = {"gpu": gpu.number, "name": gpu.name, "memory_bytes": gpu.total_bytes}
        logger.info("found a GPU", extra={"fields": fields})
