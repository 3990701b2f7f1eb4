"""The scenarios: what a day and a flash crowd come to with and without an autoscaler."""

from dataclasses import replace

import pytest

from tests.bench.autoscaling import (
    CROWD,
    DOCUMENT,
    OBJECTIVE_S,
    alternatives,
    described,
    measured_service,
    simulate,
)
from tests.bench.hpa import read_hpa
from tests.bench.simulation import Service, Simulation
from tests.bench.test_hpa import HPA

SMALL = Service(images_per_s=20)
ONCE = replace(CROWD, runs=1)


def test_flash_crowd_is_refused_without_autoscaler() -> None:
    outcome = simulate(ONCE, None, SMALL, HPA)
    assert outcome.refused / outcome.offered > 0.3


def test_flash_crowd_is_answered_by_enough_pods() -> None:
    outcome = Simulation(CROWD, SMALL, None, pods=12).run()
    assert outcome.refused == 0
    assert outcome.late(OBJECTIVE_S) < 0.001


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


def test_alternatives_differ_from_what_is_shipped() -> None:
    shipped, *others = alternatives(HPA, SMALL).values()
    assert shipped == (HPA, SMALL)
    assert shipped not in others
    assert len(others) >= 12


def test_document_shows_a_simulation_of_what_is_shipped() -> None:
    assert described(read_hpa(), measured_service()) in DOCUMENT.read_text()
