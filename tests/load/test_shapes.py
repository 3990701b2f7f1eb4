from tests.load.shapes import step_users, users_at


def users(shape: str) -> list[int]:
    return [users_at(shape, tenth / 10, 100) for tenth in range(11)]


def test_ramp_rises_evenly_and_holds() -> None:
    assert users("ramp") == [1, 13, 27, 40, 53, 67, 80, 93, 100, 100, 100]


def test_spike_is_the_middle_third() -> None:
    assert users("spike") == [10, 10, 10, 10, 100, 100, 100, 10, 10, 10, 10]


def test_soak_holds_all_users() -> None:
    assert users("soak") == [1, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100]


def test_somebody_is_always_there() -> None:
    assert users_at("spike", 0, 3) == 1


def test_steps_are_equal_and_end_at_the_peak() -> None:
    assert step_users(100, 4) == [25, 50, 75, 100]
    assert step_users(2, 4) == [1, 1, 2, 2]
