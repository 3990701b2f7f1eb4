"""`make image-check`: the image for CPUs, built for real and asked."""

import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, ImageChops

from service.artifacts.manifest import read_manifest
from service.pixels.formats import FORMATS
from service.tasks import TASKS
from service.tasks.classification import ExpectedLabel
from service.tasks.denoising import ExpectedImage
from tests.deploy.image import (
    BASE,
    Built,
    Container,
    built_image,
    serving,
    size_mb,
)
from tests.drawing import encode, gradient
from tests.server import CHECKOUT, free_port

pytestmark = pytest.mark.slow

TAG = "localhost/vitrine:check-cpu"
REVISION = "0123456789abcdef"
MAX_MB = 350  # of all layers, unpacked, the base's among them, without the models
COMPILERS = {"as", "c++", "c89", "c99", "cc", "clang", "g++", "gcc", "ld", "make", "strip", "tcc"}
UNCHECKED_HASH = (1).to_bytes(4, "little")  # PEP 552's flags of a .pyc


@pytest.fixture(scope="module")
def built(base: str, pip: list[str]) -> Iterator[Built]:
    """The image for CPUs, mounted."""
    with built_image("cpu", TAG, *pip, "--build-arg", f"REVISION={REVISION}") as image:
        yield image


@pytest.fixture(scope="module")
def container(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with serving(built, tmp_path_factory.mktemp("container") / "log") as served:
        yield served


def test_image_is_small(built: Built, capsys: pytest.CaptureFixture[str]) -> None:
    base_mb, total_mb = size_mb(BASE), size_mb(TAG)
    served = (CHECKOUT / "models").rglob("*")
    models_mb = sum(file.stat().st_size for file in served if file.suffix != ".keras") // 10**6
    with capsys.disabled():
        sys.stdout.write(
            f"\nimage: {total_mb} MB unpacked, {base_mb} MB of it the base, "
            f"{models_mb} MB the models\n"
        )
    assert total_mb - models_mb < MAX_MB


def test_configuration(built: Built) -> None:
    assert built.config["User"] == "10001:10001"
    assert built.config["WorkingDir"] == "/app"
    assert built.config["Entrypoint"] == ["tini", "--", "python", "-m", "service"]
    assert built.config["Cmd"] in (None, [])
    assert built.config["ExposedPorts"] == {"3000/tcp": {}}
    assert built.config["Healthcheck"]["Test"][0] == "CMD"  # not CMD-SHELL
    label = "org.opencontainers.image."
    labels = {name.removeprefix(label): text for name, text in built.config["Labels"].items()}
    assert labels["title"] == "Vitrine"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["revision"] == REVISION
    assert {"description", "version", "created", "source"} <= labels.keys()


def test_no_pip_no_compiler_no_build_stage(built: Built) -> None:
    pip = re.compile(r"pip[0-9.]*|pip-.*\.(whl|dist-info)|ensurepip")
    found = [
        path
        for path in built.files()
        if pip.fullmatch(path.name) or (path.parent.name == "bin" and path.name in COMPILERS)
    ]
    assert found == []
    assert not (built.root / "build").exists()
    assert not any(built.root.glob("opt/vitrine/lib/python3*/site-packages/tensorflow"))


def test_nothing_is_writable_for_the_user(built: Built) -> None:
    user = int(built.config["User"].split(":")[0])
    writable = []
    for path in built.files():
        status = path.lstat()
        sticky_folder = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        world = status.st_mode & stat.S_IWOTH and not stat.S_ISLNK(status.st_mode)
        if status.st_uid == user or (world and not sticky_folder):
            writable.append(path)
    assert writable == []


def test_models_without_what_only_gpus_need(built: Built) -> None:
    shipped = {path.relative_to(CHECKOUT) for path in CHECKOUT.glob("models/*/*/*.tflite")}
    models = built.root / "app/models"
    assert {path.relative_to(models.parent) for path in models.glob("*/*/*.tflite")} == shipped
    assert not list(models.glob("*/*/*.keras"))


def test_everything_imported_is_compiled(built: Built) -> None:
    server = "service.__main__, service.server.supervisor, service.server.worker"
    modules = f"{server}, service.service, bentoml"
    done = subprocess.run(
        built.entered("python", "-v", "-c", f"import {modules}"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    origins = re.findall(r"^# code object from '?(.+?)'?$", done.stderr, re.MULTILINE)
    assert len(origins) > 500
    assert [origin for origin in origins if not origin.endswith(".pyc")] == []


def test_bytecode_is_not_checked_against_its_source(built: Built) -> None:
    checked = []
    for folder in ("opt/vitrine", "app/service"):
        compiled = list((built.root / folder).rglob("*.pyc"))
        assert compiled
        checked += [path for path in compiled if path.read_bytes()[4:8] != UNCHECKED_HASH]
    assert checked == []


def test_start_and_end(built: Built, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    starts_s = []
    for attempt in range(3):
        with serving(built, tmp_path / f"{attempt}.log") as served:
            starts_s.append(served.start_s)
            process_1 = Path(f"/proc/{served.process_id}/cmdline").read_bytes().split(b"\0")[0]
            assert process_1 == b"tini"
    with capsys.disabled():
        times = ", ".join(f"{start_s:.2f}" for start_s in starts_s)
        sys.stdout.write(f"\nimage: ready after {times} s\n")


@pytest.mark.parametrize("name", sorted(path.name for path in (CHECKOUT / "models").iterdir()))
def test_every_model_answers_its_sample(container: Container, name: str) -> None:
    folder = max((CHECKOUT / "models" / name).iterdir(), key=lambda path: int(path.name))
    manifest = read_manifest(folder, TASKS)
    answer = container.client.post(
        f"/v1/models/{name}:predict",
        params={} if isinstance(manifest.sample.expected, ExpectedImage) else {"top_k": 1000},
        content=(folder / manifest.sample.file).read_bytes(),
        headers={"Content-Type": "image/png"},
    )
    assert answer.status_code == httpx.codes.OK, answer.text
    expected = manifest.sample.expected
    assert isinstance(expected, ExpectedImage | ExpectedLabel)
    assert difference(expected, folder, answer) <= expected.tolerance


def difference(
    expected: ExpectedImage | ExpectedLabel, folder: Path, answer: httpx.Response
) -> float:
    """How far an answer is from the recorded one, in probability or levels."""
    if isinstance(expected, ExpectedImage):
        with (
            Image.open(BytesIO(answer.content)) as came,
            Image.open(folder / expected.file) as there,
        ):
            return float(np.asarray(ImageChops.difference(came, there)).max())
    top = answer.json()["predictions"][0]["top"]
    probability = next(score["probability"] for score in top if score["label"] == expected.label)
    return abs(float(probability) - expected.probability)


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_format_is_read(container: Container, image_format: str) -> None:
    answer = container.client.post(
        "/v1/models/fashion-mnist:predict",
        content=encode(gradient(64, 64), image_format),
        headers={"Content-Type": "application/octet-stream"},
    )
    assert answer.status_code == httpx.codes.OK, answer.text


def test_pages_and_metrics(container: Container) -> None:
    page = container.client.get("/")
    assert page.status_code == httpx.codes.OK
    files = re.findall(r'(?:href|src)="(static_content/[^"]+)"', page.text)
    assert files
    assert {container.client.get(f"/{file}").status_code for file in files} == {httpx.codes.OK}
    assert "/classify" in container.client.get("/docs.json").json()["paths"]
    assert container.client.get("/schema.json").json()["name"] == "vitrine"  # imports BentoML
    models = re.findall(
        r'^vitrine_model_info\{.*model="([^"]+)"', container.client.get("/metrics").text, re.M
    )
    assert set(models) == {path.name for path in (CHECKOUT / "models").iterdir()}


def test_health_check(built: Built, container: Container) -> None:
    inside = ["nsenter", "--target", str(container.process_id), "--mount", "--root"]
    environment = ["env", "-i", *built.config["Env"]]
    _, *check = built.config["Healthcheck"]["Test"]
    healthy = [word.replace(":3000/", f":{container.port}/") for word in check]
    unhealthy = [word.replace(":3000/", f":{free_port()}/") for word in check]
    assert healthy != check
    assert subprocess.run([*inside, *environment, *healthy], check=False).returncode == 0
    failed = subprocess.run([*inside, *environment, *unhealthy], check=False, capture_output=True)
    assert failed.returncode == 1


def test_gpu_image_but_for_its_packages(base: str) -> None:
    """What needs no download of several GB: TensorFlow and CUDA are not installed here."""
    with built_image("app-gpu", "localhost/vitrine:check-gpu-app") as image:
        shipped = {path.relative_to(CHECKOUT) for path in CHECKOUT.glob("models/*/*/*")}
        app = image.root / "app"
        assert {path.relative_to(app) for path in app.glob("models/*/*/*")} == shipped


def test_load_test_image_loads_the_other(container: Container, pip: list[str]) -> None:
    patient = "small=60000,large=60000,denoising=60000"
    options = ["--headless", "--users", "2", "--run-time", "5s", "--max-p99-ms", patient]
    with built_image("load-test", "localhost/vitrine:check-load-test", *pip) as image:
        command = image.entered(*image.config["Entrypoint"], *options, "--host", container.url)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not list((image.root / "app").rglob("*.tflite"))
