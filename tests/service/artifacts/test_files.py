import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.artifacts.files import Artifact, find_artifacts, shared_copy, verify
from service.artifacts.manifest import MANIFEST_FILE, Device, read_manifest
from service.errors import ArtifactError
from service.tasks import TASKS
from tests.conftest import SHIPPED_MODELS

EVERY_FILE = ["model.tflite", "model.keras", "sample.png", "README.md"]


def found(models_dir: Path, *names: str) -> list[tuple[str, str]]:
    artifacts = find_artifacts(models_dir, names, TASKS)
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
    return Artifact(folder, read_manifest(folder, TASKS))


def test_artifact_is_found_by_its_folder(artifact_folder: Path, models_dir: Path) -> None:
    (artifact,) = find_artifacts(models_dir, (), TASKS)
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


def test_one_version_of_a_model_may_be_requested(artifact_folder: Path, models_dir: Path) -> None:
    for name, version in (("fashion-mnist", "2"), ("fashion-mnist", "10"), ("bags", "2")):
        copied(artifact_folder, name, version)
    assert found(models_dir, "fashion-mnist/2") == [("fashion-mnist", "2")]
    both = [("bags", "2"), ("fashion-mnist", "10")]
    assert found(models_dir, "fashion-mnist/10", "bags") == both
    every = [("fashion-mnist", version) for version in ("1", "10", "2")]
    assert found(models_dir, "fashion-mnist/2", "fashion-mnist") == every


