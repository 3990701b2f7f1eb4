import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.artifacts.manifest import (
    MANIFEST_FILE,
    Engine,
    Manifest,
    parse_manifest,
    read_manifest,
    write_manifest,
)
from service.errors import ArtifactError
from service.pixels.spec import Tiling
from service.tasks import TASKS
from service.tasks.classification import ClassificationSpec, ExpectedLabel
from service.tasks.denoising import DenoisingSpec
from tests.conftest import SHIPPED_MODELS


def shipped(name: str) -> dict[str, Any]:
    """The fields of a shipped model's manifest, in the newest schema."""
    manifest = read_manifest(SHIPPED_MODELS / name / "1", TASKS)
    fields: dict[str, Any] = json.loads(manifest.model_dump_json(by_alias=True))
    return fields


CLASSIFIER, DENOISER = shipped("fashion-mnist"), shipped("denoiser")
REQUIRED = [
    *("schema", "name", "version", "input", "inputs", "outputs", "parameters", "metrics"),
    *("engines", "engine", "files", "sample", "training"),
    *("input.shape", "input.color", "input.resize", "inputs.image.shape", "inputs.image.meaning"),
    *("outputs.probabilities.shape", "outputs.probabilities.meaning"),
    *("engines.litert.max_abs_difference", "engines.keras.milliseconds"),
    *("files.model*tflite.sha256", "files.model*tflite.bytes", "sample.file", "sample.expected"),
    *("sample.expected.label", "sample.expected.index", "sample.expected.probability"),
    *("training.recipe", "training.arguments", "training.seed", "training.dataset"),
    *("training.dataset_sha256", "training.commit", "training.libraries", "training.seconds"),
    *("task.labels", "task.tiling"),
    *("task.tiling.multiple", "task.tiling.tile", "task.tiling.halo"),
]
PARTS = [
    *("", "task", "task.tiling", "input", "input.scale", "inputs.image", "outputs.probabilities"),
    *("engines.litert", "files.sample*png", "sample", "sample.expected", "training"),
]


def changed(field: str, value: object) -> dict[str, Any]:
    """A shipped manifest with one field set (dots between parts; * for a dot in a name)."""
    manifest = deepcopy(DENOISER if field.startswith("task.tiling") else CLASSIFIER)
    *parts, last = field.split(".")
    part = manifest
    for name in parts:
        part = part[name.replace("*", ".")]
    if value is ...:
        del part[last.replace("*", ".")]
    else:
        part[last.replace("*", ".")] = value
    return manifest


def refusal(folder: Path, manifest: object) -> str:
    """The message that a manifest is refused with."""
    text = manifest if isinstance(manifest, str) else json.dumps(manifest)
    (folder / MANIFEST_FILE).write_text(text)
    with pytest.raises(ArtifactError) as caught:
        read_manifest(folder, TASKS)
    message = str(caught.value)
    assert message.startswith(f"{folder / MANIFEST_FILE}: ")
    return message


def spelled(field: str) -> str:
    return field.replace("*", ".")


@pytest.mark.parametrize("fields", [CLASSIFIER, DENOISER], ids=["classifier", "denoiser"])
def test_written_manifest_is_read_back_equal(tmp_path: Path, fields: dict[str, Any]) -> None:
    manifest = parse_manifest(fields, TASKS)
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path, TASKS) == manifest


