"""GPUs and their memory, found without a backend: a process that has loaded one must not fork."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from service.machine import VISIBLE, visible_gpus


def take_gpu(worker: int, environment: MutableMapping[str, str] = os.environ) -> None:
    """Let this process see only one GPU, by the worker's number."""
    gpus = visible_gpus(environment)
    if gpus:
        environment[VISIBLE] = gpus[worker % len(gpus)]


def let_memory_grow(environment: MutableMapping[str, str] = os.environ) -> None:
    """Keep TensorFlow and JAX from taking all of a GPU's memory at the start."""
    environment.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def count_gpus() -> int:
    """How many GPUs Keras's backend sees; imports the backend."""
    import keras

    match keras.backend.backend():
        case "tensorflow":
            import tensorflow

            return len(tensorflow.config.list_physical_devices("GPU"))
        case "jax":
            import jax

            return sum(device.platform == "gpu" for device in jax.devices())
        case "torch":
            import torch

            return int(torch.cuda.device_count())
        case _:
            return 0


@dataclass(frozen=True)
class GpuMemory:
    """One GPU of the machine, as its driver describes it."""

    number: int
    name: str
    used_bytes: int
    total_bytes: int


def gpu_memory() -> list[GpuMemory]:
    """The memory of every GPU that answers; empty where NVIDIA's library is not installed."""
    if importlib.util.find_spec("pynvml") is None:
        return []
    import pynvml

    found = []
    with contextlib.suppress(pynvml.NVMLError):  # no driver, or it has lost every GPU
        pynvml.nvmlInit()
        for number in range(pynvml.nvmlDeviceGetCount()):
            with contextlib.suppress(pynvml.NVMLError):  # or this GPU
                handle = pynvml.nvmlDeviceGetHandleByIndex(number)
                memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
                name = pynvml.nvmlDeviceGetName(handle)
                found.append(GpuMemory(number, name, int(memory.used), int(memory.total)))
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlShutdown()
    return found


def gpu_metrics() -> Iterator[Metric]:
    """The memory of every GPU, used by any process, as metrics."""
    memory = GaugeMetricFamily(
        "vitrine_gpu_memory_bytes",
        "Memory of each GPU, used by any process",
        labels=("gpu", "name", "state"),
    )
    for gpu in gpu_memory():
        memory.add_metric((str(gpu.number), gpu.name, "used"), gpu.used_bytes)
        memory.add_metric((str(gpu.number), gpu.name, "total"), gpu.total_bytes)
    if memory.samples:
        yield memory