@pytest.mark.parametrize("name", ["fashion-mnist/3", "fashion-mnist/", "bags/1", "1", "*"])
def test_requested_version_that_is_not_there_is_named(models_dir: Path, name: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        find_artifacts(models_dir, ("fashion-mnist/1", name), TASKS)
    message = str(caught.value)
    assert f"VITRINE_MODELS: expected {name} in {models_dir}, found fashion-mnist" in message


def test_model_that_is_not_requested_may_be_broken(artifact_folder: Path, models_dir: Path) -> None:
    copied(artifact_folder, "bags", "1")
    (artifact_folder / MANIFEST_FILE).write_text("{")
    assert found(models_dir, "bags") == [("bags", "1")]


@pytest.mark.parametrize("kept", ["model.tflite", "model.keras"])
def test_folder_with_a_network_and_no_manifest_is_named_in_the_log(
    artifact_folder: Path, models_dir: Path, caplog: pytest.LogCaptureFixture, kept: str
) -> None:
    unfinished = copied(artifact_folder, "fashion-mnist", "2")
    for path in unfinished.iterdir():
        if path.name != kept:
            path.unlink()
    assert found(models_dir) == [("fashion-mnist", "1")]
    assert caplog.messages == [f"{unfinished} is not served: it has no {MANIFEST_FILE}"]


def test_network_without_a_folder_of_a_version_is_named_in_the_log(
    artifact_folder: Path, models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    misplaced = models_dir / "my-model"
    misplaced.mkdir()
    shutil.copy(artifact_folder / "model.tflite", misplaced)
    assert found(models_dir) == [("fashion-mnist", "1")]
    (message,) = caplog.messages
    assert message == f"{misplaced} is not served: expected its files in {misplaced}/1"


def test_folder_without_a_network_and_a_manifest_is_no_matter(
    artifact_folder: Path, models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notes = models_dir / "notes" / "2024"
    notes.mkdir(parents=True)
    (notes / "README.md").write_text("of the last year")
    (models_dir / ".DS_Store").write_text("")
    assert found(models_dir) == [("fashion-mnist", "1")]
    assert caplog.messages == []


@pytest.mark.parametrize(("name", "version"), [("fashion-mnist", "2"), ("bags", "1")])
def test_folder_that_is_not_called_as_its_manifest_says_is_refused(
    artifact_folder: Path, models_dir: Path, name: str, version: str
) -> None:
    shutil.copytree(artifact_folder, models_dir / name / version)
    expected = f"{name}/{version}: expected the folder fashion-mnist/1 of its manifest"
    with pytest.raises(ArtifactError, match=expected):
        find_artifacts(models_dir, (), TASKS)


def test_unreadable_manifest_stops_the_search(artifact_folder: Path, models_dir: Path) -> None:
    edit(artifact_folder, lambda manifest: manifest["task"].pop("labels"))
    with pytest.raises(ArtifactError, match=r"field task\.labels"):
        find_artifacts(models_dir, (), TASKS)


@pytest.mark.parametrize("there", [True, False])
def test_folder_without_any_model_is_refused(tmp_path: Path, there: bool) -> None:
    folder = tmp_path if there else tmp_path / "nowhere"
    with pytest.raises(ArtifactError) as caught:
        find_artifacts(folder, (), TASKS)
    assert f"expected at least one model in {folder}, found none" in str(caught.value)


def test_requested_model_that_is_not_there_is_named(models_dir: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        find_artifacts(models_dir, ("shoes", "fashion-mnist", "bags"), TASKS)
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


@pytest.mark.parametrize("name", ["README.md", "curves.png", "model.keras"])
def test_altered_file_that_serving_on_a_cpu_does_not_take_is_no_matter(
    artifact_folder: Path, name: str
) -> None:
    (artifact_folder / name).write_bytes(b"edited")
    verify(artifact_in(artifact_folder), "cpu")
    with pytest.raises(ArtifactError, match=f"{name}: expected"):
        verify(artifact_in(artifact_folder))


@pytest.mark.parametrize(
    ("device", "name"),
    [("cpu", "model.tflite"), ("cpu", "sample.png"), ("gpu", "model.keras"), ("gpu", "sample.png")],
)
def test_altered_file_that_serving_takes_is_noticed(
    artifact_folder: Path, device: Device, name: str
) -> None:
    (artifact_folder / name).write_bytes(b"altered")
    with pytest.raises(ArtifactError, match=f"{name}: expected .* bytes, got 7"):
        verify(artifact_in(artifact_folder), device)


def test_recorded_answer_of_a_denoiser_is_taken_for_serving(tmp_path: Path) -> None:
    folder = tmp_path / "denoiser" / "1"
    shutil.copytree(SHIPPED_MODELS / "denoiser" / "1", folder)
    verify(artifact_in(folder), "cpu")
    (folder / "sample-expected.png").write_bytes(b"altered")
    with pytest.raises(ArtifactError, match=r"sample-expected\.png: expected"):
        verify(artifact_in(folder), "cpu")


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


# Volumes of Kubernetes hold links, so links are followed: a file is what its checksum says.


def test_link_to_the_same_content_is_followed(artifact_folder: Path, tmp_path: Path) -> None:
    file = artifact_folder / "model.tflite"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    verify(artifact_in(artifact_folder), "cpu")


@pytest.mark.parametrize("target", ["README.md", "/dev/zero", "/nowhere"])
def test_link_to_anything_else_is_refused(artifact_folder: Path, target: str) -> None:
    file = artifact_folder / "model.tflite"
    file.unlink()
    file.symlink_to(artifact_folder / target)
    with pytest.raises(ArtifactError, match=r"model\.tflite"):
        verify(artifact_in(artifact_folder), "cpu")


def test_processes_that_share_a_folder_share_one_copy_of_a_file(
    artifact_folder: Path, tmp_path: Path
) -> None:
    artifact, shared = artifact_in(artifact_folder), tmp_path / "shared"
    shared.mkdir()
    with ThreadPoolExecutor(4) as workers:  # all at once, as workers start
        copies = list(
            workers.map(lambda _: shared_copy(artifact, "model.tflite", shared), range(4))
        )
    assert {copy.stat().st_ino for copy in copies} == {copies[0].stat().st_ino}
    assert list(shared.iterdir()) == copies[:1]
    assert copies[0].read_bytes() == artifact.path("model.tflite").read_bytes()


def test_only_a_file_that_is_as_the_manifest_says_is_copied(
    artifact_folder: Path, tmp_path: Path
) -> None:
    artifact, shared = artifact_in(artifact_folder), tmp_path / "shared"
    shared.mkdir()
    artifact.path("model.tflite").write_bytes(b"other")
    with pytest.raises(ArtifactError, match="expected"):
        shared_copy(artifact, "model.tflite", shared)
    assert not list(shared.iterdir())
