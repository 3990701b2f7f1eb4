"""The service as a process: how it starts, how it ends, and what BentoML makes of it."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.artifacts.manifest import read_manifest
from service.errors import ArtifactError
from service.server.app import App
from service.settings import Settings
from service.tasks import TASKS
from tests.drawing import image_of, pixels
from tests.exposition import parsed, value
from tests.server import CHECKOUT, Server, command, environment, free_port, running, serve
from tests.service.protocols.test_native import SAMPLE, upload

MODEL = "fashion-mnist-mlp"
PHOTO = CHECKOUT / "models/fashion-mnist/1/sample.png"


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A folder of one model that a test may damage."""
    shutil.copytree(CHECKOUT / "models" / MODEL, tmp_path / "models" / MODEL)
    return tmp_path / "models"


def failed_start(**settings: object) -> str:
    """The one line that says why a server cannot start, before it ends by itself."""
    started = subprocess.run(
        command(free_port()),
        cwd=CHECKOUT,
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert started.returncode == 1
    # A stack trace or a second try would be a failure of its own.
    assert "Traceback" not in started.stdout
    lines = re.findall("error: .*", started.stdout)  # LiteRT's own lines may lie around it
    assert len(lines) == 1, started.stdout
    return str(lines[0])


def test_altered_file_stops_the_start(models_dir: Path) -> None:
    path = models_dir / MODEL / "1/model.tflite"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    line = failed_start(models_dir=models_dir)
    assert "model.tflite" in line
    assert "SHA-256" in line


@pytest.mark.parametrize(
    ("settings", "named"), [({"colour": "red"}, "VITRINE_COLOUR"), ({"models": "nope"}, "nope")]
)
def test_bad_setting_stops_the_start(settings: dict[str, str], named: str) -> None:
    assert named in failed_start(**settings)


def test_missing_file_stops_the_start(models_dir: Path) -> None:
    (models_dir / MODEL / "1/model.tflite").unlink()
    with pytest.raises(ArtifactError, match=r"model\.tflite is missing"):
        App(Settings(models_dir=models_dir, workers=1))


def test_wrong_sample_answer_stops_the_start(models_dir: Path) -> None:
    path = models_dir / MODEL / "1/manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["sample"]["expected"] |= {"label": "Bag", "index": 8}
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"expected 'Bag'.*got 'Trouser'"):
        App(Settings(models_dir=models_dir, workers=1))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_server_ends_cleanly(tmp_path: Path, models_dir: Path, how: signal.Signals) -> None:
    with serve(tmp_path, models_dir=models_dir, workers=1) as server:
        assert server.stop(how) == 0
    log = server.log.read_text()
    assert "Traceback" not in log
    engine = read_manifest(models_dir / MODEL / "1", TASKS).engine["cpu"]
    assert f"loaded model={MODEL} version=1 engine={engine} device=cpu" in log


@pytest.mark.slow
def test_keras_serves_where_the_artifact_says_so(tmp_path: Path, models_dir: Path) -> None:
    pytest.importorskip("keras", reason="Keras is not installed")
    folder = models_dir / MODEL / "1"
    manifest = json.loads((folder / "manifest.json").read_bytes())
    del manifest["files"]["model.tflite"]
    manifest["engines"][manifest["engine"]["cpu"]]["file"] = None
    manifest["engine"]["cpu"] = "keras"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "model.tflite").unlink()
    sample = (folder / "sample.png").read_bytes()
    with serve(tmp_path, models_dir=models_dir, workers=1) as server:
        answer = httpx.post(f"{server.url}/classify", files=upload(sample), timeout=60)
    assert answer.json()["label"] == "Trouser"


IN_PROCESS = """
import asyncio, json, sys
from http import HTTPStatus
from bentoml.exceptions import BentoMLException
from PIL import Image
from service.service import Vitrine

photo = Image.open(sys.argv[1])
answers = {}

async def ask(name, awaitable):
    try:
        answers[name] = await awaitable
    except BentoMLException as error:
        answers[name] = [type(error).__name__, str(error), error.error_code]

async def ask_all(vitrine):
    await ask("classified", vitrine.classify(image=photo))
    await ask("top_k", vitrine.classify(image=photo, model="fashion-mnist-mlp", top_k=1))
    await ask("no model", vitrine.classify(image=photo, model=None))
    await ask("another task", vitrine.classify(image=photo, model="denoiser"))
    await ask("unknown model", vitrine.denoise(image=photo, model="nope"))
    await ask("no classes", vitrine.classify(image=photo, top_k=0))
    await ask("too small", vitrine.denoise(image=photo.resize((4, 4))))
    await ask("too large", vitrine.classify(image=photo.resize((1500, 1000))))
    denoised = await vitrine.denoise(image=photo)
    answers["denoised"] = [denoised.mode, *denoised.size]
    both = await asyncio.gather(*(vitrine.classify(image=photo) for _ in range(8)))
    answers["at once"] = [answer["label"] for answer in both]
    answers["metrics"] = vitrine.app.metrics.expose().decode()

vitrine = Vitrine()
answers["sync"] = vitrine.to_sync.classify(image=photo)
answers["sync denoised"] = list(vitrine.to_sync.denoise(image=photo).size)
asyncio.run(ask_all(vitrine))
vitrine.close()
print(json.dumps(answers))
"""


