"""The autoscaler's rules against those of Kubernetes, and the settings that are shipped."""

from pathlib import Path

import pytest
import yaml

from tests.bench.hpa import (
    CPU,
    HPA_FILE,
    QUEUE,
    REQUESTS,
    Autoscaler,
    Direction,
    Hpa,
    Policy,
    read_hpa,
    wanted,
)

HPA = Hpa(
    min_pods=2,
    max_pods=20,
    targets={CPU: 0.7, QUEUE: 16},
    up=Direction(0, (Policy("Percent", 100, 15), Policy("Pods", 4, 15))),
    down=Direction(300, (Policy("Percent", 20, 60), Policy("Pods", 1, 60))),
)


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
