"""What the shipped HorizontalPodAutoscaler makes of a day and of a flash crowd, simulated.

`python -m tests.bench.autoscaling` prints it beside other settings, from the images/s that
capacity.json has; `--write` puts the table into deploy/CAPACITY.md and draws autoscaling.png.

Kubernetes's own rules are in `wanted` and `Autoscaler`. A pod is one queue before as many servers
as it has CPUs; service times are exponential, every request goes to a random ready pod, and nobody
asks again after a 503.
"""

import argparse
import math
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from heapq import heapreplace
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
import numpy as np
import simpy
import yaml
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator

from tests.bench.capacity import (
    JPEG,
    POD_CPUS,
    POD_START_S,
    UTILISATION,
    fill,
    images_per_s,
    markdown,
    read,
)
from tests.server import CHECKOUT

HPA_FILE = CHECKOUT / "k8s" / "components" / "hpa" / "hpa.yaml"
DOCUMENT = CHECKOUT / "deploy" / "CAPACITY.md"
PICTURE = Path(__file__).with_suffix(".png")
MIX = {("cats-vs-dogs", JPEG): 1.0}

TICK_S = 0.2  # how often clients learn which pods are ready; arrivals lie anywhere within
SYNC_S = 15.0  # of the HPA's controller, by default
SCRAPE_S = 15.0  # of Prometheus and of the metrics server
ADAPTER_WINDOW_S = 60.0  # over which the adapter's queries average
PENDING_S = 5.0  # of a pod's start: until its containers run
TOLERANCE = 0.1
OBSERVE_S = 10.0
OBJECTIVE_S = 1.0
ORACLE_UTILISATION = 0.9

CPU, QUEUE, REQUESTS = "cpu", "vitrine_queue_depth", "vitrine_requests_per_second"
Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class Policy:
    """By how much the number of pods may change within a period."""

    kind: str
    """Pods or Percent."""
    value: int
    period_s: int


@dataclass(frozen=True)
class Direction:
    """How fast it goes up, or down."""

    window_s: int
    policies: tuple[Policy, ...]


@dataclass(frozen=True)
class Hpa:
    """A HorizontalPodAutoscaler's settings."""

    min_pods: int
    max_pods: int
    targets: Mapping[str, float]
    """By metric, a pod; of CPU the share that is requested."""
    up: Direction
    down: Direction


def read_hpa(path: Path = HPA_FILE) -> Hpa:
    """What is shipped; raises ValueError for what the simulation does not know."""
    spec = yaml.safe_load(path.read_text())["spec"]
    rules = spec["behavior"]["scaleUp"], spec["behavior"]["scaleDown"]
    if any(rule.get("selectPolicy", "Max") != "Max" for rule in rules):
        raise ValueError(f"{path}: expected the selectPolicy Max")
    targets: dict[str, float] = {}
    for metric in spec["metrics"]:
        if metric["type"] == "Resource":
            target = metric["resource"]["target"]["averageUtilization"] / 100
            targets[metric["resource"]["name"]] = target
        else:
            pods = metric["pods"]
            targets[pods["metric"]["name"]] = float(pods["target"]["averageValue"])
    if unknown := targets.keys() - {CPU, QUEUE, REQUESTS}:
        raise ValueError(f"{path}: expected the metrics {CPU}, {QUEUE}, {REQUESTS}, got {unknown}")
    up, down = (
        Direction(
            rule["stabilizationWindowSeconds"],
            tuple(Policy(p["type"], p["value"], p["periodSeconds"]) for p in rule["policies"]),
        )
        for rule in rules
    )
    return Hpa(spec["minReplicas"], spec["maxReplicas"], targets, up, down)


def wanted(
    current: int, samples: Sequence[float], unready: int, missing: int, target: float
) -> int:
    """Pods that one metric asks for, from its values of ready pods.

    Pods without a value count as nought where more are wanted, and as the target where fewer are;
    those that are not ready yet count as nought where more are wanted.
    """
    if not samples:
        return current
    ratio = fmean(samples) / target
    counted = list(samples)
    if ratio > 1:
        counted += [0.0] * (unready + missing)
    elif ratio < 1:
        counted += [target] * missing
    new_ratio = fmean(counted) / target
    if abs(new_ratio - 1) <= TOLERANCE or (ratio > 1) != (new_ratio > 1):
        return current
    pods = math.ceil(new_ratio * len(counted))
    with_more = len(counted) > len(samples)
    if with_more and (pods < current if new_ratio > 1 else pods > current):
        return current
    return pods


