import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.artifacts.files import Artifact, find_artifacts
from service.artifacts.manifest import MANIFEST_FILE, read_manifest
from service.engines.engine import KerasEngine, LiteRTEngine
from service.errors import ArtifactError, SettingsError, UnknownModel
from service.inference.registry import Models, choose_device, choose_engine, load_models
from service.settings import Settings
from tests.exposition import parsed
from tests.metrics import metrics_of

Load = Callable[..., Models]


@pytest.fixture
def load(models_dir: Path) -> Iterator[Load]:
    """Loads the models of `models_dir`, by default with small batches on the CPU."""
    loaded: list[Models] = []

    def load(**settings: Any) -> Models:
        chosen: dict[str, Any] = {"device": "cpu", "workers": 1, "max_batch_size": 4} | settings
        all_settings = Settings(models_dir=models_dir, **chosen)
        artifacts = find_artifacts(models_dir, all_settings.models)
        metrics = metrics_of(*(artifact.manifest for artifact in artifacts))
        models = load_models(artifacts, all_settings, metrics)
        loaded.append(models)
        return models

    yield load
    for models in loaded:
        models.close()


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def add_copy(folder: Path, name: str, version: str) -> None:
    """Put another artifact beside `folder`'s, the same but for its name and version."""
    copy = folder.parents[1] / name / version
    shutil.copytree(folder, copy)
    edit(copy, lambda manifest: manifest.update(name=name, version=version))


def found(models: Models, name: str, version: str | None = None) -> tuple[str, str]:
    manifest = models.find(name, version).manifest
    return manifest.name, manifest.version


@pytest.mark.parametrize("others", [(), ("2",), ("2", "10"), ("10", "9")])
def test_highest_version_is_meant_without_one(
    artifact_folder: Path, load: Load, others: tuple[str, ...]
) -> None:
    for version in others:
        add_copy(artifact_folder, "fashion-mnist", version)
    highest = max(["1", *others], key=int)
    assert found(load(), "fashion-mnist") == ("fashion-mnist", highest)


def test_every_version_is_found_by_its_number(artifact_folder: Path, load: Load) -> None:
    add_copy(artifact_folder, "fashion-mnist", "2")
    models = load()
    for version in ("1", "2"):
        assert found(models, "fashion-mnist", version) == ("fashion-mnist", version)


def test_names_are_sorted_and_named_once(artifact_folder: Path, load: Load) -> None:
    add_copy(artifact_folder, "fashion-mnist", "2")
    add_copy(artifact_folder, "shoes", "1")
    add_copy(artifact_folder, "bags", "1")
    assert load().names() == ["bags", "fashion-mnist", "shoes"]


def test_only_the_named_models_are_loaded(artifact_folder: Path, load: Load) -> None:
    add_copy(artifact_folder, "bags", "1")
    assert load(models=("bags",)).names() == ["bags"]


@pytest.mark.parametrize("name", ["bags", "", "Fashion-MNIST", "fashion-mnist/1", "x" * 10_000])
def test_unknown_name_is_named_beside_the_known(load: Load, name: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        load().find(name)
    message = str(caught.value)
    assert message.startswith("expected a model of fashion-mnist; got '")
    assert name[:70] in message
    assert len(message) < 200


@pytest.mark.parametrize("version", ["3", "0", "", "01", "latest", "-1", "9" * 10_000])
def test_unknown_version_is_named_beside_the_known(
    artifact_folder: Path, load: Load, version: str
) -> None:
    add_copy(artifact_folder, "fashion-mnist", "2")
    with pytest.raises(UnknownModel) as caught:
        load().find("fashion-mnist", version)
    message = str(caught.value)
    assert message.startswith("fashion-mnist: expected version 1, 2; got '")
    assert version[:70] in message
    assert len(message) < 200


@pytest.mark.parametrize(
    "expected",
    [
        {"label": "Bag", "index": 8},
        {"probability": 0.0},
        {"probability": 0.0, "tolerance": 0.3},
    ],
    ids=["label", "probability", "beyond the tolerance"],
)
def test_sample_that_is_not_answered_as_recorded_stops_the_start(
    artifact_folder: Path, load: Load, expected: dict[str, object]
) -> None:
    edit(artifact_folder, lambda manifest: manifest["sample"]["expected"].update(expected))
    with pytest.raises(
        ArtifactError, match=r"sample\.png on litert-dynamic-int8: expected .* got 'Trouser'"
    ):
        load()


def test_sample_within_the_tolerance_is_answered_as_recorded(
    artifact_folder: Path, load: Load
) -> None:
    wide = {"probability": 0.5, "tolerance": 0.5}
    edit(artifact_folder, lambda manifest: manifest["sample"]["expected"].update(wide))
    assert load().names() == ["fashion-mnist"]


def test_altered_network_stops_the_start(artifact_folder: Path, load: Load) -> None:
    path = artifact_folder / "model.tflite"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match=r"model\.tflite: expected SHA-256"):
        load()


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Put other content into a file, and its checksum into the manifest."""
    (folder / name).write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit(folder, lambda manifest: manifest["files"].update({name: entry}))


def test_file_that_is_no_network_stops_the_start(artifact_folder: Path, load: Load) -> None:
    replace_file(artifact_folder, "model.tflite", b"junk")
    with pytest.raises(ArtifactError, match="do not fit"):
        load()


def test_sample_that_is_no_image_stops_the_start(artifact_folder: Path, load: Load) -> None:
    replace_file(artifact_folder, "sample.png", b"junk")
    with pytest.raises(ArtifactError, match=r"sample\.png: expected an image"):
        load()


def test_input_of_another_size_than_the_network_takes_stops_the_start(
    artifact_folder: Path, load: Load
) -> None:
    edit(artifact_folder, lambda manifest: manifest["input"].update(shape=[32, 32, 1]))
    with pytest.raises(ArtifactError, match="do not fit"):
        load()


def test_one_bad_version_stops_the_start(artifact_folder: Path, load: Load) -> None:
    add_copy(artifact_folder, "fashion-mnist", "2")
    (artifact_folder.parent / "2" / "sample.png").unlink()
    with pytest.raises(ArtifactError, match=r"sample\.png is missing"):
        load()


def test_folder_without_models_stops_the_start(artifact_folder: Path, load: Load) -> None:
    shutil.rmtree(artifact_folder)
    with pytest.raises(ArtifactError, match="expected at least one model"):
        load()


def test_loaded_model_is_announced_in_the_metrics(
    artifact_folder: Path,
) -> None:
    artifact = Artifact(artifact_folder, read_manifest(artifact_folder))
    metrics = metrics_of(artifact.manifest)
    load_models([artifact], Settings(device="cpu", workers=1), metrics).close()
    labels = {
        "model": "fashion-mnist",
        "version": "1",
        "task": "classification",
        "engine": "litert-dynamic-int8",
        "device": "cpu",
        "sha256": read_manifest(artifact_folder).files["model.tflite"].sha256,
    }
    series = parsed(metrics.expose().decode())
    assert [pairs for name, pairs in series if name == "vitrine_model_info"] == [
        tuple(sorted(labels.items()))
    ]


def test_largest_batch_need_not_be_a_power_of_two(load: Load) -> None:
    assert load(max_batch_size=3).names() == ["fashion-mnist"]
