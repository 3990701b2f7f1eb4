import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.machine import COMPUTE_NICE, may_have_gpu, yield_to_the_event_loop


@pytest.mark.parametrize("name", ["nvidia0", "nvidiactl", "nvhost-gpu", "dxg", "kfd", "accel0"])
def test_device_file_means_that_there_may_be_a_gpu(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert may_have_gpu({}, tmp_path, "linux")


@pytest.mark.parametrize("names", [(), ("null", "nvme0", "nvram", "dri")])
def test_linux_without_a_device_file_has_no_gpu(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert not may_have_gpu({}, tmp_path, "linux")
    assert not may_have_gpu({"CUDA_VISIBLE_DEVICES": "0"}, tmp_path, "linux")


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_environment_may_hide_gpus_of_nvidia_only(tmp_path: Path, hidden: str) -> None:
    (tmp_path / "nvidia0").touch()
    assert not may_have_gpu({"CUDA_VISIBLE_DEVICES": hidden}, tmp_path, "linux")
    (tmp_path / "kfd").touch()
    assert may_have_gpu({"CUDA_VISIBLE_DEVICES": hidden}, tmp_path, "linux")


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_may_always_have_a_gpu(tmp_path: Path, platform: str) -> None:
    assert may_have_gpu({}, tmp_path, platform)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities by thread")
def test_a_thread_that_computes_gives_way_to_the_event_loop() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    with ThreadPoolExecutor(1, initializer=yield_to_the_event_loop) as computing:
        assert computing.submit(niceness).result() == niceness() + COMPUTE_NICE
