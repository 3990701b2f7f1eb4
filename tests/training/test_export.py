"""From a trained network to an artifact: whole and true, or not there."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorflow", reason="export needs TensorFlow")
pytest.importorskip("keras", reason="export needs Keras")

from service.artifacts.files import Artifact, find_artifacts, verify
from service.artifacts.manifest import read_manifest
from service.engines import device
from service.engines.engine import Tensors
from service.engines.litert import LiteRTEngine
from service.errors import ArtifactError
from service.pixels.preprocess import Floats, preprocess
from service.tasks import TASKS
from service.tasks.classification import ClassificationSpec, ExpectedLabel
from tests.training.tiny import CARD, INPUT, LABELS, METRICS, network, options, trained
from training.card import render_card
from training.errors import ExportError
from training.export import export
from training.tasks import task


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def folder(out: Path) -> Any:
    """One exported artifact, to look at."""
    return export(trained(), options(out, network="mlp"))


def stop(*_arguments: Any, **_named: Any) -> None:
    raise KeyboardInterrupt


def is_nothing_there(models: Path) -> bool:
    """Whether the service finds no model."""
    with pytest.raises(ArtifactError, match="found none"):
        find_artifacts(models, (), TASKS)
    return True


def test_artifact_lies_in_a_folder_of_its_name_and_version(folder: Path, out: Path) -> None:
    assert folder == out / "tiny" / "1"
    manifest = read_manifest(folder, TASKS)
    assert (manifest.name, manifest.version) == ("tiny", "1")


def test_artifact_holds_what_its_manifest_lists_and_nothing_else(folder: Path) -> None:
    listed = {*read_manifest(folder, TASKS).files, "manifest.json"}
    assert {path.name for path in folder.iterdir()} == listed
    assert listed == {
        "manifest.json", "model.keras", "model.tflite", "README.md", "sample.png", "figure.png",
    }  # fmt: skip


def test_checksums_hold(folder: Path) -> None:
    verify(Artifact(folder, read_manifest(folder, TASKS)))


def test_export_leaves_nothing_else_behind(folder: Path, out: Path) -> None:
    assert [path.name for path in (out / "tiny").iterdir()] == [folder.name]


def test_manifest_says_what_was_trained(folder: Path) -> None:
    manifest = read_manifest(folder, TASKS)
    assert (manifest.task, manifest.input) == (ClassificationSpec(labels=LABELS), INPUT)
    assert manifest.parameters == 16 * 3 + 3
    assert manifest.metrics == METRICS


def test_manifest_says_where_the_weights_come_from(folder: Path) -> None:
    training = read_manifest(folder, TASKS).training
    assert (training.recipe, training.seed, training.seconds) == ("tiny", 1, 1234.5)
    assert training.arguments == {"network": "mlp"}
    assert training.dataset_sha256 == {"drawn.bin": "0" * 64}
    assert {"keras", "tensorflow", "numpy"} <= training.libraries.keys()


def test_manifest_says_how_fast_and_how_alike_the_engines_are(folder: Path) -> None:
    engines = read_manifest(folder, TASKS).engines
    assert set(engines) == {
        *("keras", "keras-half", "litert", "litert-dynamic-int8", "litert-int8")
    }
    for engine in engines.values():
        assert list(engine.milliseconds) == ["1", "8", "32"]
        assert min(engine.milliseconds.values()) > 0
        assert engine.max_abs_difference < 0.1
        assert engine.quality.keys() == {"label_agreement", "accuracy"}
    assert engines["keras"].max_abs_difference == 0
    assert engines["litert"].max_abs_difference < 1e-5
    assert engines["litert"].quality["label_agreement"] == 1


def test_files_are_those_of_the_engines_that_are_served(folder: Path) -> None:
    manifest = read_manifest(folder, TASKS)
    files = {name: engine.file for name, engine in manifest.engines.items() if engine.file}
    assert files == {
        "keras": "model.keras",
        "keras-half": "model.keras",
        manifest.engine["cpu"]: "model.tflite",
    }


def test_card_is_that_of_the_manifest(folder: Path) -> None:
    assert (folder / "README.md").read_text() == render_card(read_manifest(folder, TASKS), CARD)


def test_sample_answer_is_that_of_the_trained_network(folder: Path) -> None:
    with Image.open(folder / "sample.png") as image:
        answer = network().predict_on_batch(preprocess(image, INPUT)[np.newaxis])[0]
    expected = read_manifest(folder, TASKS).sample.expected
    assert isinstance(expected, ExpectedLabel)
    assert (expected.index, expected.label) == (answer.argmax(), LABELS[answer.argmax()])
    assert expected.probability == pytest.approx(answer.max(), abs=1e-5)


@pytest.mark.parametrize(
    ("there", "version"), [((), "1"), (("1",), "2"), (("2", "10"), "11"), (("notes", "3"), "4")]
)
def test_versions_count_up(there: tuple[str, ...], version: str, tmp_path: Path) -> None:
    for name in there:
        (tmp_path / "tiny" / name).mkdir(parents=True)
    assert export(trained(), options(tmp_path)).name == version


def test_new_version_leaves_the_old_one_alone(tmp_path: Path) -> None:
    first = export(trained(), options(tmp_path))
    before = read_manifest(first, TASKS)
    second = export(trained(), options(tmp_path))
    assert (first.name, second.name) == ("1", "2")
    verify(Artifact(first, before))


def test_litert_that_differs_from_keras_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No difference is below zero, so the one that there is counts as too large.
    monkeypatch.setattr(task, "MAX_ABS_DIFFERENCE", -1.0)
    with pytest.raises(ExportError, match="outputs differ from Keras's on the validation images"):
        export(trained(), options(tmp_path))
    assert is_nothing_there(tmp_path)


def test_litert_with_another_label_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OffByALittle(LiteRTEngine):
        def predict(self, batch: Tensors) -> dict[str, Floats]:
            (scores,) = super().predict(batch).values()
            return {"probabilities": scores + np.array([0, 0, 5e-4], np.float32)}

    # All scores are a third, up to rounding: half the allowed difference changes the label.
    undecided = network()
    undecided.set_weights([np.zeros_like(values) for values in undecided.get_weights()])
    monkeypatch.setattr(device, "LiteRTEngine", OffByALittle)
    with pytest.raises(ExportError, match=r"gives the label of Keras to 0\.0 of the validation"):
        export(trained(network=undecided), options(tmp_path))
    assert is_nothing_there(tmp_path)


def test_network_that_answers_not_a_number_is_refused(tmp_path: Path) -> None:
    diverged = network()
    diverged.set_weights([np.full_like(values, np.nan) for values in diverged.get_weights()])
    with pytest.raises(ExportError):
        export(trained(network=diverged), options(tmp_path))


def test_export_interrupted_while_it_draws_leaves_no_version(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        export(trained(draw_figures=stop), options(tmp_path))
    assert is_nothing_there(tmp_path)
    assert export(trained(), options(tmp_path)).name == "1"


@pytest.mark.parametrize("step", ["render_card", "write_manifest", "shutil.move"])
def test_export_interrupted_in_a_step_leaves_no_version(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"training.export.{step}", stop)
    with pytest.raises(KeyboardInterrupt):
        export(trained(), options(tmp_path))
    assert is_nothing_there(tmp_path)


def test_nothing_counts_as_a_version_while_export_is_at_work(tmp_path: Path) -> None:
    seen: list[bool] = []

    def look(folder: Path) -> None:
        Image.new("L", (8, 8)).save(folder / "figure.png")
        seen.append(is_nothing_there(tmp_path))

    export(trained(draw_figures=look), options(tmp_path))
    assert seen == [True]


def test_leftover_of_a_killed_export_is_no_version(folder: Path, tmp_path: Path) -> None:
    # A killed process cleans nothing up; at worst everything is written and only the move is not.
    shutil.copytree(folder, tmp_path / "tiny" / ".writing-abc" / "1")
    assert is_nothing_there(tmp_path)
    assert export(trained(), options(tmp_path)).name == "1"
    assert [artifact.folder.name for artifact in find_artifacts(tmp_path, (), TASKS)] == ["1"]
