"""What a pod of two CPUs serves of every model, and how many pods, nodes and USD a load takes.

`python -m tests.bench.capacity` measures, in five minutes; `--out tests/bench/capacity.json` keeps
the figures. `--write` measures nothing and puts the kept ones into the documents.
"""

import argparse
import contextlib
import datetime
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median

import httpx
from tqdm import tqdm

from tests.bench.closed_loop import measure, require_wrk
from tests.bench.payloads import Payload, photo
from tests.bench.report import markdown
from tests.bench.systems import PHOTO, Running, System, processor, started
from tests.server import CHECKOUT

JSON_FILE = Path(__file__).with_name("capacity.json")
DOCUMENTS = {
    CHECKOUT / "deploy" / "CAPACITY.md": ("measured", "sizes"),
    CHECKOUT / "k8s" / "README.md": ("measured",),
}

POD_CPUS = 2
CONNECTIONS = 16
WARM_UP_S = 2
# What takes this long alone gets fewer connections (wrk gives an answer 2 s) and more seconds.
SLOW_S, SLOW_CONNECTIONS, SLOW_TIMES = 0.1, 4, 3
SAMPLE, JPEG = "sample.png", "photo"

# Assumptions: of these the documents say that they are none of ours.
MIN_PODS = 2  # of the HPA
UTILISATION = 0.7  # of a pod's CPUs, on average
NODE_CPUS, NODE_CPUS_RESERVED = 16, 1  # kubelet, log and metrics agents, network
NODE_USD_AN_HOUR = 0.80
NODES_A_CLUSTER = 1000  # a fifth of what Kubernetes is tested with
HEAD_BYTES = 400  # request line or status, headers, TCP and IP: of a request, and of an answer
POD_START_S = 10  # scheduled, created, ready, known to every node; the image is there
MIN_READY_S = 5  # of the Deployment: until a rollout goes on
CONNTRACK_S = 120  # that a node remembers a closed connection
RATES = (1_000, 100_000, 10_000_000)
MIXES = {
    "small PNGs to fashion-mnist": {("fashion-mnist", SAMPLE): 1.0},
    "photos to cats-vs-dogs": {("cats-vs-dogs", JPEG): 1.0},
    "9 small PNGs to 1 photo": {("fashion-mnist", SAMPLE): 0.9, ("cats-vs-dogs", JPEG): 0.1},
}


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


@dataclass(frozen=True)
class Size:
    """What some requests/s take."""

    pods: int
    nodes: int
    clusters: int
    usd_an_hour: float
    usd_a_million: float
    """For a million images."""
    gbit_in: float
    gbit_out: float
    """Gbit/s to and from the pods."""
    rollout_h: float
    """Hours to replace all pods one by one (maxSurge: 1)."""
    conntrack: float
    """Connections that a node remembers if no client keeps one alive."""
    series: int


def images_per_s(measured: Measured, mix: Mapping[tuple[str, str], float]) -> float:
    """Of one pod that serves a mix: the pod's seconds add up, its images/s do not."""
    return 1 / sum(share / measured.of(*of).images_per_s for of, share in mix.items())


def pods(rate: float, images_per_s: float) -> int:
    """Pods for a rate, at the average utilisation that is aimed at; two, so that one may go."""
    return max(MIN_PODS, math.ceil(rate / (UTILISATION * images_per_s)))


