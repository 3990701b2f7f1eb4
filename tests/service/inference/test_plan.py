import pytest

from service.inference.plan import HANDOVER_S, plan

SHORT_S, LONG_S = HANDOVER_S / 10, HANDOVER_S * 10


def test_everything_goes_to_the_thread_where_nothing_was_measured() -> None:
    assert [plan(waiting, {}) for waiting in (1, 2, 32)] == [(1, False), (2, False), (32, False)]


def test_long_batches_go_to_the_thread_as_one() -> None:
    assert plan(1, {1: LONG_S, 8: LONG_S}) == (1, False)
    assert plan(7, {1: LONG_S, 8: 8 * LONG_S}) == (7, False)


@pytest.mark.parametrize(("waiting", "size"), [(1, 1), (3, 3), (4, 4), (5, 4), (32, 4)])
def test_short_batches_stay_on_the_loop_in_short_pieces(waiting: int, size: int) -> None:
    each = HANDOVER_S / 4
    batch_s = {size: size * each for size in (1, 2, 4, 8, 16, 32)}
    assert plan(waiting, batch_s) == (size, True)


def test_engine_with_a_fixed_cost_per_call_gets_all_waiting_items_at_once() -> None:
    batch_s = {1: HANDOVER_S, 2: 1.1 * HANDOVER_S, 32: 2 * HANDOVER_S}
    assert plan(1, batch_s) == (1, True)
    assert plan(32, batch_s) == (32, False)


@pytest.mark.parametrize("shortest_s", [SHORT_S / 10, SHORT_S, HANDOVER_S, LONG_S])
@pytest.mark.parametrize("growth", [0, 0.1, 1])
def test_batch_is_never_larger_than_the_queue_nor_longer_on_the_loop_than_a_hand_over(
    shortest_s: float, growth: float
) -> None:
    batch_s = {size: shortest_s * (1 + growth * (size - 1)) for size in (1, 2, 4, 8, 16, 32)}
    for waiting in range(1, 33):
        size, inline = plan(waiting, batch_s)
        assert 1 <= size <= waiting
        if inline:
            assert shortest_s * (1 + growth * (size - 1)) <= HANDOVER_S
        else:
            assert size == waiting