@pytest.mark.parametrize("fields", [CLASSIFIER, DENOISER], ids=["classifier", "denoiser"])
def test_written_manifest_holds_every_field_that_was_read(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    write_manifest(tmp_path, parse_manifest(fields, TASKS))
    assert json.loads((tmp_path / MANIFEST_FILE).read_text()) == fields


def test_draft_is_written_with_the_fields_of_its_task(tmp_path: Path) -> None:
    manifest = parse_manifest(CLASSIFIER, TASKS).model_copy(update={"files": {}})
    write_manifest(tmp_path, manifest)
    written = json.loads((tmp_path / MANIFEST_FILE).read_text())
    assert written["schema"] == 2
    assert written["task"]["labels"] == CLASSIFIER["task"]["labels"]
    assert written["sample"]["expected"] == CLASSIFIER["sample"]["expected"]


def test_part_of_the_task_is_of_its_type() -> None:
    classifier, denoiser = (parse_manifest(each, TASKS) for each in (CLASSIFIER, DENOISER))
    assert isinstance(classifier, Manifest)
    assert isinstance(classifier.task, ClassificationSpec)
    assert isinstance(classifier.sample.expected, ExpectedLabel)
    assert isinstance(denoiser.task, DenoisingSpec)
    assert denoiser.task.tiling == Tiling(multiple=4, tile=512, halo=32)


def test_sample_of_a_denoiser_takes_two_files() -> None:
    assert parse_manifest(CLASSIFIER, TASKS).sample_files() == {"sample.png"}
    files = {"sample.png", "sample-expected.png"}
    assert parse_manifest(DENOISER, TASKS).sample_files() == files


@pytest.mark.parametrize("task", ["segmentation", "", None, 7, ["classification"], {"a": "b"}])
@pytest.mark.parametrize("field", ["task.type", "task"])
def test_unknown_task_is_named_beside_the_known_and_the_setting_for_others(
    tmp_path: Path, field: str, task: object
) -> None:
    message = refusal(tmp_path, changed(field, task))
    assert "field task.type: expected one of classification, denoising, got " in message
    assert "VITRINE_PLUGINS" in message


@pytest.mark.parametrize("field", ["task", "task.type"])
def test_missing_task_is_named(tmp_path: Path, field: str) -> None:
    message = refusal(tmp_path, changed(field, ...))
    assert "field task.type: expected one of classification, denoising, got None" in message


@pytest.mark.parametrize("field", REQUIRED)
def test_missing_field_is_named(tmp_path: Path, field: str) -> None:
    message = refusal(tmp_path, changed(field, ...))
    assert f"field {spelled(field)}: Field required" in message


def test_missing_method_of_resizing_is_named(tmp_path: Path) -> None:
    message = refusal(tmp_path, changed("input.resize.method", ...))
    assert "field input.resize: " in message
    assert "'method'" in message


@pytest.mark.parametrize("part", PARTS)
def test_unknown_field_is_named(tmp_path: Path, part: str) -> None:
    field = f"{part}.colour" if part else "colour"
    message = refusal(tmp_path, changed(field, "blue"))
    assert f"field {spelled(field)}: Extra inputs are not permitted, got 'blue'" in message


def test_unknown_field_of_resizing_is_named(tmp_path: Path) -> None:
    message = refusal(tmp_path, changed("input.resize.blur", 3))
    assert "field input.resize.fashion-mnist.blur: Extra inputs are not permitted" in message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", 3),
        ("schema", "2"),
        ("name", "Fashion MNIST"),
        ("name", "../fashion-mnist"),
        ("version", 1),
        ("version", "1.0"),
        ("version", ""),
        ("task.labels", "Bag"),
        ("task.labels", []),
        ("task.multi_label", "maybe"),
        ("task.threshold", 1.5),
        ("input", []),
        ("input.dtype", "uint8"),
        ("input.color", "cmyk"),
        ("input.scale.divisor", 0),
        ("input.scale.divisor", "half"),
        ("outputs.probabilities.dtype", "int8"),
        ("outputs.probabilities.shape", "10"),
        ("outputs.probabilities.meaning", 7),
        ("parameters", "many"),
        ("parameters", 0),
        ("engine.cpu", "tflite"),
        ("engines.litert.file", 7),
        ("engines.litert.quality", "good"),
        ("engines.litert.quality.accuracy", "high"),
        ("latency_objective_s", 0),
        ("files.model*tflite.sha256", "abc"),
        ("files.model*tflite.bytes", -1),
        ("metrics.accuracy", "high"),
        ("metrics.accuracy", float("nan")),
        ("training.seed", "one"),
        ("training.seconds", -1),
        ("task.tiling", "large"),
    ],
)
def test_unusable_value_is_named_and_shown(tmp_path: Path, field: str, value: object) -> None:
    message = refusal(tmp_path, changed(field, value))
    assert f"field {spelled(field)}: " in message
    assert f"got {value!r}" in message


@pytest.mark.parametrize("field", ["inputs", "outputs", "engines", "engine"])
def test_part_that_may_not_be_empty_is_named(tmp_path: Path, field: str) -> None:
    assert f"field {field}: " in refusal(tmp_path, changed(field, {}))


@pytest.mark.parametrize("name", ["", "two words", "1st", "x" * 64])
@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_tensor_without_a_usable_name_is_refused(tmp_path: Path, side: str, name: str) -> None:
    tensor = {"shape": [10], "dtype": "float32", "meaning": "scores"}
    assert f"field {side}.{name}" in refusal(tmp_path, changed(side, {name: tensor}))


@pytest.mark.parametrize("engine", ["onnx", "LiteRT", ""])
def test_unknown_engine_is_named(tmp_path: Path, engine: str) -> None:
    message = refusal(tmp_path, changed(f"engines.{engine}", CLASSIFIER["engines"]["litert"]))
    assert f"field engines.{engine}" in message


@pytest.mark.parametrize(
    ("device", "engine", "message"),
    [
        ("cpu", "litert", "expected an engine for the cpu among those with a file"),
        ("gpu", "litert-dynamic-int8", "expected a Keras engine for the gpu"),
    ],
)
def test_choice_of_an_engine_that_cannot_be_served_is_refused(
    tmp_path: Path, device: str, engine: str, message: str
) -> None:
    refused = refusal(tmp_path, changed(f"engine.{device}", engine))
    assert message in refused
    assert f"got {engine!r}" in refused


