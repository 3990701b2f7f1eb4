import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.machine import (
    MAX_OPEN_FILES,
    decode_memory_bytes,
    may_have_gpu,
    memory_limit_bytes,
    open_files_limit,
    raise_open_files_limit,
)


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


@pytest.mark.parametrize(
    ("texts", "limit"),
    [
        (["1879048192\n"], 1879048192),
        (["max\n"], None),
        ([None, "1879048192\n"], 1879048192),  # cgroup v1 alone
        ([None, "9223372036854771712\n"], None),  # its way to say that there is none
        ([None, None], None),
    ],
)
def test_memory_limit_is_the_cgroup_s(
    tmp_path: Path, texts: list[str | None], limit: int | None
) -> None:
    files = [tmp_path / str(version) for version, _ in enumerate(texts)]
    for file, text in zip(files, texts, strict=True):
        if text is not None:
            file.write_text(text)
    assert memory_limit_bytes(files) == limit


def test_memory_to_decode_in_is_a_third_of_the_limit_and_at_most_512_mib() -> None:
    assert decode_memory_bytes(300_000_000) == 100_000_000
    assert decode_memory_bytes(10**12) == decode_memory_bytes(None) == 512 * 2**20


@pytest.fixture
def file_limits() -> Iterator[tuple[int, int]]:
    """This process's limits of open files; a test may change the lower one."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_limit_of_open_files_is_raised_to_what_the_system_allows(
    file_limits: tuple[int, int],
) -> None:
    most = file_limits[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, most))
    assert open_files_limit() == 200
    raise_open_files_limit()
    assert open_files_limit() == (
        MAX_OPEN_FILES if most == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, most)
    )


@pytest.mark.parametrize(
    ("limit", "most", "raised"),
    [
        (1024, 4096, 4096),
        (1024, 2 * MAX_OPEN_FILES, MAX_OPEN_FILES),
        (1024, resource.RLIM_INFINITY, MAX_OPEN_FILES),
        (2 * MAX_OPEN_FILES, 4 * MAX_OPEN_FILES, None),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None),
    ],
)
def test_limit_of_open_files_is_never_lowered_and_raised_no_further_than_needed(
    monkeypatch: pytest.MonkeyPatch, limit: int, most: int, raised: int | None
) -> None:
    asked: list[tuple[int, int]] = []

    def refused(_: int, limits: tuple[int, int]) -> None:
        asked.append(limits)
        raise ValueError("current limit exceeds maximum limit")  # as macOS does

    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, most))
    monkeypatch.setattr(resource, "setrlimit", refused)
    raise_open_files_limit()
    assert asked == ([] if raised is None else [(raised, most)])
    assert open_files_limit() == (MAX_OPEN_FILES if limit == resource.RLIM_INFINITY else limit)