class Autoscaler:
    """What becomes of the pods that the metrics ask for: windows, policies, bounds."""

    def __init__(self, hpa: Hpa) -> None:
        self._hpa = hpa
        self._recommended: list[tuple[float, int]] = []
        self._changes: list[tuple[float, int]] = []

    def decide(self, now_s: float, current: int, recommended: int) -> int:
        """The number of pods from now on."""
        up, down = self._hpa.up, self._hpa.down
        self._recommended.append((now_s, recommended))
        up_to = min(self._within(up.window_s, now_s))
        down_to = max(self._within(down.window_s, now_s))
        pods = min(max(current, up_to), down_to)
        if pods > current:
            limit = max(self._limit(policy, now_s, current, 1) for policy in up.policies)
            pods = min(pods, max(limit, current), self._hpa.max_pods)
        elif pods < current:
            limit = min(self._limit(policy, now_s, current, -1) for policy in down.policies)
            pods = max(pods, min(limit, current), self._hpa.min_pods)
        self._changes.append((now_s, pods - current))
        return pods

    def _within(self, window_s: int, now_s: float) -> list[int]:
        *earlier, (_, latest) = self._recommended
        return [latest, *(pods for at_s, pods in earlier if at_s > now_s - window_s)]

    def _limit(self, policy: Policy, now_s: float, current: int, sign: int) -> int:
        changes = (change for at_s, change in self._changes if at_s > now_s - policy.period_s)
        at_start = current - sum(changes)
        if policy.kind == "Pods":
            return at_start + sign * policy.value
        share = at_start * (1 + sign * policy.value / 100)
        return math.ceil(share) if sign > 0 else int(share)


@dataclass
class Pod:
    """Some servers, and one bounded queue before them."""

    created_s: float
    queue_limit: int
    free_s: list[float]
    """When each server will have done what it was given: a heap."""
    starts_s: "deque[float]" = field(default_factory=deque)
    """When each request that waits will begin."""
    work_s: float = 0.0
    requests: int = 0
    ready_s: float = math.inf
    scrapes: list[tuple[float, int, int]] = field(default_factory=list)
    """Time, images that wait, requests so far."""
    cpu: float | None = None
    busy_s: float = 0.0

    def arrive(self, now_s: float, service_s: float) -> float | None:
        """Seconds until a request is answered; None where it is refused."""
        self.requests += 1
        begins_s = self.free_s[0]
        if begins_s <= now_s:
            begins_s = now_s
        elif self.waiting(now_s) >= self.queue_limit:
            return None
        else:
            self.starts_s.append(begins_s)
        heapreplace(self.free_s, begins_s + service_s)
        self.work_s += service_s
        return begins_s + service_s - now_s

    def waiting(self, now_s: float) -> int:
        """Requests in the queue."""
        starts_s = self.starts_s
        while starts_s and starts_s[0] <= now_s:
            starts_s.popleft()
        return len(starts_s)

    def measure_cpu(self, now_s: float) -> None:
        """What the metrics server does: CPU time since it last looked."""
        to_do_s = sum(max(0.0, free_s - now_s) for free_s in self.free_s)
        busy_s = self.work_s - to_do_s
        # A window from before it was ready does not count.
        if self.ready_s <= now_s - SCRAPE_S:
            self.cpu = (busy_s - self.busy_s) / SCRAPE_S / len(self.free_s)
        self.busy_s = busy_s

    def scrape(self, now_s: float) -> None:
        """What Prometheus does."""
        self.scrapes.append((now_s, self.waiting(now_s), self.requests))
        del self.scrapes[: -round(ADAPTER_WINDOW_S / SCRAPE_S)]

    def metric(self, name: str) -> float | None:
        """What the HPA is told of it."""
        if name == CPU:
            return self.cpu
        if name == QUEUE:
            return fmean(depth for _, depth, _ in self.scrapes) if self.scrapes else None
        if len(self.scrapes) < 2:
            return None
        (first_s, _, first), (last_s, _, last) = self.scrapes[0], self.scrapes[-1]
        return (last - first) / (last_s - first_s)


@dataclass(frozen=True)
class Service:
    """What a pod can do, and how long it takes to start."""

    images_per_s: float
    queue_limit: int = 256 * POD_CPUS
    start_s: float = POD_START_S
    servers: int = POD_CPUS


@dataclass(frozen=True)
class Scenario:
    """A load over time."""

    name: str
    seconds: int
    load: Callable[[float], float]
    """By the second, in pods that it would keep entirely busy."""
    runs: int = 1
    """With other random numbers, and other moments at which the HPA and its metrics look."""


