import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.artifacts.files import Artifact, find_artifacts, verify
from service.artifacts.manifest import MANIFEST_FILE, read_manifest
from service.errors import ArtifactError

EVERY_FILE = ["model.tflite", "model.keras", "sample.png", "README.md"]


def found(models_dir: Path, *names: str) -> list[tuple[str, str]]:
    artifacts = find_artifacts(models_dir, names)
    return [(artifact.manifest.name, artifact.manifest.version) for artifact in artifacts]


def copied(folder: Path, name: str, version: str) -> Path:
    """Another artifact beside `folder`'s, the same but for its name and version."""
    copy = folder.parents[1] / name / version
    shutil.copytree(folder, copy)
    edit(copy, lambda manifest: manifest.update(name=name, version=version))
    return copy


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def artifact_in(folder: Path) -> Artifact:
    return Artifact(folder, read_manifest(folder))


def test_artifact_is_found_by_its_folder(artifact_folder: Path, models_dir: Path) -> None:
    (artifact,) = find_artifacts(models_dir, ())
    assert artifact == artifact_in(artifact_folder)
    assert artifact.path("sample.png") == artifact_folder / "sample.png"


def test_every_version_of_every_model_is_found(artifact_folder: Path, models_dir: Path) -> None:
    copied(artifact_folder, "fashion-mnist", "2")
    copied(artifact_folder, "bags", "1")
    assert found(models_dir) == [("bags", "1"), ("fashion-mnist", "1"), ("fashion-mnist", "2")]


def test_only_the_requested_models_are_found(artifact_folder: Path, models_dir: Path) -> None:
    copied(artifact_folder, "bags", "1")
    copied(artifact_folder, "shoes", "1")
    assert found(models_dir, "shoes", "bags") == [("bags", "1"), ("shoes", "1")]


def test_model_that_is_not_requested_may_be_broken(artifact_folder: Path, models_dir: Path) -> None:
    copied(artifact_folder, "bags", "1")
    (artifact_folder / MANIFEST_FILE).write_text("{")
    assert found(models_dir, "bags") == [("bags", "1")]


def test_folder_without_a_manifest_does_not_exist(artifact_folder: Path, models_dir: Path) -> None:
    unfinished = copied(artifact_folder, "fashion-mnist", "2")
    (unfinished / MANIFEST_FILE).unlink()
    assert found(models_dir) == [("fashion-mnist", "1")]


@pytest.mark.parametrize(("name", "version"), [("fashion-mnist", "2"), ("bags", "1")])
def test_folder_that_is_not_called_as_its_manifest_says_is_refused(
    artifact_folder: Path, models_dir: Path, name: str, version: str
) -> None:
    shutil.copytree(artifact_folder, models_dir / name / version)
    expected = f"{name}/{version}: expected the folder fashion-mnist/1 of its manifest"
    with pytest.raises(ArtifactError, match=expected):
        find_artifacts(models_dir, ())


def test_unreadable_manifest_stops_the_search(artifact_folder: Path, models_dir: Path) -> None:
    edit(artifact_folder, lambda manifest: manifest.pop("labels"))
    with pytest.raises(ArtifactError, match="field labels"):
        find_artifacts(models_dir, ())


@pytest.mark.parametrize("there", [True, False])
def test_folder_without_any_model_is_refused(tmp_path: Path, there: bool) -> None:
    folder = tmp_path if there else tmp_path / "nowhere"
    with pytest.raises(ArtifactError) as caught:
        find_artifacts(folder, ())
    assert f"expected at least one model in {folder}, found none" in str(caught.value)


def test_requested_model_that_is_not_there_is_named(models_dir: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        find_artifacts(models_dir, ("shoes", "fashion-mnist", "bags"))
    assert f"expected bags, shoes in {models_dir}, found fashion-mnist" in str(caught.value)


def test_artifact_as_it_was_written_is_verified(artifact_folder: Path) -> None:
    verify(artifact_in(artifact_folder))


def test_file_beside_the_listed_ones_is_no_matter(artifact_folder: Path) -> None:
    (artifact_folder / "notes.txt").write_text("of a passer-by")
    verify(artifact_in(artifact_folder))


@pytest.mark.parametrize("name", EVERY_FILE)
@pytest.mark.parametrize("position", [0, -1])
def test_altered_byte_is_noticed(artifact_folder: Path, name: str, position: int) -> None:
    path = artifact_folder / name
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{path}: expected SHA-256 [0-9a-f]{{64}}, got"):
        verify(artifact_in(artifact_folder))


@pytest.mark.parametrize("name", EVERY_FILE)
@pytest.mark.parametrize("change", [-1, 1])
def test_file_of_another_size_is_noticed(artifact_folder: Path, name: str, change: int) -> None:
    path = artifact_folder / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] if change < 0 else content + b"\n")
    expected = f"{path}: expected {len(content)} bytes, got {len(content) + change}"
    with pytest.raises(ArtifactError, match=expected):
        verify(artifact_in(artifact_folder))


@pytest.mark.parametrize("name", EVERY_FILE)
def test_missing_file_is_named(artifact_folder: Path, name: str) -> None:
    path = artifact_folder / name
    size = path.stat().st_size
    path.unlink()
    with pytest.raises(ArtifactError, match=f"{path} is missing: expected a file of {size} bytes"):
        verify(artifact_in(artifact_folder))


def test_what_serving_on_a_cpu_does_not_take_may_be_absent(artifact_folder: Path) -> None:
    for name in ("model.keras", "curves.png", "confusion.png"):
        (artifact_folder / name).unlink()
    verify(artifact_in(artifact_folder), "cpu")
    with pytest.raises(ArtifactError, match=r"model\.keras is missing"):
        verify(artifact_in(artifact_folder), "gpu")


@pytest.mark.parametrize("name", ["model.tflite", "sample.png"])
def test_what_serving_on_a_cpu_takes_may_not_be_absent(artifact_folder: Path, name: str) -> None:
    (artifact_folder / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        verify(artifact_in(artifact_folder), "cpu")


def test_altered_file_that_is_not_served_is_noticed(artifact_folder: Path) -> None:
    (artifact_folder / "model.keras").write_bytes(b"altered")
    with pytest.raises(ArtifactError, match=r"model\.keras: expected"):
        verify(artifact_in(artifact_folder), "cpu")


def test_folder_in_place_of_a_file_is_a_missing_file(artifact_folder: Path) -> None:
    path = artifact_folder / "sample.png"
    path.unlink()
    path.mkdir()
    with pytest.raises(ArtifactError, match=f"{path} is missing"):
        verify(artifact_in(artifact_folder))


@pytest.mark.parametrize("name", ["model.tflite", "model.keras", "sample.png"])
def test_used_file_without_a_checksum_is_named(artifact_folder: Path, name: str) -> None:
    edit(artifact_folder, lambda manifest: manifest["files"].pop(name))
    with pytest.raises(ArtifactError, match=f"{name} is used but not listed under files"):
        verify(artifact_in(artifact_folder))