def test_mean_of_each_channel_is_for_colour_alone(tmp_path: Path) -> None:
    message = refusal(tmp_path, changed("input.scale.mean", [0.5, 0.4, 0.3]))
    assert "expected one mean for the one channel of grey, got three" in message


def test_unknown_method_of_resizing_is_named(tmp_path: Path) -> None:
    message = refusal(tmp_path, changed("input.resize", {"method": "crop"}))
    assert "field input.resize: " in message
    assert "'crop'" in message


def test_all_wrong_fields_are_named_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, changed("task.labels", ...) | {"parameters": -1, "extra": 1})
    assert all(f"field {name}: " in message for name in ("task.labels", "parameters", "extra"))


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/b", "a\\b", ".hidden", "..", "", " x", "x\n", "x\0y"]
)
@pytest.mark.parametrize("field", ["sample.file", "engines.litert.file", "engines.keras.file"])
def test_file_name_that_leads_elsewhere_is_refused(tmp_path: Path, field: str, name: str) -> None:
    assert f"field {field}: " in refusal(tmp_path, changed(field, name))


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", ".hidden", ""])
def test_listed_file_that_lies_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    listed = {"sha256": "0" * 64, "bytes": 1}
    assert f"field files.{name}" in refusal(tmp_path, changed("files", {name: listed}))


@pytest.mark.parametrize("text", ["", "{", "nonsense", "[]", "null", '"manifest"'])
def test_file_that_is_not_an_object_is_refused(tmp_path: Path, text: str) -> None:
    assert re.search(r"manifest\.json: expected (JSON|an object)", refusal(tmp_path, text))


def test_file_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    assert "got JSON that is too deep" in refusal(tmp_path, '{"task": ' + "[" * 100_000)


def test_folder_without_a_manifest_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json: cannot be read: No such file"):
        read_manifest(tmp_path, TASKS)


def test_manifest_cannot_be_changed() -> None:
    manifest = read_manifest(SHIPPED_MODELS / "fashion-mnist" / "1", TASKS)
    with pytest.raises(ValidationError, match="frozen"):
        manifest.version = "2"


@pytest.mark.parametrize(
    ("multiple", "tile", "halo"),
    [(4, 30, 4), (4, 32, 6), (4, 32, 16), (4, 32, 20), (8, 4, 0), (0, 32, 4), (4, 0, 0)],
)
def test_tiling_that_does_not_fit_together_is_refused(
    tmp_path: Path, multiple: int, tile: int, halo: int
) -> None:
    tiling = {"multiple": multiple, "tile": tile, "halo": halo}
    assert "field task.tiling" in refusal(tmp_path, changed("task.tiling", tiling))


def test_refused_tiling_says_what_fits() -> None:
    with pytest.raises(ValidationError, match="larger than two halos; got tile 32, halo 16"):
        Tiling(multiple=4, tile=32, halo=16)


@pytest.mark.parametrize(("multiple", "tile", "halo"), [(1, 1, 0), (4, 12, 4), (8, 256, 32)])
def test_tiling_that_fits_together_is_taken(multiple: int, tile: int, halo: int) -> None:
    assert Tiling(multiple=multiple, tile=tile, halo=halo).tile == tile


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("input.color", "rgb", "expected 3 channels of input for rgb, got 1"),
        ("task.labels", ["a", "b"], "expected one output of probabilities or logits for each of 2"),
        ("sample.expected.index", 2, "expected the sample's label 'Trouser' at index 2"),
        ("sample.expected.index", 99, "expected the sample's label 'Trouser' at index 99"),
        ("sample.expected", {"file": "a.png"}, "field sample.expected.label: Field required"),
        ("task", DENOISER["task"], "field sample.expected.file: Field required"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(
    tmp_path: Path, field: str, value: object, said: str
) -> None:
    assert said in refusal(tmp_path, changed(field, value))


@pytest.mark.parametrize(
    ("milliseconds", "batch"),
    [
        ({"1": 0.03, "8": 0.2, "32": 0.8}, 32),
        ({"1": 7.2, "8": 59.2, "32": 252.2}, 1),
        ({"1": 20.0, "8": 120.0, "32": 460.0}, 8),
        ({"1": 5000.0}, 1),
    ],
)
def test_best_batch_is_the_smallest_that_is_about_as_quick_as_any(
    milliseconds: dict[str, float], batch: int
) -> None:
    assert Engine(max_abs_difference=0, milliseconds=milliseconds).best_batch == batch


def test_metric_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    text = json.dumps(changed("metrics.accuracy", float("nan")))
    assert "metrics.accuracy" in refusal(tmp_path, text)