@dataclass
class Outcome:
    """What clients and the bill have seen; one row an observation of OBSERVE_S seconds."""

    offered: int = 0
    refused: int = 0
    latencies_s: list[np.ndarray[tuple[int], np.dtype[np.float32]]] = field(default_factory=list)
    rows: list[tuple[float, float, float, int, int]] = field(default_factory=list)
    """Time, requests/s, refused requests/s, pods, pods that are ready."""
    pod_s: float = 0.0

    def add(self, other: "Outcome") -> None:
        """Count another run's requests and pods, too; the rows stay those of the first."""
        self.offered += other.offered
        self.refused += other.refused
        self.latencies_s += other.latencies_s
        self.pod_s += other.pod_s

    def p99_ms(self) -> float:
        """Of all answers."""
        return float(np.percentile(np.concatenate(self.latencies_s), 99)) * 1000

    def late(self) -> float:
        """The share of requests that were answered after the objective."""
        return sum(int((some > OBJECTIVE_S).sum()) for some in self.latencies_s) / self.offered


class Simulation:
    """One scenario with one HPA; everything random comes from one seed."""

    def __init__(
        self, scenario: Scenario, service: Service, hpa: Hpa | None, pods: int, seed: int = 0
    ) -> None:
        self.outcome = Outcome()
        self._env = simpy.Environment()
        self._scenario = scenario
        self._service = service
        self._random = np.random.default_rng(seed)
        self._latencies_s: list[float] = []
        self._pods = [self._new_pod(-3600, ready_s=-3600) for _ in range(pods)]
        cpu_s, scrape_s, sync_s = self._random.uniform(0, SYNC_S, 3)
        self._env.process(self._every(SCRAPE_S, cpu_s, self._measure_cpu))
        self._env.process(self._every(SCRAPE_S, scrape_s, self._scrape))
        self._env.process(self._every(OBSERVE_S, OBSERVE_S, self._observe))
        self._env.process(self._every(TICK_S, TICK_S, self._clients))
        if hpa is not None:
            self._hpa, self._autoscaler = hpa, Autoscaler(hpa)
            self._env.process(self._every(SYNC_S, sync_s, self._synchronise))

    def run(self) -> Outcome:
        """Simulate it all."""
        self._env.run(self._scenario.seconds + TICK_S / 2)
        return self.outcome

    def _every(self, period_s: float, first_s: float, act: Callable[[], None]) -> Process:
        yield self._env.timeout(first_s)
        while True:
            act()
            yield self._env.timeout(period_s)

    def _new_pod(self, created_s: float, ready_s: float = math.inf) -> Pod:
        servers = [0.0] * self._service.servers
        return Pod(created_s, self._service.queue_limit, servers, ready_s=ready_s)

    def _start(self, pod: Pod) -> Process:
        yield self._env.timeout(self._service.start_s)
        pod.ready_s = self._env.now
        pod.free_s = [self._env.now] * self._service.servers

    def _ready(self) -> list[Pod]:
        return [pod for pod in self._pods if pod.ready_s <= self._env.now]

    def _clients(self) -> None:
        """All requests of the last tick."""
        end_s = self._env.now
        rate = self._scenario.load(end_s) * self._service.images_per_s
        count = self._random.poisson(rate * TICK_S)
        ready = self._ready()
        arrivals = np.sort(self._random.uniform(end_s - TICK_S, end_s, count)).tolist()
        mean_s = self._service.servers / self._service.images_per_s
        services = self._random.exponential(mean_s, count).tolist()
        chosen = self._random.integers(len(ready), size=count).tolist()
        for arrival_s, service_s, number in zip(arrivals, services, chosen, strict=True):
            latency_s = ready[number].arrive(arrival_s, service_s)
            if latency_s is None:
                self.outcome.refused += 1
            else:
                self._latencies_s.append(latency_s)
        self.outcome.offered += count
        self.outcome.pod_s += len(self._pods) * TICK_S

    def _observe(self) -> None:
        refused = self.outcome.refused - sum(row[2] * OBSERVE_S for row in self.outcome.rows)
        offered = len(self._latencies_s) + refused
        self.outcome.latencies_s.append(np.array(self._latencies_s, np.float32))
        self._latencies_s.clear()
        counts = len(self._pods), len(self._ready())
        rates = offered / OBSERVE_S, refused / OBSERVE_S
        self.outcome.rows.append((self._env.now, *rates, *counts))

    def _running(self) -> list[Pod]:
        return [pod for pod in self._pods if pod.created_s <= self._env.now - PENDING_S]

    def _measure_cpu(self) -> None:
        for pod in self._running():
            pod.measure_cpu(self._env.now)

    def _scrape(self) -> None:
        for pod in self._running():
            pod.scrape(self._env.now)

    def _synchronise(self) -> None:
        """What the HPA's controller does every 15 seconds."""
        current, running = len(self._pods), self._running()
        proposals = []
        for name, target in self._hpa.targets.items():
            values = [pod.metric(name) for pod in running]
            samples = [value for value in values if value is not None]
            # Of CPU, a pod in its first minutes without a value counts as one that is not ready.
            missing = 0 if name == CPU else len(running) - len(samples)
            unready = current - len(samples) - missing
            proposals.append(wanted(current, samples, unready, missing, target))
        pods = self._autoscaler.decide(self._env.now, current, max(proposals))
        for _ in range(pods - current):
            self._pods.append(self._new_pod(self._env.now))
            self._env.process(self._start(self._pods[-1]))
        del self._pods[pods:]  # the youngest go; what they have taken, they answer


