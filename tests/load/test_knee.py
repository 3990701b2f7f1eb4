from tests.load.knee import Step, find_knee
from tests.load.objectives import Objectives

OBJECTIVES = Objectives(max_error_ratio=0.001, max_p99_ms={"small": 250, "large": 1000})


def step(users: int, requests_per_s: float, p99_ms: float = 20, error_ratio: float = 0) -> Step:
    return Step(users, requests_per_s, {"small": p99_ms}, error_ratio)


def test_load_that_never_saturates_has_no_knee() -> None:
    steps = [step(10, 100), step(20, 200), step(30, 290), step(40, 370)]
    assert find_knee(steps, OBJECTIVES) is None


def test_knee_is_the_last_step_that_still_gained() -> None:
    steps = [step(10, 100), step(20, 195), step(30, 205), step(40, 206)]
    knee = find_knee(steps, OBJECTIVES)
    assert knee is not None
    assert knee.capacity == steps[1]
    assert "with 30 users there are +10 requests/s, of 98" in knee.reason


def test_throughput_that_falls_ends_the_search() -> None:
    steps = [step(10, 100), step(20, 60)]
    knee = find_knee(steps, OBJECTIVES)
    assert knee is not None
    assert knee.capacity == steps[0]


def test_p99_over_its_objective_is_the_knee_though_throughput_grows() -> None:
    steps = [step(10, 100), step(20, 200, p99_ms=251)]
    knee = find_knee(steps, OBJECTIVES)
    assert knee is not None
    assert knee.capacity == steps[0]
    assert "p99 of small models is 251 ms" in knee.text()


def test_each_cost_has_its_own_objective() -> None:
    slow = Step(20, 200, {"small": 200, "large": 900}, 0)
    assert find_knee([step(10, 100), slow], OBJECTIVES) is None
    slower = Step(20, 200, {"small": 200, "large": 1100}, 0)
    assert find_knee([step(10, 100), slower], OBJECTIVES) is not None


def test_errors_are_the_knee() -> None:
    knee = find_knee([step(10, 100), step(20, 200, error_ratio=0.01)], OBJECTIVES)
    assert knee is not None
    assert "error ratio is 0.0100" in knee.reason


def test_first_step_that_is_too_much_leaves_no_capacity() -> None:
    knee = find_knee([step(10, 100, p99_ms=900)], OBJECTIVES)
    assert knee is not None
    assert knee.capacity is None
    assert knee.text().startswith("capacity: below the first step")


def test_gain_that_counts_can_be_chosen() -> None:
    steps = [step(10, 100), step(20, 150)]
    assert find_knee(steps, OBJECTIVES, min_gain=0.4) is None
    assert find_knee(steps, OBJECTIVES, min_gain=0.6) is not None
