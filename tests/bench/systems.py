"""The systems that are compared: how each is installed, started, asked, and stopped."""

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import httpx
import psutil

from tests.bench.payloads import Payload, form, photo, raw, v2_binary, v2_json
from tests.server import CHECKOUT, environment, free_port

ENVIRONMENTS = CHECKOUT / ".bench"
PEERS = Path(__file__).parent / "peers"
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 30
V2 = "/v2/models/fashion-mnist"


@dataclass(frozen=True)
class System:
    """One server with one way of asking it."""

    name: str
    folder: str
    """Of the peer; empty for Vitrine itself."""
    ready_path: str
    make_payload: Callable[[], Payload]
    workers: tuple[int, ...] = (2,)
    """Numbers of workers to choose from: the quickest is measured."""
    python: str = sys.executable
    """What its environment is made with."""
    survives_a_pause: bool = True
    """Whether it goes on after its processes were stopped; one that does not is left to idle."""
    module: str = "service"
    """What starts Vitrine itself."""
    arguments: tuple[str, ...] = ()
    """For a peer's server, beside those that all of them take."""

    @cached_property
    def payload(self) -> Payload:
        """What is posted."""
        return self.make_payload()

    def missing(self) -> str | None:
        """Why it cannot be measured here, if so."""
        if not Path(self.python).exists():
            return f"{self.python} is missing (a Python with a shared libpython is needed)"
        return None

    def command(self, port: int, workers: int) -> list[str]:
        """What starts it in the foreground."""
        if not self.folder:
            return [sys.executable, "-m", self.module, "--host", "127.0.0.1", "--port", str(port)]
        python = ENVIRONMENTS / self.folder / "bin" / "python"
        server = PEERS / self.folder / "server.py"
        common = ("--port", port, "--workers", workers, "--models", CHECKOUT / "models")
        return [str(part) for part in (python, server, *common, *self.arguments)]


PREDICT = "/v1/models/fashion-mnist:predict"

VITRINE = System("Vitrine, raw body", "", "/readyz", lambda: raw(PREDICT))
VITRINE_FORM = System("Vitrine, form", "", "/readyz", lambda: form("/classify"))
FLOOR = System("bare ASGI (the floor)", "floor", "/", lambda: raw("/"))
PEER_SYSTEMS = (
    System("FastAPI + LiteRT, raw body", "fastapi_litert", "/ready", lambda: raw("/raw")),
    System("FastAPI + LiteRT, form", "fastapi_litert", "/ready", lambda: form("/classify")),
    System("LitServe + LiteRT", "litserve", "/health", lambda: raw("/predict"), (1, 2)),
    System(
        "Triton (PyTriton) + LiteRT, tensor",
        "triton",
        f"{V2}/ready",
        lambda: v2_binary(f"{V2}/infer"),
        (1, 2),
        "/usr/bin/python3.11",
        survives_a_pause=False,
    ),
    System(
        "MLServer + LiteRT, JSON tensor",
        "mlserver",
        f"{V2}/ready",
        lambda: v2_json(f"{V2}/infer"),
        (0, 2),
    ),
    System(
        "BentoML + Keras, one a call", "bentoml_keras", "/readyz", lambda: form("/classify"), (1, 2)
    ),
    System(
        "BentoML + Keras, batched",
        "bentoml_keras",
        "/readyz",
        lambda: form("/classify_batch", "images"),
        (1, 2),
    ),
)
OTHERS = (FLOOR, *PEER_SYSTEMS)

# VGG16, where compute matters: the same network, and a photo instead of a drawing.
PHOTO_MODEL = "cats-vs-dogs"
PHOTO_PREDICT = f"/v1/models/{PHOTO_MODEL}:predict"
PHOTO, BIG_PHOTO = (500, 375), (4000, 3000)
VITRINE_PHOTO = System("Vitrine", "", "/readyz", lambda: photo(PHOTO_PREDICT, *PHOTO))
VITRINE_BIG_PHOTO = System("Vitrine", "", "/readyz", lambda: photo(PHOTO_PREDICT, *BIG_PHOTO))
BENTOML_PHOTO = System(
    "BentoML + Keras",
    "bentoml_keras",
    "/readyz",
    lambda: form("/classify", file=photo("", *PHOTO)),
    (1, 2),
    arguments=("--model", PHOTO_MODEL, "--threads", str(os.cpu_count() or 1)),
)


def install(system: System) -> None:
    """Make a peer's own environment from its lock file, once."""
    folder = ENVIRONMENTS / system.folder
    lock = PEERS / system.folder / "requirements.lock"
    stamp = folder / ".installed"
    if not system.folder or (stamp.exists() and stamp.read_bytes() == lock.read_bytes()):
        return
    print(f"installing {system.folder} into {folder}", flush=True)
    uv = (sys.executable, "-m", "uv")
    subprocess.run((*uv, "venv", "-q", "--clear", "-p", system.python, str(folder)), check=True)
    options = ("-q", "-p", str(folder), "--require-hashes", "-r", str(lock))
    subprocess.run((*uv, "pip", "install", *options), check=True)
    shutil.copyfile(lock, stamp)


@dataclass
class Running:
    """A started system."""

    system: System
    url: str
    process: subprocess.Popen[bytes]
    start_s: float

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        url = httpx.URL(self.url)
        assert url.port is not None
        return url.host, url.port

    def processes(self) -> list[psutil.Process]:
        """All of them, the parent first."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def memory_bytes(self) -> int:
        """Proportional set size of all its processes."""
        return sum(process.memory_full_info().pss for process in self.processes())

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let none of its processes run meanwhile: some poll even when nobody asks them."""
        processes = self.processes() if self.system.survives_a_pause else []
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in reversed(processes):
                process.resume()

    def check(self) -> None:
        """Raise RuntimeError unless it answers a payload with success."""
        payload = self.system.payload
        answer = httpx.post(
            self.url + payload.path, content=payload.body, headers=payload.headers, timeout=60
        )
        if answer.status_code != httpx.codes.OK:
            raise RuntimeError(f"{self.system.name}: expected 200, got {answer}: {answer.text}")


@contextlib.contextmanager
def started(system: System, workers: int, **settings: object) -> Iterator[Running]:
    """Start a system, wait until it is ready, end it with all its processes."""
    port = free_port()
    variables = environment(workers=workers, **settings)
    begun = time.perf_counter()
    process = subprocess.Popen(
        system.command(port, workers),
        cwd=CHECKOUT,
        env=variables | {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url + system.ready_path, process)
        running = Running(system, url, process, time.perf_counter() - begun)
        running.check()
        yield running
    finally:
        _end(process)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    ends = time.perf_counter() + START_TIMEOUT_S
    with httpx.Client() as client:
        while time.perf_counter() < ends:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
            with contextlib.suppress(httpx.TransportError):
                if client.get(url).status_code == httpx.codes.OK:
                    return
            time.sleep(0.01)
    raise RuntimeError(f"{process.args!r} was not ready within {START_TIMEOUT_S} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    children = (
        psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    )
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in children:  # what a server did not end itself
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def cores() -> int:
    """CPUs of this machine."""
    return os.cpu_count() or 1


def processor() -> str:
    """Its name, where the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
