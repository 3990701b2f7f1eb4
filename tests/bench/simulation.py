"""Clients, pods and an autoscaler over time, as discrete events.

A pod is one queue before as many servers as it has CPUs; service times are exponential, every
request goes to a random ready pod, and nobody asks again after a 503.
"""

import math
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from heapq import heapreplace
from statistics import fmean
from typing import Any

import numpy as np
import simpy

from tests.bench.hpa import CPU, QUEUE, Autoscaler, Hpa, wanted
from tests.bench.pod import POD_CPUS
from tests.bench.sizing import POD_START_S

TICK_S = 0.2  # how often clients learn which pods are ready; arrivals lie anywhere within
SYNC_S = 15.0  # of the HPA's controller, by default
SCRAPE_S = 15.0  # of Prometheus and of the metrics server
ADAPTER_WINDOW_S = 60.0  # over which the adapter's queries average
PENDING_S = 5.0  # of a pod's start: until its containers run
OBSERVE_S = 10.0

Process = Generator[simpy.Event, Any, None]


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

    def late(self, objective_s: float) -> float:
        """The share of requests that were answered after the objective."""
        return sum(int((some > objective_s).sum()) for some in self.latencies_s) / self.offered


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
