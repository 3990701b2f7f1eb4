"""A simulated pod's queue against Erlang's formula, and what it tells of itself."""

import math

import numpy as np
import pytest

from tests.bench.hpa import CPU, QUEUE, REQUESTS
from tests.bench.simulation import Outcome, Pod, Scenario, Service, Simulation


def steady(load: float, service: Service, seconds: int = 2500) -> Outcome:
    """One pod under a constant load."""
    return Simulation(Scenario("steady", seconds, lambda _: load), service, None, 1).run()


def erlang_c(servers: int, busy: float) -> float:
    """The probability that a request has to wait, at `busy` of all servers' time."""
    offered = servers * busy
    all_busy = offered**servers / math.factorial(servers) / (1 - busy)
    return all_busy / (sum(offered**n / math.factorial(n) for n in range(servers)) + all_busy)


@pytest.mark.parametrize("servers", [1, 2, 4])
@pytest.mark.parametrize("busy", [0.5, 0.8])
def test_time_in_a_pod_is_that_of_erlang(servers: int, busy: float) -> None:
    service = Service(images_per_s=100, queue_limit=10_000, servers=servers)
    mean_s = float(np.concatenate(steady(busy, service).latencies_s).mean())
    service_s = servers / 100
    expected_s = service_s + erlang_c(servers, busy) / (100 * (1 - busy))
    assert mean_s == pytest.approx(expected_s, rel=0.05)


def test_full_pod_refuses_what_it_cannot_do() -> None:
    outcome = steady(2.0, Service(images_per_s=100, queue_limit=50), seconds=500)
    assert outcome.refused / outcome.offered == pytest.approx(0.5, abs=0.02)
    assert outcome.p99_ms() < 1000  # 50 that wait and 2 that are served, at 100/s


def test_pod_queues_in_order_and_up_to_its_limit() -> None:
    pod = Pod(created_s=0, queue_limit=1, free_s=[0.0, 0.0])
    assert pod.arrive(1.0, 2.0) == pytest.approx(2.0)
    assert pod.arrive(1.0, 4.0) == pytest.approx(4.0)
    assert pod.arrive(2.0, 1.0) == pytest.approx(2.0)  # begins at 3, when the first is done
    assert pod.arrive(2.5, 1.0) is None
    assert (pod.waiting(2.5), pod.waiting(3.0)) == (1, 0)


def test_pod_tells_its_cpu_time_of_the_last_window() -> None:
    pod = Pod(created_s=0, queue_limit=10, free_s=[0.0, 0.0], ready_s=0)
    pod.arrive(5.0, 20.0)
    pod.measure_cpu(15.0)
    assert pod.metric(CPU) == pytest.approx(10 / 30)
    pod.measure_cpu(30.0)
    assert pod.metric(CPU) == pytest.approx(10 / 30)
    pod.measure_cpu(45.0)
    assert pod.metric(CPU) == 0


def test_pod_tells_refused_requests_as_demand() -> None:
    pod = Pod(created_s=0, queue_limit=1, free_s=[0.0])
    pod.scrape(0.0)
    assert pod.metric(REQUESTS) is None  # a rate takes two scrapes
    for _ in range(30):
        pod.arrive(1.0, 60.0)
    pod.scrape(15.0)
    assert pod.metric(REQUESTS) == pytest.approx(2.0)
    assert pod.metric(QUEUE) == pytest.approx(0.5)
