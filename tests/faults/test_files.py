"""Model files that change while they are served, and disks that are full."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.exposition import value
from tests.faults.figures import show
from tests.server import (
    CHECKOUT,
    Server,
    come_true,
    command,
    environment,
    free_port,
    running,
    serve,
    wait_until_ready,
)
from tests.service.protocols.test_native import upload
from tests.service.server.test_supervisor import MODEL, ask, metrics, workers

NAME = "fashion-mnist"
PREDICT = f"/v1/models/{NAME}:predict"


def truncate(file: Path) -> None:
    os.truncate(file, 100)


def overwrite(file: Path) -> None:
    """Replace the content in place, as `cp` does."""
    with file.open("r+b") as opened:
        opened.write(os.urandom(file.stat().st_size))


def remove(file: Path) -> None:
    file.unlink()


def answers(server: Server, sample: bytes) -> list[object]:
    """What connections of their own get: one image, and several, in batches of new sizes."""
    many = [("image", ("sample.png", sample, "image/png"))] * 7
    with server.client() as client:
        one = client.post(PREDICT, content=sample, headers={"Content-Type": "image/png"})
        several = client.post(PREDICT, files=many)
        form = client.post("/classify", files=upload(sample))
    assert (one.status_code, several.status_code, form.status_code) == (200, 200, 200)
    return [one.json(), several.json(), form.json()]


@pytest.mark.slow
@pytest.mark.parametrize("damage", [truncate, overwrite, remove])
def test_model_file_that_changes_is_served_on_and_not_loaded_again(
    damage: Callable[[Path], None], artifact_folder: Path, models_dir: Path, tmp_path: Path
) -> None:
    network, sample = artifact_folder / "model.tflite", artifact_folder / "sample.png"
    kept = shutil.copy(network, tmp_path / "kept.tflite")
    image = sample.read_bytes()
    with serve(tmp_path, models_dir=models_dir, workers=2) as server:
        before = answers(server, image)
        damage(network)
        assert [answers(server, image) for _ in range(4)] == [before] * 4
        killed, other = workers(server)
        os.kill(killed, signal.SIGKILL)
        assert come_true(lambda: server.log.read_text().count("worker 0 cannot start: ") >= 1)
        assert f"{network}" in server.log.read_text()
        assert value(metrics(server), "vitrine_workers_ready") == 1
        assert [answers(server, image) for _ in range(2)] == [before] * 2
        assert other in workers(server)
        shutil.copy(kept, network)
        assert come_true(lambda: value(metrics(server), "vitrine_workers_ready") == 2)
        assert server.stop(signal.SIGTERM) == 0


@pytest.mark.slow
def test_worker_that_cannot_start_is_tried_more_and_more_rarely(
    artifact_folder: Path, models_dir: Path, tmp_path: Path
) -> None:
    with serve(tmp_path, models_dir=models_dir, workers=2) as server:
        truncate(artifact_folder / "model.tflite")
        os.kill(workers(server)[0], signal.SIGKILL)
        assert come_true(lambda: server.log.read_text().count("cannot start") == 3)
        times = [
            line.split(" ")[1]
            for line in server.log.read_text().splitlines()
            if "cannot start" in line
        ]
        show("times of the attempts", times)
        seconds = [_seconds(time) for time in times]
        assert seconds[2] - seconds[1] > seconds[1] - seconds[0] + 1  # 2 s, then 4


def _seconds(time: str) -> float:
    hours, minutes, seconds = time.replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def on_a_small_disk(folder: Path) -> Callable[[int], list[str]]:
    """The command of a server for which a folder is a disk of 1 MB."""

    def start(port: int) -> list[str]:
        mount = f"mount -t tmpfs -o size=1m tmpfs {folder}"
        in_own_mounts = ["unshare", "--map-root-user", "--mount"]
        return [*in_own_mounts, "sh", "-c", f"{mount} && exec {shlex.join(command(port))}"]

    return start


@pytest.mark.slow
def test_full_disk_ends_no_worker_and_keeps_new_ones_away(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("mounting a small disk needs a namespace of its own")
    disk = tmp_path / "disk"
    disk.mkdir()
    large = b"x" * 3_000_000  # more than the disk had in the first place
    with running(
        on_a_small_disk(disk), tmp_path, models=MODEL, workers=2, metrics_dir=disk
    ) as server:
        seen = Path(f"/proc/{server.process.pid}/root{disk}")  # in its own mounts
        with pytest.raises(OSError, match="No space left"):
            (seen / "filler").write_bytes(b"x" * 1_100_000)
        assert [ask(server) for _ in range(20)] == [200] * 20
        assert server.post("/classify", files=upload(large)).status_code == 415
        assert value(metrics(server), "vitrine_requests_total", status="200", model=MODEL) >= 20
        os.kill(workers(server)[0], signal.SIGKILL)
        assert come_true(lambda: "cannot start: [Errno 28] No space left" in server.log.read_text())
        assert value(metrics(server), "vitrine_workers_ready") == 1
        assert [ask(server) for _ in range(20)] == [200] * 20
        (seen / "filler").unlink()
        assert come_true(lambda: value(metrics(server), "vitrine_workers_ready") == 2)
        assert value(metrics(server), "vitrine_requests_total", status="200", model=MODEL) >= 40
        assert server.stop(signal.SIGTERM) == 0


def test_log_that_cannot_be_written_stops_no_answer(tmp_path: Path) -> None:
    port = free_port()
    settings = environment(models=MODEL, workers=1, log_requests=True)
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen(command(port), cwd=CHECKOUT, env=settings, stderr=full)
    server = Server(f"http://127.0.0.1:{port}", process, tmp_path / "nothing")
    with contextlib.closing(server):
        wait_until_ready(server)
        assert [ask(server) for _ in range(20)] == [200] * 20
        assert server.stop(signal.SIGTERM) == 0
