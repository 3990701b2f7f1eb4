"""Manifests of schema 1, as people's own artifacts have them, are read as schema 2."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from service.artifacts.manifest import MANIFEST_FILE, parse_manifest, read_manifest, write_manifest
from service.artifacts.schema_1 import convert
from service.errors import ArtifactError
from service.tasks import TASKS
from service.tasks.classification import ClassificationSpec
from service.tasks.denoising import DenoisingSpec

TRAINING = {
    "recipe": "tiny",
    "arguments": {"smoke": False, "seed": 1, "epochs": None},
    "seed": 1,
    "dataset": "drawn",
    "dataset_sha256": {"drawn.bin": "0" * 64},
    "base": None,
    "base_sha256": None,
    "commit": "0123abc",
    "libraries": {"keras": "3.15.1"},
    "seconds": 12.5,
}
FILE = {"sha256": "1" * 64, "bytes": 1234}
SCALE = {"divisor": 255.0, "mean": 0.0, "deviation": 1.0}


def engine(file: str | None, off: float, ms: float, **quality: float | None) -> dict[str, Any]:
    none = {"label_agreement": None, "accuracy": None, "psnr_db": None}
    return {
        "file": file,
        "max_abs_difference": off,
        **none,
        **quality,
        "milliseconds": {"1": ms, "8": 8 * ms},
    }


CLASSIFIER: dict[str, Any] = {
    "schema": 1,
    "name": "shades",
    "version": "3",
    "task": "classification",
    "labels": ["dark", "light"],
    "input": {
        "shape": [8, 8, 1],
        "dtype": "float32",
        "color": "grey",
        "resize": {"method": "cover"},
        "scale": SCALE,
    },
    "output": {"shape": [2], "dtype": "float32", "meaning": "probabilities"},
    "tiling": None,
    "parameters": 1000,
    "metrics": {"accuracy": 0.75, "precision/dark": 0.5},
    "engines": {
        "keras": engine("model.keras", 0.0, 1.5, label_agreement=1.0, accuracy=0.75),
        "litert": engine(None, 1e-6, 0.25, label_agreement=1.0, accuracy=0.75),
        "litert-int8": engine("model.tflite", 0.125, 0.125, label_agreement=0.99, accuracy=0.5),
    },
    "engine": {"cpu": "litert-int8", "gpu": "keras"},
    "files": {"model.keras": FILE, "model.tflite": FILE, "sample.png": FILE, "README.md": FILE},
    "sample": {
        "file": "sample.png",
        "expected": {"label": "light", "index": 1, "probability": 0.875, "tolerance": 0.03},
    },
    "training": TRAINING,
}
DENOISER: dict[str, Any] = CLASSIFIER | {
    "name": "cleaner",
    "task": "denoising",
    "labels": [],
    "input": {
        "shape": [None, None, 1],
        "dtype": "float32",
        "color": "grey",
        "resize": {"method": "keep"},
        "scale": SCALE,
    },
    "output": {"shape": [None, None, 1], "dtype": "float32", "meaning": "pixels"},
    "tiling": {"multiple": 4, "tile": 64, "halo": 16},
    "metrics": {"psnr_db_sigma_0.3": 23.5},
    "engines": {
        "keras": engine("model.keras", 0.0, 1.5, psnr_db=23.5),
        "litert": engine("model.tflite", 1e-6, 0.25, psnr_db=23.25),
    },
    "engine": {"cpu": "litert"},
    "sample": {"file": "sample.png", "expected": {"file": "sample-expected.png", "tolerance": 6}},
}
SAME = ("name", "version", "parameters", "metrics", "engine", "files", "sample", "training")


def converted(manifest: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return convert(deepcopy(manifest) | changes, TASKS)


def refusal(folder: Path, manifest: dict[str, Any]) -> str:
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError) as caught:
        read_manifest(folder, TASKS)
    message = str(caught.value)
    assert message.startswith(f"{folder / MANIFEST_FILE}: ")
    return message


def test_classifier_becomes_schema_2() -> None:
    assert converted(CLASSIFIER) == {name: CLASSIFIER[name] for name in SAME} | {
        "schema": 2,
        "task": {"type": "classification", "labels": ["dark", "light"]},
        "input": {"type": "image", **CLASSIFIER["input"]},
        "inputs": {"image": {"shape": [8, 8, 1], "dtype": "float32", "meaning": "pixels"}},
        "outputs": {
            "probabilities": {"shape": [2], "dtype": "float32", "meaning": "probabilities"}
        },
        "latency_objective_s": 0.25,
        "engines": {
            "keras": {
                "file": "model.keras",
                "max_abs_difference": 0.0,
                "quality": {"label_agreement": 1.0, "accuracy": 0.75},
                "milliseconds": {"1": 1.5, "8": 12.0},
            },
            "litert": {
                "file": None,
                "max_abs_difference": 1e-6,
                "quality": {"label_agreement": 1.0, "accuracy": 0.75},
                "milliseconds": {"1": 0.25, "8": 2.0},
            },
            "litert-int8": {
                "file": "model.tflite",
                "max_abs_difference": 0.125,
                "quality": {"label_agreement": 0.99, "accuracy": 0.5},
                "milliseconds": {"1": 0.125, "8": 1.0},
            },
        },
    }


def test_denoiser_becomes_schema_2() -> None:
    pixels = {"shape": [None, None, 1], "dtype": "float32", "meaning": "pixels"}
    came = converted(DENOISER)
    assert {name: came[name] for name in SAME} == {name: DENOISER[name] for name in SAME}
    assert came["task"] == {"type": "denoising", "tiling": {"multiple": 4, "tile": 64, "halo": 16}}
    assert (came["inputs"], came["outputs"]) == ({"image": pixels}, {"image": pixels})
    assert [each["quality"] for each in came["engines"].values()] == [
        {"psnr_db": 23.5},
        {"psnr_db": 23.25},
    ]
    assert "latency_objective_s" not in came  # its time grows with the image
    assert not {"labels", "output", "tiling"} & came.keys()


@pytest.mark.parametrize("manifest", [CLASSIFIER, DENOISER], ids=["classifier", "denoiser"])
def test_manifest_of_schema_1_is_read_and_written_as_schema_2(
    tmp_path: Path, manifest: dict[str, Any]
) -> None:
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(manifest))
    came = read_manifest(tmp_path, TASKS)
    assert came == parse_manifest(converted(manifest), TASKS)
    write_manifest(tmp_path, came)
    assert json.loads((tmp_path / MANIFEST_FILE).read_text())["schema"] == 2
    assert read_manifest(tmp_path, TASKS) == came


def test_parts_are_of_the_types_of_their_task() -> None:
    classifier, denoiser = (parse_manifest(each, TASKS) for each in (CLASSIFIER, DENOISER))
    assert isinstance(classifier.task, ClassificationSpec)
    assert not classifier.task.multi_label
    assert isinstance(denoiser.task, DenoisingSpec)
    assert denoiser.latency_objective_s is None


def test_conversion_leaves_what_it_was_given_as_it_was() -> None:
    given = deepcopy(CLASSIFIER)
    convert(given, TASKS)
    assert given == CLASSIFIER


@pytest.mark.parametrize(("parameters", "objective_s"), [(5_000_000, 0.25), (5_000_001, 1.0)])
def test_large_classifier_may_take_longer(parameters: int, objective_s: float) -> None:
    assert converted(CLASSIFIER, parameters=parameters)["latency_objective_s"] == objective_s


@pytest.mark.parametrize("task", ["segmentation", "", None, 7])
def test_task_that_schema_1_did_not_know_is_named_beside_the_known(
    tmp_path: Path, task: object
) -> None:
    message = refusal(tmp_path, CLASSIFIER | {"task": task})
    assert "field task: expected one of classification, denoising in a manifest of sch" in message
    assert f"got {task!r}" in message


@pytest.mark.parametrize(
    ("manifest", "field"),
    [
        (CLASSIFIER, "labels"),
        (CLASSIFIER, "input"),
        (CLASSIFIER, "output"),
        (CLASSIFIER, "engines"),
        (CLASSIFIER, "parameters"),
        (DENOISER, "tiling"),
    ],
)
def test_missing_field_of_schema_1_is_named(
    tmp_path: Path, manifest: dict[str, Any], field: str
) -> None:
    fields = {name: value for name, value in manifest.items() if name != field}
    assert f"field {field}: " in refusal(tmp_path, fields)


@pytest.mark.parametrize("field", ["name", "files", "sample", "training", "metrics", "engine"])
def test_missing_field_that_both_schemas_have_is_named(tmp_path: Path, field: str) -> None:
    fields = {name: value for name, value in CLASSIFIER.items() if name != field}
    assert f"field {field}: Field required" in refusal(tmp_path, fields)


@pytest.mark.parametrize("value", [None, -7, "x", []])
@pytest.mark.parametrize("field", ["input", "output", "engines", "parameters", "labels"])
def test_unusable_value_is_named(tmp_path: Path, field: str, value: object) -> None:
    named = {"labels": "task.labels"}.get(field, field)
    assert f"field {named}: " in refusal(tmp_path, CLASSIFIER | {field: value})


@pytest.mark.parametrize("value", [None, -7, "x", []])
def test_engine_that_is_no_object_is_named(tmp_path: Path, value: object) -> None:
    message = refusal(tmp_path, CLASSIFIER | {"engines": {"keras": value}})
    assert "field engines.keras: " in message


def test_unknown_field_is_named(tmp_path: Path) -> None:
    message = refusal(tmp_path, CLASSIFIER | {"colour": "blue"})
    assert "field colour: Extra inputs are not permitted, got 'blue'" in message
