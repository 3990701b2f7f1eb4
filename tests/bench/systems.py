"""The systems that are compared: what starts each of them, and what is posted to it."""

import json
import os
import platform
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from tests.bench.payloads import Payload, form, photo, raw, v2_binary, v2_json
from tests.server import CHECKOUT

ENVIRONMENTS = CHECKOUT / ".bench"
PEERS = Path(__file__).parent / "peers"
HOST = "127.0.0.1"

Command = Callable[[int, int], list[str]]
"""From a port and a number of workers to what starts a server in the foreground."""


def cores() -> int:
    """CPUs of this machine."""
    return os.cpu_count() or 1


def processor() -> str:
    """The CPU's name, where the system tells it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def vitrine(port: int, _workers: int) -> list[str]:
    """What `make serve` runs."""
    return [sys.executable, "-m", "service", "--host", HOST, "--port", str(port)]


def under_bentoml(port: int, _workers: int) -> list[str]:
    """The same service under BentoML's own server."""
    serve = ("-m", "bentoml", "serve", "service.service:Vitrine")
    return [sys.executable, *serve, "--host", HOST, "--port", str(port)]


def under_uvicorn(port: int, workers: int) -> list[str]:
    """The same ASGI app under plain uvicorn, which is as quick as its options make it."""
    app = ("--factory", "service.service:Vitrine.to_asgi", "--workers", str(workers))
    quick = ("--loop", "uvloop", "--http", "httptools", "--ws", "none", "--no-access-log")
    quiet = ("--log-level", "warning", "--no-proxy-headers", "--no-server-header")
    address = ("--host", HOST, "--port", str(port))
    return [sys.executable, "-m", "uvicorn", *app, *quick, *quiet, *address]


def peer(
    folder: str, *arguments: str, names: str = "", python: Path = Path(sys.executable)
) -> Command:
    """The server of one of peers/; it is told the classes of the model `names`."""

    def command(port: int, workers: int) -> list[str]:
        server = PEERS / folder / "server.py"
        common = ("--port", port, "--workers", workers, "--models", CHECKOUT / "models")
        labels = ("--labels", json.dumps(_labels(names))) if names else ()
        return [str(part) for part in (python, server, *common, *labels, *arguments)]

    return command


def _labels(model: str) -> list[str]:
    manifest = json.loads((CHECKOUT / "models" / model / "1" / "manifest.json").read_bytes())
    labels: list[str] = manifest["task"]["labels"]
    return labels


@dataclass(frozen=True)
class System:
    """One server with one way of asking it."""

    name: str
    command: Command
    ready_path: str
    make_payload: Callable[[], Payload]
    workers: tuple[int, ...] = (cores(),)
    """Numbers of workers to choose from: the quickest is measured."""
    is_even: bool = False
    """Started once for each worker, on a port of its own; the load is split evenly over them."""
    environment: str = ""
    """Folder in peers/ with a lock file, if it cannot run in this environment."""
    python: str = sys.executable
    """What that environment is made with."""
    survives_a_pause: bool = True
    """Whether it goes on after its processes were stopped; one that does not is left to idle."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Vitrine's, in lower case and without their prefix."""
    trust: ssl.SSLContext | None = None
    """What its clients accept, where it speaks TLS."""
    checkout: Path = CHECKOUT
    """Where it is started."""

    @cached_property
    def payload(self) -> Payload:
        """What is posted."""
        return self.make_payload()

    def missing(self) -> str | None:
        """Why it cannot be measured here, if so."""
        if not Path(self.python).exists():
            return f"{self.python} is missing (a Python with a shared libpython is needed)"
        return None


MODEL = "fashion-mnist"
PREDICT = f"/v1/models/{MODEL}:predict"
V2 = f"/v2/models/{MODEL}"
# VGG16, where compute matters: a photo instead of a drawing.
PHOTO_MODEL = "cats-vs-dogs"
PHOTO_PREDICT = f"/v1/models/{PHOTO_MODEL}:predict"
PHOTO, BIG_PHOTO = (500, 375), (4000, 3000)
ONE_OR_ALL = (1, cores())

VITRINE = System("Vitrine, raw body", vitrine, "/readyz", lambda: raw(PREDICT))
VITRINE_FORM = replace(VITRINE, name="Vitrine, form", make_payload=lambda: form("/classify"))
VITRINE_PHOTO = System("Vitrine, photo", vitrine, "/readyz", lambda: photo(PHOTO_PREDICT, *PHOTO))
VITRINE_BIG_PHOTO = replace(VITRINE_PHOTO, make_payload=lambda: photo(PHOTO_PREDICT, *BIG_PHOTO))


