"""What a pod of two CPUs answers of every model, measured with wrk."""

import contextlib
import datetime
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import httpx
from tqdm import tqdm

from tests.bench.closed_loop import measure
from tests.bench.payloads import Payload, photo
from tests.bench.servers import Running, started
from tests.bench.systems import PHOTO, System, processor, vitrine
from tests.server import CHECKOUT

JSON_FILE = Path(__file__).with_name("capacity.json")
POD_CPUS = 2
CONNECTIONS = 16
WARM_UP_S = 2
# What takes this long alone gets fewer connections (wrk gives an answer 2 s) and more seconds.
SLOW_S, SLOW_CONNECTIONS, SLOW_TIMES = 0.1, 4, 3
SAMPLE, JPEG = "sample.png", "photo"


@dataclass(frozen=True)
class Figure:
    """What one pod does with one payload for one model: medians over the rounds."""

    model: str
    payload: str
    request_bytes: int
    answer_bytes: int
    images_per_s: float
    cpu_ms: float
    """Of all processes of the server, an image."""
    p99_ms: float


@dataclass
class Measured:
    """Everything that one run measured."""

    date: str
    machine: str
    rounds: int
    series: int = 0
    """Lines of /metrics after every model was asked: what Prometheus keeps a pod."""
    figures: list[Figure] = field(default_factory=list)

    def of(self, model: str, payload: str) -> Figure:
        """The figures of one model and payload."""
        return next(f for f in self.figures if (f.model, f.payload) == (model, payload))


def read(path: Path = JSON_FILE) -> Measured:
    """What was measured and kept."""
    content = json.loads(path.read_text())
    figures = [Figure(**figure) for figure in content.pop("figures")]
    return Measured(**content, figures=figures)


def asking(models: Sequence[str]) -> list[System]:
    """Every model with its own sample, and with a photo."""
    systems = []
    for model in models:
        path = f"/v1/models/{model}:predict"
        sample = (CHECKOUT / "models" / model / "1" / SAMPLE).read_bytes()
        systems.append(_asking(model, Payload(path, sample, {"Content-Type": "image/png"})))
        systems.append(_asking(model, photo(path, *PHOTO)))
    return systems


def _asking(model: str, payload: Payload) -> System:
    return System(model, vitrine, "/readyz", lambda: payload)


def measure_pod(models: Sequence[str], rounds: int, seconds: int) -> Measured:
    """Start a pod's server with all its models, and load it with each payload in turn."""
    with contextlib.ExitStack() as until_measured:
        with _on_cpus(POD_CPUS):
            systems = asking(models)
            running = until_measured.enter_context(started(systems[0], POD_CPUS))
        turns = [_Turn.of(replace(running, system=system)) for system in systems]
        for turn in tqdm(turns, desc="warming up"):
            measure(turn.running, turn.connections, WARM_UP_S)
        for _ in tqdm(range(rounds), desc="rounds"):
            for turn in turns:
                turn.load(seconds)
        lines = httpx.get(f"{running.url}/metrics").text.splitlines()
        return Measured(
            datetime.datetime.now(datetime.UTC).date().isoformat(),
            processor(),
            rounds,
            sum(not line.startswith("#") for line in lines),
            [turn.figure() for turn in turns],
        )


@dataclass
class _Turn:
    """One model with one payload, and what its loads have shown so far."""

    running: Running
    answer_bytes: int
    is_slow: bool
    runs: list[tuple[float, float, float]] = field(default_factory=list)
    """Images/s, CPU ms an image and p99 in ms of each."""

    @classmethod
    def of(cls, running: Running) -> "_Turn":
        """Ask once."""
        payload = running.system.payload
        begun = time.perf_counter()
        answer = httpx.post(
            running.url + payload.path, content=payload.body, headers=payload.headers, timeout=60
        )
        return cls(running, len(answer.content), time.perf_counter() - begun > SLOW_S)

    @property
    def connections(self) -> int:
        return SLOW_CONNECTIONS if self.is_slow else CONNECTIONS

    def load(self, seconds: int) -> None:
        """Measure one round."""
        load = measure(self.running, self.connections, seconds * (SLOW_TIMES**self.is_slow))
        self.runs.append((load.rate, load.cpu_ms, load.p99_ms))

    def figure(self) -> Figure:
        """The medians."""
        system = self.running.system
        payload = system.payload
        kind = SAMPLE if payload.headers["Content-Type"] == "image/png" else JPEG
        medians = (median(column) for column in zip(*self.runs, strict=True))
        return Figure(system.name, kind, len(payload.body), self.answer_bytes, *medians)


@contextlib.contextmanager
def _on_cpus(count: int) -> Iterator[None]:
    """What is started within keeps to the first CPUs that this process may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
