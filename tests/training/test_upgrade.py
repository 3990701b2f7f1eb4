"""An artifact of the first schema becomes one of today's, and nothing of it is lost."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow", reason="the recipes' words come with TensorFlow")

from service.artifacts.files import Artifact, verify
from service.artifacts.manifest import MANIFEST_FILE, read_manifest
from service.tasks import TASKS
from tests.conftest import SHIPPED_MODELS
from training.__main__ import main
from training.export import listed_files


def as_schema_1(fields: dict[str, Any]) -> dict[str, Any]:
    """A manifest as the first schema had it."""
    task, (output,) = fields["task"], fields["outputs"].values()
    dropped = ("inputs", "outputs", "latency_objective_s")
    old = {name: value for name, value in fields.items() if name not in dropped}
    engines = {
        name: {key: value for key, value in engine.items() if key != "quality"} | engine["quality"]
        for name, engine in fields["engines"].items()
    }
    return old | {
        "schema": 1,
        "task": task["type"],
        "labels": task.get("labels", []),
        "tiling": task.get("tiling"),
        "input": {name: value for name, value in fields["input"].items() if name != "type"},
        "output": output,
        "engines": engines,
    }


@pytest.fixture(params=["fashion-mnist", "denoiser"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a shipped artifact with a manifest of the first schema."""
    copy = tmp_path / str(request.param) / "1"
    shutil.copytree(SHIPPED_MODELS / copy.parent.name / "1", copy)
    path = copy / MANIFEST_FILE
    path.write_text(json.dumps(as_schema_1(json.loads(path.read_text()))))
    return copy


def test_upgraded_artifact_is_the_shipped_one(folder: Path) -> None:
    assert main(["upgrade", str(folder)]) == 0
    shipped = SHIPPED_MODELS / folder.parent.name / "1"
    for file in ("README.md", MANIFEST_FILE):
        assert (folder / file).read_text() == (shipped / file).read_text()


def test_upgraded_artifact_is_whole(folder: Path) -> None:
    assert main(["upgrade", str(folder)]) == 0
    manifest = read_manifest(folder, TASKS)
    verify(Artifact(folder, manifest))
    assert manifest.files == listed_files(folder)


def test_damaged_artifact_is_not_upgraded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / MANIFEST_FILE).read_text()
    (folder / "model.tflite").write_bytes(b"damaged")
    assert main(["upgrade", str(folder)]) == 1
    assert "model.tflite: expected" in capsys.readouterr().err
    assert (folder / MANIFEST_FILE).read_text() == before


def test_card_without_its_sections_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "README.md").write_text("# Something else\n")
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    listed = listed_files(folder)["README.md"].model_dump()
    manifest["files"]["README.md"] = listed
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    assert main(["upgrade", str(folder)]) == 1
    assert "expected a section 'What it is for', got none" in capsys.readouterr().err


def test_upgrade_of_nothing_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upgrade"]) == 2
    assert "models/fashion-mnist/1" in capsys.readouterr().err
