import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.artifacts.manifest import read_manifest
from service.tasks import TASKS
from tests.asgi import in_process
from tests.conftest import SHIPPED_MODELS
from tests.service.protocols.test_native import PNG, SAMPLE, upload

MLP, DENSE = "fashion-mnist-mlp", "fashion-mnist-dense"


def copy_model(source: str, folder: Path, name: str, version: str) -> None:
    """A shipped model under another name and version."""
    copy = folder / name / version
    shutil.copytree(SHIPPED_MODELS / source / "1", copy)
    manifest = json.loads((copy / "manifest.json").read_bytes())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"name": name, "version": version}))


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classifiers, one of them in versions 1, 2 and 10; the highest is another network."""
    folder = tmp_path_factory.mktemp("versions")
    copy_model(MLP, folder, "bags", "1")
    copy_model(MLP, folder, "bags", "2")
    copy_model(DENSE, folder, "bags", "10")
    copy_model(MLP, folder, "shoes", "1")
    return folder


@pytest.fixture(scope="module")
def versioned(versions: Path) -> Iterator[httpx.Client]:
    settings = {"models_dir": versions, "default_models": {"classify": "bags"}}
    with in_process(**settings) as client:
        yield client


def names(**settings: object) -> list[str]:
    with in_process(**settings) as client:
        listed: list[str] = client.get("/v1/models").json()["models"]
    return listed


def test_models_are_listed(client: httpx.Client) -> None:
    shipped = sorted(path.name for path in SHIPPED_MODELS.iterdir() if path.is_dir())
    assert client.get("/v1/models").json() == {"models": shipped}


def test_only_the_models_that_are_asked_for_are_served() -> None:
    assert names(models=(MLP, DENSE)) == [DENSE, MLP]


def test_model_is_described_by_its_manifest(client: httpx.Client) -> None:
    manifest = read_manifest(SHIPPED_MODELS / "fashion-mnist" / "1", TASKS)
    engine = manifest.engine["cpu"]
    described = client.get("/v1/models/fashion-mnist").json()
    assert described == {
        "name": "fashion-mnist",
        "version": "1",
        "versions": ["1"],
        "ready": True,
        "model_version_status": [
            {
                "version": "1",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ],
        "task": "classification",
        "labels": described["labels"],
        "default": True,
        "inputs": {"image": {"shape": [28, 28, 1], "dtype": "float32", "meaning": "pixels"}},
        "outputs": {
            "probabilities": {"shape": [10], "dtype": "float32", "meaning": "probabilities"}
        },
        "input": json.loads(manifest.input.model_dump_json()),
        "parameters": 219690,
        "metrics": manifest.metrics,
        "engine": engine,
        "device": "cpu",
        "sha256": manifest.files[str(manifest.engines[engine].file)].sha256,
    }
    assert len(described["labels"]) == 10
    assert described["labels"][1] == "Trouser"
    assert described["metrics"]["accuracy"] > 0.9


def test_denoiser_has_no_labels_and_any_size(client: httpx.Client) -> None:
    described = client.get("/v1/models/denoiser").json()
    assert (described["task"], described["labels"]) == ("denoising", [])
    assert described["inputs"]["image"]["shape"] == [None, None, 1]


def test_every_shipped_model_is_described(client: httpx.Client) -> None:
    keys = client.get("/v1/models/fashion-mnist").json().keys()
    for name in client.get("/v1/models").json()["models"]:
        described = client.get(f"/v1/models/{name}").json()
        assert described.keys() == keys
        assert described == client.get(f"/v1/models/{name}/versions/1").json()


def test_one_model_a_task_is_the_default(client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()["models"]
    defaults = [name for name in listed if client.get(f"/v1/models/{name}").json()["default"]]
    assert defaults == ["denoiser", "fashion-mnist"]


def test_highest_version_speaks_for_a_model(versioned: httpx.Client) -> None:
    described = versioned.get("/v1/models/bags").json()
    assert (described["version"], described["versions"]) == ("10", ["1", "2", "10"])
    assert [one["version"] for one in described["model_version_status"]] == ["1", "2", "10"]
    assert described["default"] is True
    tenth = versioned.get("/v1/models/bags/versions/10").json()
    assert described | {"model_version_status": tenth["model_version_status"]} == tenth


def test_version_is_described_by_itself(versioned: httpx.Client) -> None:
    described = versioned.get("/v1/models/bags/versions/2").json()
    assert (described["version"], described["versions"]) == ("2", ["1", "2", "10"])
    assert [one["version"] for one in described["model_version_status"]] == ["2"]
    assert described["default"] is False  # the highest version answers
    assert described["sha256"] == versioned.get("/v1/models/shoes").json()["sha256"]
    assert described["sha256"] != versioned.get("/v1/models/bags").json()["sha256"]


def test_described_version_is_the_one_that_answers(versioned: httpx.Client) -> None:
    for version in ("1", "2", "10"):
        path = f"/v1/models/bags/versions/{version}:predict"
        assert versioned.post(path, content=SAMPLE, headers=PNG).json()["version"] == version
    assert versioned.post("/v1/models/bags:predict", content=SAMPLE).json()["version"] == "10"
    form = versioned.post("/classify", files=upload(SAMPLE)).json()
    assert (form["model"], form["version"]) == ("bags", "10")


def test_one_version_may_be_asked_for(versions: Path) -> None:
    with in_process(models_dir=versions, models=("bags/2",)) as client:
        assert client.get("/v1/models").json() == {"models": ["bags"]}
        assert client.get("/v1/models/bags").json()["versions"] == ["2"]


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("nope", "unknown model 'nope'; expected one of bags, shoes"),
        ("nope/versions/1", "unknown model 'nope'; expected one of bags, shoes"),
        ("bags/versions/3", "bags: unknown version '3'; expected one of 1, 2, 10"),
        ("bags/versions/01", "bags: unknown version '01'; expected one of 1, 2, 10"),
        ("bags/versions/latest", "bags: unknown version 'latest'; expected one of 1, 2, 10"),
    ],
)
def test_unknown_model_or_version_is_not_found(
    versioned: httpx.Client, path: str, error: str
) -> None:
    answer = versioned.get(f"/v1/models/{path}")
    assert (answer.status_code, answer.json()) == (404, {"error": error})


def test_endless_name_makes_no_endless_message(client: httpx.Client) -> None:
    answer = client.get(f"/v1/models/{'x' * 9000}")
    assert answer.status_code == 404
    assert len(answer.json()["error"]) < 300
