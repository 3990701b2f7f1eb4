import json
import re
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from service.artifacts.manifest import read_manifest
from tests.exposition import parsed, value
from tests.server import CHECKOUT, bentoml_command, command, environment, free_port, running, serve
from tests.service.protocols.test_native import PNG, PREDICT, SAMPLE, check_bentoml_client, upload
from tests.service.server.test_front import UPGRADE

MODEL = "fashion-mnist-mlp"


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A folder of one model that a test may damage."""
    shutil.copytree(CHECKOUT / "models" / MODEL, tmp_path / "models" / MODEL)
    return tmp_path / "models"


def failed_start(**settings: object) -> str:
    """What a server that cannot start writes before it ends by itself."""
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
    return started.stdout


def reason(output: str) -> str:
    """The one line that says why; a stack trace or a second try would be a failure of its own."""
    assert "Traceback" not in output
    lines = re.findall("error: .*", output)  # LiteRT's own lines may lie around it
    assert len(lines) == 1, output
    return str(lines[0])


def test_altered_file_stops_the_start(models_dir: Path) -> None:
    path = models_dir / MODEL / "1/model.tflite"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    line = reason(failed_start(models_dir=models_dir))
    assert "model.tflite" in line
    assert "SHA-256" in line


def test_missing_file_stops_the_start(models_dir: Path) -> None:
    (models_dir / MODEL / "1/model.tflite").unlink()
    assert "model.tflite is missing" in reason(failed_start(models_dir=models_dir))


def test_wrong_sample_answer_stops_the_start(models_dir: Path) -> None:
    path = models_dir / MODEL / "1/manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["sample"]["expected"] |= {"label": "Bag", "index": 8}
    path.write_text(json.dumps(manifest))
    line = reason(failed_start(models_dir=models_dir))
    assert "expected 'Bag'" in line
    assert "got 'Trouser'" in line


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"colour": "red"}, "VITRINE_COLOUR"),
        ({"workers": "none"}, "VITRINE_WORKERS"),
        ({"models": "nope"}, "expected nope"),
    ],
)
def test_bad_setting_stops_the_start(settings: dict[str, str], named: str) -> None:
    assert named in reason(failed_start(**settings))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_server_ends_cleanly(tmp_path: Path, models_dir: Path, how: signal.Signals) -> None:
    with serve(tmp_path, models_dir=models_dir, workers=1) as server:
        assert server.stop(how) == 0
    assert "Traceback" not in server.log.read_text()


def test_server_serves_the_models_that_it_is_told(tmp_path: Path) -> None:
    with serve(tmp_path, models="fashion-mnist-mlp, fashion-mnist-dense", workers=1) as server:
        names = httpx.get(f"{server.url}/v1/models").json()["models"]
        text_log = server.log.read_text()
    assert names == ["fashion-mnist-dense", "fashion-mnist-mlp"]
    engine = read_manifest(CHECKOUT / "models/fashion-mnist-mlp/1").engine["cpu"]
    assert f"loaded model=fashion-mnist-mlp version=1 engine={engine} device=cpu" in text_log


def test_answer_after_the_deadline_is_504(tmp_path: Path) -> None:
    sample = (CHECKOUT / "models/denoiser/1/sample.png").read_bytes()
    with serve(tmp_path, request_timeout_s=0.0001, workers=1, models="denoiser") as server:
        answer = httpx.post(f"{server.url}/denoise", files=upload(sample))
    assert answer.status_code == 504
    assert "0.0001 s" in answer.json()["error"]


def test_bentoml_serves_the_same_on_two_workers(tmp_path: Path) -> None:
    with running(bentoml_command, tmp_path, workers=2) as server:
        for _ in range(20):  # each on a new connection, so that both workers get some
            assert httpx.post(f"{server.url}{PREDICT}", content=SAMPLE, headers=PNG).is_success
        check_bentoml_client(server, tmp_path)
        websocket = httpx.get(server.url, headers=UPGRADE)
        pages = [httpx.get(f"{server.url}{path}") for path in ("/livez", "/readyz", "/docs.json")]
        scrapes = [parsed(httpx.get(f"{server.url}/metrics").text) for _ in range(10)]
        assert server.stop(signal.SIGTERM) == 0
    assert websocket.status_code == 404
    assert list(websocket.json()) == ["error"]
    assert [page.status_code for page in pages] == [200] * 3
    for series in scrapes:
        requests = "vitrine_requests_total"
        assert value(series, requests, protocol="v1", status="200") == 20
        assert value(series, requests, protocol="classify", status="200") == 1
        assert value(series, requests, protocol="denoise", status="200") == 1
        assert value(series, "vitrine_predictions_total", label="Trouser") == 21
    assert "Traceback" not in server.log.read_text()


def test_metrics_that_are_off_are_not_found(tmp_path: Path) -> None:
    with serve(tmp_path, models=MODEL, workers=1, metrics=False) as server:
        answer = httpx.get(f"{server.url}/metrics")
        assert httpx.get(f"{server.url}/readyz").status_code == 200
    assert answer.status_code == 404
    assert "VITRINE_METRICS=true" in answer.json()["error"]


@pytest.mark.parametrize("asked_for", [False, True])
def test_requests_are_logged_only_where_that_is_asked_for(tmp_path: Path, asked_for: bool) -> None:
    with serve(tmp_path, models=MODEL, workers=1, log_requests=asked_for) as server:
        httpx.get(f"{server.url}/v1/models", headers={"X-Request-ID": "asked-for"})
        assert server.stop() == 0
    assert server.log.read_text().count("request_id=asked-for") == int(asked_for)


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
        answer = httpx.post(
            f"{server.url}/classify", files=upload(sample), data={"model": MODEL}, timeout=30
        )
    assert answer.json()["label"] == "Trouser"
