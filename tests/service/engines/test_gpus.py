import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from service.engines import gpus
from service.engines.gpus import GpuMemory, gpu_memory, let_memory_grow, take_gpu
from service.machine import visible_gpus


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    """A folder as /dev is on a machine with three GPUs."""
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    return tmp_path


def test_every_gpu_of_the_machine_is_seen(devices: Path) -> None:
    assert visible_gpus({}, devices) == ["0", "1", "10"]


def test_machine_without_gpus_has_none(tmp_path: Path) -> None:
    assert visible_gpus({}, tmp_path) == []


@pytest.mark.parametrize(
    ("named", "seen"),
    [("1", ["1"]), ("10, 0", ["10", "0"]), ("GPU-8932f937", ["GPU-8932f937"])],
)
def test_environment_says_which_gpus_are_ours(devices: Path, named: str, seen: list[str]) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": named}, devices) == seen


@pytest.mark.parametrize("named", ["", "-1"])
def test_environment_may_hide_every_gpu(devices: Path, named: str) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": named}, devices) == []


def test_workers_share_the_gpus_out() -> None:
    taken = []
    for worker in range(3):
        environment = {"CUDA_VISIBLE_DEVICES": "4,7"}
        take_gpu(worker, environment)
        taken.append(environment["CUDA_VISIBLE_DEVICES"])
    assert taken == ["4", "7", "4"]


def test_frameworks_take_memory_as_they_need_it_unless_told_otherwise() -> None:
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "true"}
    let_memory_grow(environment)
    assert environment == {
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "true",
    }


class LostDriver:
    """A management library whose driver has lost its cards after the start."""

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None:  # noqa: N802  (NVIDIA's names)
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        raise self.NVMLError

    nvmlShutdown = nvmlDeviceGetCount  # noqa: N815


def test_lost_gpus_have_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = LostDriver()
    driver.__spec__ = ModuleSpec("pynvml", None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    assert gpu_memory() == []


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU")
def test_machine_without_gpus_has_no_memory_of_them() -> None:
    assert gpu_memory() == []


def test_memory_of_every_gpu_is_a_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "gpu_memory", lambda: [GpuMemory(1, "A GPU", 10, 100)])
    (memory,) = gpus.gpu_metrics()
    labels = {"gpu": "1", "name": "A GPU"}
    found = [(sample.labels, sample.value) for sample in memory.samples]
    assert found == [(labels | {"state": "used"}, 10), (labels | {"state": "total"}, 100)]


def test_machine_without_gpus_has_no_metric_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "gpu_memory", list)
    assert list(gpus.gpu_metrics()) == []