def size(measured: Measured, mix: Mapping[tuple[str, str], float], rate: float) -> Size:
    """Pods, nodes, clusters, cost and network of a mix at some requests/s, an image each."""
    count = pods(rate, images_per_s(measured, mix))
    nodes = math.ceil(count / ((NODE_CPUS - NODE_CPUS_RESERVED) // POD_CPUS))
    usd_an_hour = nodes * NODE_USD_AN_HOUR
    bytes_in = sum(share * measured.of(*of).request_bytes for of, share in mix.items())
    bytes_out = sum(share * measured.of(*of).answer_bytes for of, share in mix.items())
    return Size(
        count,
        nodes,
        math.ceil(nodes / NODES_A_CLUSTER),
        usd_an_hour,
        usd_an_hour / (rate * 3600) * 1e6,
        rate * (bytes_in + HEAD_BYTES) * 8 / 1e9,
        rate * (bytes_out + HEAD_BYTES) * 8 / 1e9,
        count * (POD_START_S + MIN_READY_S) / 3600,
        rate * CONNTRACK_S / nodes,
        count * measured.series,
    )


def measured_table(measured: Measured) -> str:
    """Every model and payload, with the pods for 1,000 images/s."""
    rows = [
        ["model", "payload", "images/s a pod", "CPU ms an image", "p99 ms", "pods for 1,000/s"],
        *(
            [
                figure.model,
                f"{figure.payload}, {figure.request_bytes:,} bytes",
                _three_digits(figure.images_per_s),
                _three_digits(figure.cpu_ms),
                _three_digits(figure.p99_ms),
                f"{pods(1000, figure.images_per_s):,}",
            ]
            for figure in measured.figures
        ),
    ]
    head = (
        f"{measured.date}, {POD_CPUS} CPUs of {measured.machine}, which the load generator shares; "
        f"{CONNECTIONS} connections ({SLOW_CONNECTIONS} where an image alone takes {SLOW_S} s), "
        f"medians of {measured.rounds} rounds; pods at {UTILISATION:.0%} of their CPUs; "
        f"{measured.series:,} Prometheus series a pod."
    )
    return f"{head}\n\n{markdown(rows)}"


def sizes_table(measured: Measured) -> str:
    """Every mix at every rate."""
    head = (
        "mix, images/s, pods, nodes, clusters, USD an hour, USD a million images, Gbit/s in, "
        "Gbit/s out, rollout one by one in h, conntrack a node, Prometheus series"
    )
    rows = [head.split(", ")]
    for name, mix in MIXES.items():
        for rate in RATES:
            needs = size(measured, mix, rate)
            values = (rate, *asdict(needs).values())
            rows.append([name, *(_three_digits(value) for value in values)])
    return markdown(rows)


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def fill(document: Path, name: str, content: str) -> None:
    """Replace what a document has between the two markers of a name; ValueError without them."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, found, rest = document.read_text().partition(begin)
    _, found_end, tail = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"{document}: expected the lines {begin} and {end}")
    document.write_text(f"{head}{begin}\n{content}\n{end}{tail}")


def write_documents(measured: Measured) -> None:
    """Put the figures into every document."""
    tables = {"measured": measured_table(measured), "sizes": sizes_table(measured)}
    for document, names in DOCUMENTS.items():
        for name in names:
            fill(document, name, tables[name])


def read(path: Path = JSON_FILE) -> Measured:
    """What `--out` has written."""
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
    return System(model, "", "/readyz", lambda: payload)


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
        before_s = _cpu_s(self.running)
        load = measure(self.running, self.connections, seconds * (SLOW_TIMES**self.is_slow))
        cpu_ms = (_cpu_s(self.running) - before_s) / load.requests * 1000
        self.runs.append((load.rate, cpu_ms, load.p99_ms))

    def figure(self) -> Figure:
        """The medians."""
        system = self.running.system
        payload = system.payload
        kind = SAMPLE if payload.headers["Content-Type"] == "image/png" else JPEG
        medians = (median(column) for column in zip(*self.runs, strict=True))
        return Figure(system.name, kind, len(payload.body), self.answer_bytes, *medians)


def _cpu_s(running: Running) -> float:
    """CPU seconds of all processes so far."""
    times = [process.cpu_times() for process in running.processes()]
    return float(sum(of_one.user + of_one.system for of_one in times))


@contextlib.contextmanager
def _on_cpus(count: int) -> Iterator[None]:
    """What is started within keeps to the first CPUs that this process may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def main() -> None:
    """Measure and print, or put what was measured into the documents."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.capacity", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--seconds", type=int, default=4, help="of each load (%(default)s)")
    parser.add_argument("--models", nargs="*", default=[], help="(all)")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    parser.add_argument("--write", action="store_true", help=f"{JSON_FILE.name} into the documents")
    arguments = parser.parse_args()
    if arguments.write:
        write_documents(read())
        return
    require_wrk()
    served = sorted(path.name for path in (CHECKOUT / "models").iterdir())
    measured = measure_pod(arguments.models or served, arguments.rounds, arguments.seconds)
    if arguments.out:
        arguments.out.write_text(json.dumps(asdict(measured), indent=1) + "\n")
    print(f"{measured_table(measured)}\n\n{sizes_table(measured)}")


if __name__ == "__main__":
    main()
