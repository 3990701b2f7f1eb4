import pytest

from training.statistics import wilson_interval


@pytest.mark.parametrize(
    ("share", "count", "interval"),
    [  # of the method's own closed form, to four digits
        (0.8, 10, (0.4902, 0.9433)),
        (0.5, 100, (0.4038, 0.5962)),
        (0.0, 20, (0.0, 0.1611)),
        (1.0, 20, (0.8389, 1.0)),
        (0.9060, 500, (0.8773, 0.9285)),
    ],
)
def test_interval_is_that_of_wilson(
    share: float, count: int, interval: tuple[float, float]
) -> None:
    assert wilson_interval(share, count) == pytest.approx(interval, abs=1e-4)


def test_no_trials_have_no_interval() -> None:
    with pytest.raises(ValueError, match="at least one trial, got 0"):
        wilson_interval(0.5, 0)
