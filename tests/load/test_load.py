"""Real runs of Locust, of a few seconds each, against the service and against doubles of it."""

import contextlib
import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from tests.drawing import boot, dress, encode, gradient
from tests.load.run import Result, run_locust
from tests.server import CHECKOUT, serve

pytestmark = pytest.mark.slow

TOKEN = "a-token-for-the-load-tests"
MODELS = "fashion-mnist,denoiser,cats-vs-dogs"
TOP = [
    {"label": "Bag", "index": 8, "probability": 0.9},
    {"label": "Coat", "index": 4, "probability": 0.06},
    {"label": "Dress", "index": 3, "probability": 0.01},
]
PATIENT = ("--max-p99-ms", "small=5000,large=5000,denoising=5000")  # other tests run beside it
WRONG = {**TOP[0], "top": TOP}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that wants a token."""
    folder = tmp_path_factory.mktemp("service")
    tokens = folder / "tokens"
    tokens.write_text(hashlib.sha256(TOKEN.encode()).hexdigest() + "\n")
    with serve(folder, models=MODELS, workers=1, api_tokens_file=tokens) as server:
        yield server.url


class Double(BaseHTTPRequestHandler):
    """A service with one model that answers every image in the same way."""

    protocol_version = "HTTP/1.1"
    status: ClassVar[int] = 200
    answer: ClassVar[object]

    def do_GET(self) -> None:
        self._reply(200, {"models": ["fashion-mnist"]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._reply(self.status, self.answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def _reply(self, status: int, answer: object) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Request-ID", self.headers.get("X-Request-ID", ""))
        if status == 503:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)


class WrongDouble(Double):
    """Well formed, quick, and always wrong about the sample."""

    answer: ClassVar[object] = {
        "model": "fashion-mnist",
        "version": "1",
        "predictions": [WRONG],
        **WRONG,
    }


class OverloadedDouble(Double):
    """Has no room for any image."""

    status = 503
    answer: ClassVar[object] = {"error": "too many images wait"}


@contextlib.contextmanager
def serving(double: type[Double]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), double) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_make_load_serves_passes_and_leaves_reports(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.load",
        "--time-s",
        "2",
        "--users",
        "8",
        "--shape",
        "soak",
    ]
    options = ("--mix", "fashion-mnist=1", "--think-time", "0.05", *PATIENT)
    ran = subprocess.run(
        [*command, "--out", tmp_path, *options],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert f"Report: {tmp_path}/report.html" in ran.stdout
    assert "FAIL" not in ran.stdout
    report = (tmp_path / "report.html").read_text()
    stats = (tmp_path / "load_stats.csv").read_text()
    for name in ("fashion-mnist raw", "fashion-mnist form", "fashion-mnist several"):
        assert name in report
        assert name in stats


def test_objectives_that_cannot_be_kept_fail_the_run(host: str, tmp_path: Path) -> None:
    impossible = ("--max-p99-ms", "large=1", "--min-rps", "1e6")
    arguments = ("--mix", "cats-vs-dogs=1", "--think-time", "0", "--token", TOKEN, *impossible)
    result = run_locust(host, users=2, time_s=1, folder=tmp_path, shape="soak", arguments=arguments)
    assert result.exit_code == 1
    assert result.failures == 0
    failed = [line for line in result.output.splitlines() if line.endswith("FAIL")]
    assert [line.split("  ")[0] for line in failed] == ["p99, large models", "requests/s"]


def test_two_processes_send_a_folder_of_images(host: str, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "dress.png").write_bytes(encode(dress(), "PNG"))
    (images / "boot.webp").write_bytes(encode(boot(), "WEBP"))
    (images / "photo.jpg").write_bytes(encode(gradient(160, 120), "JPEG"))
    result = run_locust(
        host,
        users=20,
        time_s=2,
        folder=tmp_path / "reports",
        shape="soak",
        processes=2,
        arguments=("--images", str(images), "--token", TOKEN, *PATIENT),
    )
    assert result.exit_code == 0, result.output
    assert "2 workers connected" in result.output
    assert result.requests > 0
    assert result.failures == 0
    assert {name.split()[0] for name in result.names} >= {"fashion-mnist", "denoiser"}


def test_steps_end_with_the_capacity(host: str, tmp_path: Path) -> None:
    result = run_locust(
        host,
        users=40,
        time_s=8,
        folder=tmp_path,
        shape="step",
        arguments=("--steps", "2", "--mix", "fashion-mnist=1", "--token", TOKEN, *PATIENT),
    )
    assert result.exit_code == 0, result.output
    assert "capacity: " in result.output
    assert "with 20 users, p99 small" in result.output
    assert result.failures == 0


def test_wrong_answers_are_found_out_in_one_process_and_in_several(tmp_path: Path) -> None:
    def run(double_host: str, processes: int) -> Result:
        return run_locust(
            double_host,
            users=8,
            time_s=2,
            folder=tmp_path / str(processes),
            shape="soak",
            processes=processes,
            arguments=("--think-time", "0.02"),
        )

    with serving(WrongDouble) as double_host, ThreadPoolExecutor() as pool:
        results = list(pool.map(run, [double_host] * 2, [1, 2]))
    wrong = "WrongAnswer(\"fashion-mnist: expected sample as 'Trouser' 0.91, got 'Bag' 0.90\")"
    for result in results:
        assert result.exit_code == 1
        assert any(wrong in text for text in result.failure_texts), result.failure_texts
        verdict = next(line for line in result.output.splitlines() if "wrong answers" in line)
        assert verdict.endswith("FAIL")


def test_overload_is_backed_off_from_and_counted_apart(tmp_path: Path) -> None:
    arguments = ("--think-time", "0")
    with serving(OverloadedDouble) as host:
        result = run_locust(
            host, users=4, time_s=2, folder=tmp_path, shape="soak", arguments=arguments
        )
    assert result.exit_code == 1  # it is an error, if not a wrong answer
    assert "fashion-mnist overloaded" in result.names
    assert 4 <= result.requests <= 4 * 3  # without backing off there would be thousands
    assert f"{result.requests} of {result.failures} failures: 503 with Retry-After" in result.output


def test_service_that_cannot_be_asked_stops_the_start(host: str, tmp_path: Path) -> None:
    result = run_locust(host, users=1, time_s=1, folder=tmp_path)
    assert result.exit_code == 1
    assert "error: HTTP Error 401" in result.output
    assert result.requests == 0
