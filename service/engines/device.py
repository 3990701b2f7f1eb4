"""Which device serves, and the engine that export chose for it by measurement."""

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from service.artifacts.files import Artifact, shared_copy
from service.artifacts.manifest import Device, EngineName
from service.engines.engine import Engine
from service.engines.gpus import count_gpus, let_memory_grow
from service.engines.keras import KerasEngine
from service.engines.litert import LiteRTEngine
from service.errors import ArtifactError, SettingsError
from service.machine import keras_is_installed, may_have_gpu, visible_gpus
from service.telemetry.log import logger


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
    if wanted == "gpu" and not may_have_gpu():
        raise SettingsError("VITRINE_DEVICE=gpu: expected a GPU, found no device file of one")
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


def choose_engine(
    artifact: Artifact, device: Device, threads: int, folder: Path | None = None
) -> Engine:
    """Load the engine of a device; processes that share a `folder` share the network's memory.

    Raises ArtifactError where there is none, OSError where the folder is full.
    """
    manifest = artifact.manifest
    if device not in manifest.engine:
        raise ArtifactError(
            f"{artifact.folder}: expected an engine for the {device}, got one for the "
            f"{', '.join(manifest.engine)}"
        )
    name = manifest.engine[device]
    if name in ("keras", "keras-half") and not keras_is_installed():
        raise ArtifactError(f"{artifact.folder}: its engine is {name}, and Keras is not installed")
    file = str(manifest.engines[name].file)
    tensors = {"inputs": manifest.inputs, "outputs": manifest.outputs}
    if folder is not None and name not in ("keras", "keras-half"):
        copy = shared_copy(artifact, file, folder)
        return LiteRTEngine(copy, threads, name, **tensors, is_mapped=True)
    return open_engine(name, artifact.path(file), device, threads, **tensors)


def open_engine(
    name: EngineName,
    file: Path,
    device: Device,
    threads: int,
    *,
    inputs: Collection[str],
    outputs: Collection[str],
) -> Engine:
    """Load a network; `threads` are for LiteRT, and a device other than the CPU for Keras."""
    if name in ("keras", "keras-half"):
        return KerasEngine(file, device, name, inputs=inputs, outputs=outputs)
    return LiteRTEngine(file, threads, name, inputs=inputs, outputs=outputs)