def bentoml(engine: str, way: str, model: str = MODEL, threads: int = 1) -> System:
    """Plain BentoML, `one a call` or `batched`; it takes forms."""
    routes = {"one a call": ("/classify", "image"), "batched": ("/classify_batch", "images")}
    path, part = routes[way]
    if engine == "LiteRT":  # measured to be quicker with async APIs, Keras with plain ones
        path += "_async"
    arguments = ("--engine", engine.lower(), "--model", model, "--threads", str(threads))

    def make_payload() -> Payload:
        return form(path, part, None if model == MODEL else photo("", *PHOTO))

    name = f"BentoML + {engine}, {way}{'' if model == MODEL else ', photo'}"
    command = peer("bentoml", *arguments, names=model)
    return System(name, command, "/readyz", make_payload, ONE_OR_ALL)


def with_environment(
    name: str,
    folder: str,
    ready_path: str,
    make_payload: Callable[[], Payload],
    names: str = "",
) -> System:
    """A server that cannot run in this environment: `install` makes one of its own."""
    python = ENVIRONMENTS / folder / "bin" / "python"
    command = peer(folder, names=names, python=python)
    return System(name, command, ready_path, make_payload, environment=folder)


BENTOML_BATCHED = bentoml("LiteRT", "batched")
FLOOR = replace(
    with_environment("bare ASGI (the floor)", "floor", "/", lambda: raw("/"), MODEL),
    is_even=True,
)
FASTAPI = with_environment(
    "FastAPI + LiteRT, raw body", "fastapi_litert", "/ready", lambda: raw("/raw"), MODEL
)
FASTAPI_FORM = replace(
    FASTAPI, name="FastAPI + LiteRT, form", make_payload=lambda: form("/classify")
)
LITSERVE = replace(
    with_environment(
        "LitServe + LiteRT, raw body",
        "litserve",
        "/health",
        lambda: raw("/predict"),
        MODEL,
    ),
    workers=ONE_OR_ALL,
)
TRITON = replace(
    with_environment(
        "Triton (PyTriton) + LiteRT, tensor",
        "triton",
        f"{V2}/ready",
        lambda: v2_binary(f"{V2}/infer"),
    ),
    workers=ONE_OR_ALL,
    python="/usr/bin/python3.11",
    survives_a_pause=False,
)
MLSERVER = replace(
    with_environment(
        "MLServer + LiteRT, JSON tensor",
        "mlserver",
        f"{V2}/ready",
        lambda: v2_json(f"{V2}/infer"),
    ),
    workers=(0, cores()),
)

# Every other server, and what of ours it is compared with: the same kind of body, or our raw body
# where it takes decoded tensors.
OTHERS = (
    (FASTAPI, VITRINE),
    (FASTAPI_FORM, VITRINE_FORM),
    (bentoml("LiteRT", "one a call"), VITRINE_FORM),
    (BENTOML_BATCHED, VITRINE_FORM),
    (LITSERVE, VITRINE),
    (TRITON, VITRINE),
    (MLSERVER, VITRINE),
    (bentoml("Keras", "one a call"), VITRINE_FORM),
    (bentoml("Keras", "batched"), VITRINE_FORM),
)

# What is around the network, part by part. Each is compared with all of Vitrine.
LAYERS = (
    replace(VITRINE, name="without batching", settings={"max_batch_size": 1}),
    replace(VITRINE, name="without metrics", settings={"metrics": False}),
    replace(VITRINE, name="under uvicorn, even connections", command=under_uvicorn, is_even=True),
    replace(VITRINE, name="under uvicorn", command=under_uvicorn),
    replace(VITRINE, name="under bentoml serve", command=under_bentoml),
    FLOOR,
    BENTOML_BATCHED,
)

PHOTO_OTHERS = (
    bentoml("LiteRT", "one a call", PHOTO_MODEL, cores()),
    bentoml("Keras", "batched", PHOTO_MODEL, cores()),
)


def install(system: System) -> None:
    """Make a peer's own environment from its lock file, once."""
    if not system.environment:
        return
    folder = ENVIRONMENTS / system.environment
    lock = PEERS / system.environment / "requirements.lock"
    stamp = folder / ".installed"
    if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
        return
    print(f"installing {system.environment} into {folder}", flush=True)
    uv = (sys.executable, "-m", "uv")
    subprocess.run((*uv, "venv", "-q", "--clear", "-p", system.python, str(folder)), check=True)
    options = ("-q", "-p", str(folder), "--require-hashes", "-r", str(lock))
    subprocess.run((*uv, "pip", "install", *options), check=True)
    shutil.copyfile(lock, stamp)
