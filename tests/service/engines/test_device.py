import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from service.artifacts.files import Artifact
from service.artifacts.manifest import MANIFEST_FILE, EngineName, read_manifest
from service.engines.device import choose_device, choose_engine, open_engine
from service.engines.keras import KerasEngine
from service.engines.litert import LiteRTEngine
from service.errors import ArtifactError, SettingsError
from service.tasks import TASKS


def set_engine(folder: Path, **engine: str) -> None:
    """Let a manifest choose these engines."""
    path = folder / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"engine": engine}))


def test_cpu_is_taken_without_a_look_for_gpus() -> None:
    assert choose_device("cpu") == "cpu"


# What Keras and its backend warn of on import is theirs.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU")
def test_gpu_without_a_gpu_stops_the_start() -> None:
    with pytest.raises(SettingsError, match="VITRINE_DEVICE=gpu: expected "):
        choose_device("gpu")


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU")
def test_auto_without_a_gpu_is_the_cpu() -> None:
    assert choose_device("auto") == "cpu"


def see_gpus(monkeypatch: pytest.MonkeyPatch, count: Callable[[], int]) -> None:
    """Let the machine have a device file, and the backend count its GPUs so."""
    monkeypatch.setattr("service.engines.device.may_have_gpu", lambda: True)
    monkeypatch.setattr("service.engines.device.visible_gpus", lambda: ["0"])
    monkeypatch.setattr("service.engines.device.may_have_gpu", lambda: True)
    monkeypatch.setattr("service.engines.device.keras_is_installed", lambda: True)
    monkeypatch.setattr("service.engines.device.let_memory_grow", lambda: None)
    monkeypatch.setattr("service.engines.device.count_gpus", count)


def test_gpu_without_a_device_file_is_told_before_a_backend_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def count() -> int:
        raise AssertionError("no backend is loaded")

    see_gpus(monkeypatch, count)
    monkeypatch.setattr("service.engines.device.may_have_gpu", lambda: False)
    with pytest.raises(SettingsError, match="expected a GPU, found no device file of one"):
        choose_device("gpu")


@pytest.mark.parametrize("error", [ImportError, ValueError, RuntimeError])
def test_auto_falls_back_to_the_cpu_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    def count() -> int:
        raise error("no driver")

    see_gpus(monkeypatch, count)
    assert choose_device("auto") == "cpu"
    assert "no GPU is used: Keras's backend cannot be loaded: no driver" in caplog.text
    with pytest.raises(SettingsError, match=r"expected a GPU; .* no driver"):
        choose_device("gpu")


def test_auto_says_that_the_backend_sees_no_gpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    see_gpus(monkeypatch, lambda: 0)
    assert choose_device("auto") == "cpu"
    assert "no GPU is used: Keras's backend sees none" in caplog.text


def test_auto_says_that_keras_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    see_gpus(monkeypatch, lambda: 1)
    monkeypatch.setattr("service.engines.device.keras_is_installed", lambda: False)
    assert choose_device("auto") == "cpu"
    assert "no GPU is used: Keras is not installed" in caplog.text


def test_auto_takes_a_gpu_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    see_gpus(monkeypatch, lambda: 1)
    assert choose_device("auto") == "gpu"


def test_engine_of_the_cpu_is_the_one_that_export_chose(artifact_folder: Path) -> None:
    artifact = Artifact(artifact_folder, read_manifest(artifact_folder, TASKS))
    engine = choose_engine(artifact, "cpu", threads=1)
    assert isinstance(engine, LiteRTEngine)
    assert engine.name == artifact.manifest.engine["cpu"] == "litert-dynamic-int8"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["keras", "keras-half"])
def test_keras_is_the_engine_of_a_cpu_where_the_artifact_says_so(
    artifact_folder: Path, name: str
) -> None:
    pytest.importorskip("keras")
    set_engine(artifact_folder, cpu=name)
    artifact = Artifact(artifact_folder, read_manifest(artifact_folder, TASKS))
    engine = choose_engine(artifact, "cpu", threads=1)
    assert isinstance(engine, KerasEngine)
    assert (engine.device, engine.name) == ("cpu", name)


def test_artifact_without_an_engine_for_the_device_is_refused(artifact_folder: Path) -> None:
    set_engine(artifact_folder, cpu="litert-dynamic-int8")
    artifact = Artifact(artifact_folder, read_manifest(artifact_folder, TASKS))
    with pytest.raises(ArtifactError, match="expected an engine for the gpu, got one for the cpu"):
        choose_engine(artifact, "gpu", threads=1)


def test_engine_on_keras_without_keras_is_refused(
    artifact_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_engine(artifact_folder, cpu="keras")
    monkeypatch.setattr("service.engines.device.keras_is_installed", lambda: False)
    artifact = Artifact(artifact_folder, read_manifest(artifact_folder, TASKS))
    with pytest.raises(ArtifactError, match="its engine is keras, and Keras is not installed"):
        choose_engine(artifact, "cpu", threads=1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", get_args(EngineName))
def test_every_engine_is_opened_by_its_name(artifact_folder: Path, name: EngineName) -> None:
    kind: type = LiteRTEngine
    file = "model.tflite"
    if name.startswith("keras"):
        pytest.importorskip("keras")
        kind, file = KerasEngine, "model.keras"
    tensors = {"inputs": ["image"], "outputs": ["probabilities"]}
    engine = open_engine(name, artifact_folder / file, "cpu", 1, **tensors)
    assert type(engine) is kind
    assert (engine.name, engine.device, engine.fixed_sizes) == (name, "cpu", kind is KerasEngine)
