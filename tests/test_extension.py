"""A kind of model from outside: one class on each side, and no change to any other file."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openapi_spec_validator import validate
from PIL import Image

import service.tasks
from tests.drawing import encode
from tests.exposition import parsed, value
from tests.server import Server, serve

NAME = "brightness"
PREDICT = f"/v1/models/{NAME}:predict"
PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of the new task, trained and exported."""
    pytest.importorskip("tensorflow")
    import training.tasks
    from tests.extension import recipe
    from training.options import Options

    folder = tmp_path_factory.mktemp("extension")
    options = Options(
        recipe=NAME,
        smoke=False,
        out=folder,
        data=None,
        seed=1,
        epochs=None,
        arguments={},
        commit="unknown",
    )
    try:
        assert recipe.run(options) == folder / NAME / "1"
    finally:  # other tests of this process know only the project's own kinds of model
        for known in (service.tasks.TASKS, training.tasks.TASKS):
            del known["regression"]
        for name in [name for name in sys.modules if name.startswith("tests.extension.")]:
            del sys.modules[name]
    return folder


@pytest.fixture(scope="module")
def server(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of that model."""
    settings = {"models_dir": models_dir, "plugins": "tests.extension.regression", "workers": 1}
    folder = tmp_path_factory.mktemp("server")
    with serve(folder, log_requests=True, log_format="json", **settings) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as opened:
        yield opened


@pytest.mark.parametrize(("level", "percent"), [(0, 0), (128, 50), (255, 100)])
def test_number_and_unit_are_answered(client: httpx.Client, level: int, percent: float) -> None:
    image = encode(Image.new("RGB", (40, 20), (level, level, level)), "PNG")
    body = client.post(PREDICT, content=image, headers=PNG).json()
    assert (body["model"], body["version"]) == (NAME, "1")
    (prediction,) = body["predictions"]
    assert prediction == {"value": pytest.approx(percent, abs=3), "unit": "percent"}


def test_several_images_are_answered_in_their_places(client: httpx.Client) -> None:
    dark, light = (encode(Image.new("L", (9, 9), level), "PNG") for level in (20, 220))
    files = [("image", ("a.png", data)) for data in (dark, b"no image", light)]
    first, error, last = client.post(PREDICT, files=files).json()["predictions"]
    assert first["value"] < last["value"]
    assert list(error) == ["error"]


def test_parameter_of_another_task_is_refused(client: httpx.Client) -> None:
    image = encode(Image.new("L", (9, 9), 20), "PNG")
    answer = client.post(f"{PREDICT}?top_k=1", content=image, headers=PNG)
    assert answer.status_code == 400
    assert "top_k" in answer.json()["error"]


def test_model_is_described(client: httpx.Client) -> None:
    about = client.get(f"/v1/models/{NAME}").json()
    assert (about["task"], about["labels"], about["ready"]) == ("regression", [], True)
    assert about["outputs"]["value"]["meaning"] == "percent"


def test_document_has_its_answer(client: httpx.Client) -> None:
    document = client.get("/docs.json").json()
    validate(document)
    predict = document["paths"]["/v1/models/{name}:predict"]["post"]
    assert '"unit"' in json.dumps(predict["responses"]["200"])


def test_requests_are_counted_and_logged(client: httpx.Client, server: Server) -> None:
    image = encode(Image.new("L", (9, 9), 20), "PNG")
    client.post(PREDICT, content=image, headers=PNG | {"X-Request-ID": "measured"})
    series = parsed(client.get("/metrics").text)
    assert value(series, "vitrine_requests_total", model=NAME, protocol="v1", status="200") >= 1
    assert value(series, "vitrine_stage_seconds_count", model=NAME, stage="predict") >= 1
    (line,) = [line for line in server.log_lines() if line.get("request_id") == "measured"]
    assert (line["model"], line["task"], line["status"]) == (NAME, "regression", 200)


def test_service_without_the_plugin_names_it(models_dir: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"expected one of classification, denoising.*PLUGINS"),
        serve(tmp_path, models_dir=models_dir, workers=1),
    ):
        pass
