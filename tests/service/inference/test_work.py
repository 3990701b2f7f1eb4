import pytest

from service.inference.work import SHORT_S, Work


def test_long_item_waits_for_all_that_is_before_it() -> None:
    work = Work()
    for cost_s in (3.0, SHORT_S, 2.0):
        work.add(cost_s)
    assert work.ahead_s(1.0) == pytest.approx(5 + SHORT_S)


def test_short_item_waits_for_the_short_ones_and_in_turns_for_as_much_of_the_long() -> None:
    work = Work()
    work.add(100.0)
    assert work.ahead_s(SHORT_S) == pytest.approx(SHORT_S)
    work.add(SHORT_S)
    assert work.ahead_s(SHORT_S) == pytest.approx(3 * SHORT_S)


def test_what_is_computed_or_dropped_is_ahead_no_more() -> None:
    work = Work()
    work.add(3.0)
    work.add(SHORT_S)
    work.done(3.0, 1.0)
    assert work.ahead_s(9.0) == pytest.approx(2 + SHORT_S)
    work.done(SHORT_S, SHORT_S)
    work.done(3.0, 2.0)
    assert work.ahead_s(9.0) == pytest.approx(0)
    work.done(3.0, 2.0)
    assert work.ahead_s(9.0) == 0


def test_nothing_is_ahead_once_it_is_cleared() -> None:
    work = Work()
    work.add(3.0)
    work.add(SHORT_S)
    work.clear()
    assert work.ahead_s(9.0) == 0


def test_predictions_follow_what_computations_take() -> None:
    work = Work()
    work.add(3.0)
    for _ in range(50):
        work.learn(1.0, 2.0)
    assert work.ahead_s(9.0) == pytest.approx(6, rel=1e-3)
    for _ in range(50):
        work.learn(1.0, 0.1)
    assert work.ahead_s(9.0) == 3  # never faster than on an idle machine


def test_one_computation_of_ten_moves_the_prediction_little() -> None:
    work = Work()
    work.learn(1.0, 1.5)
    assert 1 < work.slowdown < 1.2


def test_halt_of_the_machine_is_forgotten_soon() -> None:
    work = Work()
    work.learn(0.01, 1000.0)
    for _ in range(10):
        work.learn(0.01, 0.01)
    assert work.slowdown < 1.3


def test_what_was_not_predicted_teaches_nothing() -> None:
    work = Work()
    work.learn(0.0, 1.0)
    assert work.slowdown == 1
