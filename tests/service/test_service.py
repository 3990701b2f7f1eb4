import json
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.server import CHECKOUT, command, environment, free_port, serve
from tests.service.test_handlers import upload

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
    lines = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, output
    return lines[0]


def test_altered_file_stops_the_start(models_dir: Path) -> None:
    path = models_dir / MODEL / "1/model.tflite"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    line = reason(failed_start(models_dir=models_dir))
    assert "model.tflite" in line
    assert "SHA-256" in line


def test_missing_file_stops_the_start(models_dir: Path) -> None:
    (models_dir / MODEL / "1/model.keras").unlink()
    assert "model.keras is missing" in reason(failed_start(models_dir=models_dir))


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
    assert "loaded model=fashion-mnist-mlp version=1 engine=litert device=cpu" in text_log


def test_answer_after_the_deadline_is_504(tmp_path: Path) -> None:
    sample = (CHECKOUT / "models/denoiser/1/sample.png").read_bytes()
    with serve(tmp_path, request_timeout_s=0.0001, workers=1, models="denoiser") as server:
        answer = httpx.post(f"{server.url}/denoise", files=upload(sample))
    assert answer.status_code == 504
    assert "0.0001 s" in answer.json()["error"]


def test_keras_serves_where_there_is_no_tflite(tmp_path: Path, models_dir: Path) -> None:
    pytest.importorskip("keras", reason="Keras is not installed")
    folder = models_dir / MODEL / "1"
    manifest = json.loads((folder / "manifest.json").read_bytes())
    del manifest["engines"]["litert"], manifest["files"]["model.tflite"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "model.tflite").unlink()
    sample = (folder / "sample.png").read_bytes()
    with serve(tmp_path, models_dir=models_dir, workers=1) as server:
        answer = httpx.post(
            f"{server.url}/classify", files=upload(sample), data={"model": MODEL}, timeout=30
        )
    assert answer.json()["label"] == "Trouser"