def run_python(code: str, *arguments: object, **settings: object) -> str:
    """What a program writes; in a process of its own, as BentoML warns of things not ours."""
    ran = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=CHECKOUT,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def in_process() -> dict[str, Any]:
    """What the service answers where it is called without any server."""
    models = "fashion-mnist,fashion-mnist-mlp,denoiser"
    settings = {"models": models, "max_image_pixels": 1_000_000, "workers": 1}
    answers: dict[str, Any] = json.loads(run_python(IN_PROCESS, PHOTO, **settings))
    return answers


def test_service_is_called_in_process(in_process: dict[str, Any], client: httpx.Client) -> None:
    posted = client.post("/classify", files=upload(SAMPLE)).json()
    assert in_process["classified"] == posted
    assert in_process["no model"] == in_process["sync"] == posted
    assert in_process["denoised"] == ["L", 28, 28]
    assert in_process["sync denoised"] == [28, 28]
    assert in_process["at once"] == ["Trouser"] * 8


def test_options_count_in_process(in_process: dict[str, Any]) -> None:
    answer = in_process["top_k"]
    assert (answer["model"], answer["label"], len(answer["top"])) == (MODEL, "Trouser", 1)


@pytest.mark.parametrize(
    ("asked", "status", "error"),
    [
        ("another task", 400, "expected a model for classification, got denoiser"),
        ("unknown model", 404, "; expected one of denoiser, fashion-mnist, fashion-mnist-mlp"),
        ("no classes", 400, "expected top_k as a whole number of at least 1, got '0'"),
        ("too small", 400, "expected an image of at least 8x8 pixels, got 4x4"),
        ("too large", 413, "1000000 pixels"),
    ],
)
def test_error_in_process_is_bentomls_with_its_status(
    in_process: dict[str, Any], asked: str, status: int, error: str
) -> None:
    kind, message, code = in_process[asked]
    assert (kind, code) == ("BentoMLException", status)
    assert error in message


def test_calls_in_process_are_counted(in_process: dict[str, Any]) -> None:
    series = parsed(in_process["metrics"])
    counted = {"name": "vitrine_requests_total", "protocol": "bentoml"}
    assert value(series, **counted, status="200", model="fashion-mnist") == 11
    assert value(series, **counted, status="400", model="denoiser") == 2
    assert value(series, **counted, status="404", model="unknown") == 1
    assert value(series, "vitrine_predictions_total", label="Trouser") == 12


SHOP = """
import bentoml
from PIL import Image
from service.service import Vitrine


@bentoml.service
class Shop:
    vitrine = bentoml.depends(Vitrine)

    @bentoml.api
    async def label(self, image: Image.Image, model: str | None = None) -> dict:
        return await self.vitrine.classify(image=image, model=model, top_k=2)

    @bentoml.api
    async def clean(self, image: Image.Image) -> Image.Image:
        return await self.vitrine.denoise(image=image)

    @bentoml.api
    async def fail(self, image: Image.Image, model: str, top_k: int) -> dict:
        try:
            return await self.vitrine.classify(image=image, model=model, top_k=top_k)
        except bentoml.exceptions.BentoMLException as error:
            return {"error": str(error), "code": error.error_code}
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Another service under `bentoml serve`, which depends on ours."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.py").write_text(SHOP)

    def start(port: int) -> list[str]:
        bentoml = ["env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-m", "bentoml", "serve"]
        return [*bentoml, "shop:Shop", "--working-dir", str(folder), "--port", str(port)]

    settings = {"models": f"{MODEL},denoiser", "workers": 1, "log_requests": True}
    with running(start, folder, **settings) as server:
        yield server


def ask_shop(shop: Server, route: str, **fields: str) -> httpx.Response:
    return httpx.post(f"{shop.url}/{route}", files=upload(SAMPLE), data=fields, timeout=60)


def test_another_service_may_depend_on_ours(shop: Server, client: httpx.Client) -> None:
    form = {"model": MODEL, "top_k": "2"}
    posted = client.post("/classify", files=upload(SAMPLE), data=form).json()
    for fields in ({}, {"model": MODEL}):
        answer = ask_shop(shop, "label", **fields)
        assert answer.status_code == 200, answer.text
        assert answer.json() == posted
    # Called over BentoML's own connection, not by a form.
    assert "request protocol=bentoml status=200" in shop.log.read_text()


def test_images_come_back_to_a_service_that_depends_on_ours(
    shop: Server, client: httpx.Client
) -> None:
    answer = ask_shop(shop, "clean")
    assert answer.status_code == 200, answer.text
    posted = client.post("/denoise", files=upload(SAMPLE)).content
    assert (pixels(image_of(answer.content)) == pixels(image_of(posted))).all()


@pytest.mark.parametrize(
    ("model", "top_k", "code", "error"),
    [
        ("nope", "1", 404, f"unknown model 'nope'; expected one of denoiser, {MODEL}"),
        ("denoiser", "1", 400, "expected a model for classification"),
        (MODEL, "0", 400, "expected top_k as a whole number of at least 1"),
    ],
)
def test_error_reaches_a_service_that_depends_on_ours(
    shop: Server, model: str, top_k: str, code: int, error: str
) -> None:
    answer = ask_shop(shop, "fail", model=model, top_k=top_k)
    assert answer.status_code == 200, answer.text
    assert answer.json()["code"] == code
    assert error in answer.json()["error"]
