"""The simulation: its queue against Erlang's formula, its HPA against Kubernetes's rules."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.bench.autoscaling import (
    CPU,
    CROWD,
    DOCUMENT,
    HPA_FILE,
    QUEUE,
    REQUESTS,
    Autoscaler,
    Direction,
    Hpa,
    Outcome,
    Pod,
    Policy,
    Scenario,
    Service,
    Simulation,
    alternatives,
    described,
    measured_service,
    read_hpa,
    simulate,
    wanted,
)

HPA = Hpa(
    min_pods=2,
    max_pods=20,
    targets={CPU: 0.7, QUEUE: 16},
    up=Direction(0, (Policy("Percent", 100, 15), Policy("Pods", 4, 15))),
    down=Direction(300, (Policy("Percent", 20, 60), Policy("Pods", 1, 60))),
)
SMALL = Service(images_per_s=20)
ONCE = replace(CROWD, runs=1)


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


def test_more_pods_are_wanted_in_proportion() -> None:
    assert wanted(4, [0.9, 0.9, 0.9, 0.9], unready=0, missing=0, target=0.6) == 6
    assert wanted(4, [0.3, 0.3, 0.3, 0.3], unready=0, missing=0, target=0.6) == 2


def test_within_the_tolerance_nothing_is_wanted() -> None:
    assert wanted(10, [0.65] * 10, unready=0, missing=0, target=0.6) == 10
    assert wanted(10, [0.67] * 10, unready=0, missing=0, target=0.6) == 12


def test_starting_pods_count_as_idle_where_more_are_wanted() -> None:
    # Two at 150 % would want four; two that start are on their way.
    assert wanted(4, [0.9, 0.9], unready=2, missing=0, target=0.6) == 4
    assert wanted(3, [1.8, 1.8], unready=1, missing=0, target=0.6) == 6


def test_pods_without_a_value_count_as_busy_where_fewer_are_wanted() -> None:
    assert wanted(4, [0.3, 0.3], unready=0, missing=2, target=0.6) == 3
    assert wanted(4, [0.3] * 4, unready=0, missing=0, target=0.6) == 2


def test_pods_double_at_most() -> None:
    autoscaler = Autoscaler(HPA)
    assert autoscaler.decide(15, current=6, recommended=30) == 12
    assert autoscaler.decide(30, current=12, recommended=30) == 20  # the most there may be


def test_few_pods_grow_by_four() -> None:
    assert Autoscaler(HPA).decide(15, current=2, recommended=30) == 6


def test_fewer_pods_wait_for_the_window_and_then_go_slowly() -> None:
    autoscaler = Autoscaler(HPA)
    pods, numbers = 10, {}
    autoscaler.decide(0, pods, 10)
    for now_s in range(15, 481, 15):
        numbers[now_s] = pods = autoscaler.decide(now_s, pods, 2)
    assert {numbers[now_s] for now_s in range(15, 300, 15)} == {10}
    assert [numbers[now_s] for now_s in (300, 345, 360, 420, 480)] == [8, 8, 6, 4, 3]


def test_flash_crowd_is_refused_without_autoscaler() -> None:
    outcome = simulate(ONCE, None, SMALL, HPA)
    assert outcome.refused / outcome.offered > 0.3


def test_flash_crowd_is_answered_by_enough_pods() -> None:
    outcome = Simulation(CROWD, SMALL, None, pods=12).run()
    assert outcome.refused == 0
    assert outcome.late() < 0.001


def test_flash_crowd_is_followed_by_the_autoscaler() -> None:
    outcome = simulate(ONCE, HPA, SMALL, HPA)
    pods = {row[0]: row[3] for row in outcome.rows}
    assert pods[250] <= 4
    assert pods[600] >= 8  # the crowd is that of 7.5 pods
    assert outcome.refused / outcome.offered < 0.05
    assert outcome.pod_s == pytest.approx(sum(pods.values()) * 10, rel=0.02)


def test_runs_of_a_scenario_are_added_up() -> None:
    first, second = (Simulation(CROWD, SMALL, HPA, 3, seed).run() for seed in (0, 1))
    both = simulate(replace(CROWD, runs=2), HPA, SMALL, HPA)
    assert both.offered == first.offered + second.offered
    assert both.refused == first.refused + second.refused
    assert both.pod_s == pytest.approx(first.pod_s + second.pod_s)
    assert both.rows == first.rows != second.rows


def test_slow_pods_let_more_of_the_crowd_go() -> None:
    quick, slow = (
        simulate(ONCE, HPA, replace(SMALL, start_s=start_s), HPA) for start_s in (10, 120)
    )
    assert slow.refused > quick.refused


def test_same_settings_give_the_same_outcome() -> None:
    first, second = (simulate(ONCE, HPA, SMALL, HPA) for _ in range(2))
    assert first.rows == second.rows


def test_shipped_settings_are_read() -> None:
    hpa = read_hpa()
    assert hpa.targets.keys() == {CPU, QUEUE, REQUESTS}
    assert 2 <= hpa.min_pods < hpa.max_pods
    assert hpa.up.policies
    assert hpa.down.policies


def test_unknown_metric_is_refused(tmp_path: Path) -> None:
    shipped = yaml.safe_load(HPA_FILE.read_text())
    shipped["spec"]["metrics"][1]["pods"]["metric"]["name"] = "vitrine_unknown"
    file = tmp_path / "hpa.yaml"
    file.write_text(yaml.safe_dump(shipped))
    with pytest.raises(ValueError, match="vitrine_unknown"):
        read_hpa(file)


def test_alternatives_differ_from_what_is_shipped() -> None:
    shipped, *others = alternatives(HPA, SMALL).values()
    assert shipped == (HPA, SMALL)
    assert shipped not in others
    assert len(others) >= 12


def test_document_shows_a_simulation_of_what_is_shipped() -> None:
    assert described(read_hpa(), measured_service()) in DOCUMENT.read_text()
