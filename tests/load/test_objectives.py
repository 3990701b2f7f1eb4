from dataclasses import replace

import pytest

from tests.load.objectives import Measured, Objectives, judge, judge_throughput, percentile, table

GOOD = Measured(
    requests=2000,
    failures=1,
    overloaded=1,
    wrong=0,
    crashes=0,
    requests_per_s=50,
    times_ms={"small": {5: 1900, 240: 50}, "large": {800: 49}},
)
OBJECTIVES = Objectives(
    max_error_ratio=0.001, max_p99_ms={"small": 250, "large": 1000}, min_requests_per_s=40
)


def failed(measured: Measured) -> list[str]:
    return [each.objective for each in judge(measured, OBJECTIVES) if not each.passed]


def test_run_that_keeps_everything_passes() -> None:
    assert failed(GOOD) == []


@pytest.mark.parametrize(
    ("bad", "objective"),
    [
        (replace(GOOD, failures=3), "error ratio"),
        (replace(GOOD, wrong=1), "wrong answers"),
        (replace(GOOD, crashes=1), "crashes of the load test"),
        (replace(GOOD, requests_per_s=39.9), "requests/s"),
        (replace(GOOD, times_ms={"small": {5: 90, 260: 10}}), "p99, small models"),
        (replace(GOOD, times_ms={"large": {1100: 1}}), "p99, large models"),
        (replace(GOOD, requests=0, failures=0), "requests"),
    ],
)
def test_each_objective_fails_on_its_own(bad: Measured, objective: str) -> None:
    assert failed(bad) == [objective]


def test_no_answer_at_all_is_never_enough() -> None:
    assert not judge_throughput(0.0, at_least=0.0).passed


def test_cost_without_an_objective_is_not_judged() -> None:
    assert failed(replace(GOOD, times_ms={"denoising": {9000: 5}})) == []


def test_percentile_is_the_least_time_within_which_the_share_lies() -> None:
    assert percentile({1: 98, 7: 1, 90: 1}, 0.99) == 7
    assert percentile({1: 98, 7: 1, 90: 1}, 1.0) == 90
    assert percentile({3: 1}, 0.99) == 3


def test_table_shows_limit_measured_and_verdict() -> None:
    lines = table(judge(replace(GOOD, wrong=2), OBJECTIVES)).splitlines()
    assert lines[0].split() == ["objective", "limit", "measured"]
    assert ["wrong", "answers", "0", "2", "FAIL"] in [line.split() for line in lines]
