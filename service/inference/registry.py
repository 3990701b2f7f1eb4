"""All served models: verified, loaded, proven and warm before the first request."""

from collections.abc import Iterator
from typing import Literal

from service.artifacts.files import Artifact, verify
from service.artifacts.manifest import Device
from service.engines.engine import Engine, count_gpus, open_engine
from service.engines.gpus import gpu_memory, gpu_metrics, let_memory_grow
from service.errors import ArtifactError, SettingsError, StartError, UnknownModel
from service.inference.model import Model
from service.machine import cpu_limit, keras_is_installed, visible_gpus
from service.settings import Settings
from service.telemetry.log import logger
from service.telemetry.metrics import Metrics


class Models:
    """The served models by name and version."""

    def __init__(self, models: list[Model]) -> None:
        self._all = models
        self._by_name: dict[str, dict[str, Model]] = {}
        for model in sorted(models, key=lambda model: int(model.manifest.version)):
            versions = self._by_name.setdefault(model.manifest.name, {})
            versions[model.manifest.version] = model
        self.by_path = dict(self._paths())
        """The model that an image posted to a path of :predict is for."""

    def names(self) -> list[str]:
        """The names of all models, sorted."""
        return sorted(self._by_name)

    def find(self, name: str, version: str | None = None) -> Model:
        """A model; without a version the highest; raises UnknownModel."""
        versions = self._by_name.get(name)
        if versions is None:
            raise UnknownModel(f"expected a model of {', '.join(self.names())}; got {name!r:.80}")
        if version is None:
            return next(reversed(versions.values()))
        if version not in versions:
            raise UnknownModel(
                f"{name}: expected version {', '.join(versions)}; got {version!r:.80}"
            )
        return versions[version]

    def _paths(self) -> Iterator[tuple[bytes, Model]]:
        for name, versions in self._by_name.items():
            yield f"/v1/models/{name}:predict".encode(), self.find(name)
            for version, model in versions.items():
                yield f"/v1/models/{name}/versions/{version}:predict".encode(), model

    def close(self) -> None:
        """Let every model's queue end."""
        for model in self._all:
            model.close()


def load_models(artifacts: list[Artifact], settings: Settings, metrics: Metrics) -> Models:
    """Verify, load, prove and warm every model; raises ArtifactError or SettingsError."""
    device = choose_device(settings.device)
    if device == "gpu":
        _announce_gpus(metrics)
    threads = max(1, cpu_limit() // settings.workers)
    loaded: list[Model] = []
    for artifact in artifacts:
        verify(artifact, device)
        try:
            model = Model(artifact, choose_engine(artifact, device, threads), settings, metrics)
            model.prove()
            model.warm()
        except StartError:
            raise
        except Exception as error:  # whatever an engine makes of a file that is no network
            raise ArtifactError(
                f"{artifact.folder}: its network and its manifest do not fit: {error}"
            ) from error
        _announce(model, metrics)
        loaded.append(model)
    return Models(loaded)


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
        logger.info("found", extra={"fields": fields})


def choose_device(wanted: Literal["auto", "cpu", "gpu"]) -> Device:
    """The GPU if one is asked for or found; raises SettingsError if asked for and not there."""
    if wanted == "cpu":
        return "cpu"
    if not keras_is_installed():
        if wanted == "gpu":
            raise SettingsError(
                "VITRINE_DEVICE=gpu: expected Keras and a backend with GPU support, "
                "got an environment without Keras"
            )
        if wanted == "auto" and visible_gpus():
            logger.warning("no GPU is used: Keras is not installed")
        return "cpu"
    let_memory_grow()
    # `auto` must not load a whole backend where plainly no GPU is.
    if wanted == "auto" and not visible_gpus():
        return "cpu"
    try:
        found = count_gpus()
    except Exception as error:  # a backend that is not installed, not known, or cannot start
        found, why = 0, f"Keras's backend cannot be loaded: {error}"
    else:
        why = "Keras's backend sees none"
    if found:
        return "gpu"
    if wanted == "gpu":
        raise SettingsError(f"VITRINE_DEVICE=gpu: expected a GPU; {why}")
    logger.warning("no GPU is used: %s", why)
    return "cpu"


def choose_engine(artifact: Artifact, device: Device, threads: int) -> Engine:
    """The engine that export chose for a device by measurement; raises ArtifactError."""
    manifest = artifact.manifest
    if device not in manifest.engine:
        raise ArtifactError(
            f"{artifact.folder}: expected an engine for the {device}, got one for the "
            f"{', '.join(manifest.engine)}"
        )
    name = manifest.engine[device]
    if name in ("keras", "keras-half") and not keras_is_installed():
        raise ArtifactError(f"{artifact.folder}: its engine is {name}, and Keras is not installed")
    return open_engine(name, artifact.path(str(manifest.engines[name].file)), device, threads)
