"""Which GPUs there are, told without a backend: a process that has loaded one must not fork."""

import importlib.util
import os
import re
from collections.abc import MutableMapping
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
_DEVICE = re.compile(r"nvidia(\d+)")


def visible_gpus(
    environment: MutableMapping[str, str] = os.environ, devices: Path = Path("/dev")
) -> list[str]:
    """The names of the NVIDIA GPUs that this process may use."""
    if VISIBLE in environment:
        names = [name.strip() for name in environment[VISIBLE].split(",")]
        return [name for name in names if name not in ("", "-1")]
    found = (_DEVICE.fullmatch(device.name) for device in devices.glob("nvidia*"))
    return sorted((match[1] for match in found if match), key=int)


def take_gpu(worker: int, environment: MutableMapping[str, str] = os.environ) -> None:
    """Let this process see one GPU alone, by its number among the workers."""
    gpus = visible_gpus(environment)
    if gpus:
        environment[VISIBLE] = gpus[worker % len(gpus)]


def keras_is_installed() -> bool:
    """Whether anything here can use a GPU."""
    return importlib.util.find_spec("keras") is not None
