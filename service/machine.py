"""CPUs and GPUs that this process may use, found without loading a deep-learning backend."""

import contextlib
import importlib.util
import os
import re
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

MAX_OPEN_FILES = 65536
VISIBLE = "CUDA_VISIBLE_DEVICES"
_DEVICE = re.compile(r"nvidia(\d+)")
_NVIDIA = ("nvidia*", "nvhost*", "dxg")  # a card, a Jetson board, Windows' own under WSL
_OTHER = ("kfd", "accel*")  # AMD's ROCm, a TPU

_DECODE_MEMORY_BYTES = 512 * 2**20
_NO_LIMIT_BYTES = 2**60


def cpu_quota() -> float:
    """CPUs that this process may use: the cgroup's quota, at most the cores that it may run on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(cores or 1, int(quota) / int(period))
    except (OSError, ValueError):  # no cgroup v2, or the quota is "max"
        return cores or 1


def cpu_limit() -> int:
    """Whole CPUs that this process may use, at least one."""
    return max(1, int(cpu_quota()))


def memory_limit_bytes(
    files: Sequence[Path] = (
        Path("/sys/fs/cgroup/memory.max"),  # cgroup v2
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),  # v1; its "none" is a huge number
    ),
) -> int | None:
    """The cgroup's limit on memory; None without one."""
    for file in files:
        with contextlib.suppress(OSError, ValueError):  # no such cgroup, or the limit is "max"
            limit = int(file.read_text())
            return limit if limit < _NO_LIMIT_BYTES else None
    return None


def decode_memory_bytes(limit: int | None) -> int:
    """A third of a limit on memory, at most 512 MiB."""
    return _DECODE_MEMORY_BYTES if limit is None else min(_DECODE_MEMORY_BYTES, limit // 3)


def default_workers(device: str) -> int:
    """One per GPU where GPUs are used, else one per CPU."""
    gpus = visible_gpus() if device != "cpu" and keras_is_installed() else []
    return len(gpus) or cpu_limit()


def visible_gpus(
    environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")
) -> list[str]:
    """The NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if VISIBLE in environment:
        names = [name.strip() for name in environment[VISIBLE].split(",")]
        return [name for name in names if name not in ("", "-1")]
    found = (_DEVICE.fullmatch(device.name) for device in devices.glob("nvidia*"))
    return sorted((match[1] for match in found if match), key=int)


def may_have_gpu(
    environment: Mapping[str, str] = os.environ,
    devices: Path = Path("/dev"),
    platform: str = sys.platform,
) -> bool:
    """Whether a backend may find a GPU here; False saves loading one to ask it."""
    if platform != "linux":
        return True
    is_hidden = VISIBLE in environment and not visible_gpus(environment, devices)
    patterns = _OTHER if is_hidden else (*_NVIDIA, *_OTHER)
    return any(any(devices.glob(pattern)) for pattern in patterns)


def open_files_limit() -> int:
    """How many files and connections a process may have open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_OPEN_FILES if limit == resource.RLIM_INFINITY else limit


def raise_open_files_limit() -> None:
    """Allow this process and its children MAX_OPEN_FILES, or as many as the system lets them have.

    Many systems give a process 1024 unless it asks for more.
    """
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if most == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, most)
    if limit != resource.RLIM_INFINITY and limit < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def keras_is_installed() -> bool:
    """Whether Keras is installed; no other engine can use a GPU."""
    return importlib.util.find_spec("keras") is not None