def day(now_s: float) -> float:
    """A day in two hours: from half a pod's work at night to that of five."""
    return 0.5 + 4.5 * (1 - math.cos(2 * math.pi * now_s / DAY.seconds)) / 2


def crowd(now_s: float) -> float:
    """Five times as much within a minute, for five minutes; and once more four minutes later."""
    times_s = 300, 360, 660, 720, 960, 1020, 1320, 1380
    return float(np.interp(now_s, times_s, (1.5, 7.5, 7.5, 1.5) * 2))


DAY = Scenario("day", 7200, day)
CROWD = Scenario("flash crowd", 2100, crowd, runs=4)


def alternatives(hpa: Hpa, service: Service) -> dict[str, tuple[Hpa | None, Service]]:
    """What is compared: the shipped settings, and these with one thing changed."""

    def without(*names: str) -> Hpa:
        targets = {name: target for name, target in hpa.targets.items() if name not in names}
        return replace(hpa, targets=targets)

    def aiming(name: str, target: float, of: Hpa = hpa) -> Hpa:
        return replace(of, targets={**of.targets, name: target})

    def down_after(window_s: int) -> Hpa:
        return replace(hpa, down=replace(hpa.down, window_s=window_s))

    def up_by(policy: Policy) -> Hpa:
        return replace(hpa, up=replace(hpa.up, policies=(policy,)))

    for_objective = math.floor(OBJECTIVE_S * service.images_per_s / POD_CPUS)
    requests = float(f"{UTILISATION * service.images_per_s:.2g}")
    hpas: dict[str, Hpa | None] = {
        **{f"CPU {percent} %": aiming(CPU, percent / 100) for percent in (50, 60, 70, 80, 90)},
        **{f"queue depth {depth}": aiming(QUEUE, depth) for depth in (8, 16, 32, 64)},
        "no queue depth": without(QUEUE),
        f"no queue depth, requests {requests:g}/s": aiming(REQUESTS, requests, without(QUEUE)),
        f"requests {requests:g}/s": aiming(REQUESTS, requests),
        "up by 200 % in 15 s": up_by(Policy("Percent", 200, 15)),
        "up by 4 pods in 15 s": up_by(Policy("Pods", 4, 15)),
        **{f"down after {window_s} s": down_after(window_s) for window_s in (60, 300, 600)},
        **{f"at least {pods} pods": replace(hpa, min_pods=pods) for pods in (2, 3, 5)},
        "no autoscaler": None,
    }
    return {
        "**as shipped**": (hpa, service),
        **{name: (changed, service) for name, changed in hpas.items() if changed != hpa},
        f"{for_objective} may wait in a worker": (
            hpa,
            replace(service, queue_limit=for_objective * POD_CPUS),
        ),
        "a pod takes 90 s to start": (hpa, replace(service, start_s=90)),
    }


def simulate(scenario: Scenario, hpa: Hpa | None, service: Service, shipped: Hpa) -> Outcome:
    """All runs, each from the pods that the load at the start wants."""
    first = hpa or shipped
    pods = max(first.min_pods, math.ceil(scenario.load(0) / first.targets[CPU]))
    outcome, *others = (
        Simulation(scenario, service, hpa, pods, seed).run() for seed in range(scenario.runs)
    )
    for other in others:
        outcome.add(other)
    return outcome


def oracle(scenario: Scenario, now_s: float) -> int:
    """Pods of one who knows the load beforehand: the fewest that are at most 90 % busy."""
    return math.ceil(scenario.load(now_s) / ORACLE_UTILISATION)


def cells(scenario: Scenario, outcome: Outcome) -> list[str]:
    """One setting's part of the table."""
    oracle_s = sum(oracle(scenario, now_s) for now_s in range(scenario.seconds))
    return [
        f"{outcome.p99_ms():,.0f}",
        f"{outcome.late():.2%}",
        f"{outcome.refused / outcome.offered:.2%}",
        f"{outcome.pod_s / oracle_s / scenario.runs:.2f}",
    ]


def described(hpa: Hpa, service: Service) -> str:
    """What was simulated, in one sentence."""
    targets = ", ".join(f"{name} {target:g}" for name, target in hpa.targets.items())
    steps = " or ".join(f"{p.value} {p.kind} in {p.period_s} s" for p in hpa.down.policies)
    return (
        f"Shipped: {targets}; {hpa.min_pods} to {hpa.max_pods} pods; up after {hpa.up.window_s} s, "
        f"down after {hpa.down.window_s} s by {steps}. "
        f"A pod answers {service.images_per_s:g} images/s and starts in {service.start_s:g} s."
    )


def table(outcomes: Mapping[str, Sequence[Outcome]], head: str) -> str:
    """All settings, a day and a flash crowd beside each other."""
    figures = ("p99, ms", f"later than {OBJECTIVE_S:g} s", "503", "pod-hours, oracle 1")
    titles = [f"{s.name}: {figure}" for s in (DAY, CROWD) for figure in figures]
    rows = [["", *titles]]
    for name, (of_day, of_crowd) in outcomes.items():
        rows.append([name, *cells(DAY, of_day), *cells(CROWD, of_crowd)])
    return f"{head}\n\n{markdown(rows)}"


def draw(of_scenarios: Sequence[tuple[Scenario, Outcome]], service: Service) -> None:
    """Load, pods and p99 over time, with the shipped settings."""
    mpl.use("agg")
    figure, axes = plt.subplots(3, 2, figsize=(10, 7), sharex="col", layout="constrained")
    for (load, pods, p99), (scenario, outcome) in zip(axes.T, of_scenarios, strict=True):
        now_s, offered, refused, all_pods, ready = np.array(outcome.rows).T
        minutes, first_s = now_s / 60, outcome.latencies_s[: len(now_s)]
        load.set_title(scenario.name)
        load.plot(minutes, offered, label="requests/s")
        load.plot(minutes, ready * service.images_per_s, label="capacity of the ready pods")
        load.fill_between(minutes, refused, color="tab:red", label="503")
        pods.step(minutes, all_pods, where="pre", label="pods")
        pods.step(minutes, [oracle(scenario, at_s) for at_s in now_s], label="an oracle's")
        p99.plot(minutes, [np.percentile(some, 99) for some in first_s], label="p99, s")
        p99.axhline(OBJECTIVE_S, color="gray", linestyle=":", label="objective")
        p99.set(yscale="log", xlabel="minutes")
        p99.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        p99.yaxis.set_major_formatter("{x:g}")
        p99.yaxis.set_minor_formatter("{x:g}")
        for axis in (load, pods, p99):
            axis.grid(visible=True, alpha=0.2)
            axis.legend(fontsize=8)
    figure.savefig(PICTURE, dpi=100)
    plt.close(figure)


def main() -> None:
    """Simulate all of it on all CPUs."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.autoscaling", description=__doc__)
    parser.add_argument("--write", action="store_true", help="into the document, with a picture")
    arguments = parser.parse_args()
    hpa, service = read_hpa(), measured_service()
    compared = alternatives(hpa, service)
    with ProcessPoolExecutor() as processes:
        futures = {
            name: [
                processes.submit(simulate, scenario, *settings, hpa) for scenario in (DAY, CROWD)
            ]
            for name, settings in compared.items()
        }
        outcomes = {name: [future.result() for future in pair] for name, pair in futures.items()}
    result = table(outcomes, described(hpa, service))
    print(result)
    if arguments.write:
        fill(DOCUMENT, "autoscaling", result)
        draw(list(zip((DAY, CROWD), outcomes["**as shipped**"], strict=True)), service)


def measured_service() -> Service:
    """A pod that answers photos to VGG16, as it was measured, to three digits."""
    return Service(float(f"{images_per_s(read(), MIX):.3g}"))


if __name__ == "__main__":
    main()
