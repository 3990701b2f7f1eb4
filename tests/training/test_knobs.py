"""What is compared: one knob at a time."""

from dataclasses import fields

import pytest

from training.knobs import KNOBS, Setting, option_name, read_comparison, settings_of

BASE = Setting()


@pytest.mark.parametrize("knob", KNOBS)
def test_settings_of_a_knob_differ_in_it_alone(knob: str) -> None:
    others = [field.name for field in fields(Setting) if field.name != knob]
    settings = settings_of(knob, BASE)
    assert BASE in settings
    assert len({getattr(setting, knob) for setting in settings}) == len(settings) >= 3
    for setting in settings:
        assert all(getattr(setting, name) == getattr(BASE, name) for name in others)


@pytest.mark.parametrize(("epochs", "tried"), [(1, [1, 2]), (2, [1, 2, 4]), (40, [10, 20, 40, 80])])
def test_epochs_are_a_quarter_half_and_twice_those_asked_for(epochs: int, tried: list[int]) -> None:
    settings = settings_of("epochs", Setting(epochs=epochs))
    assert [setting.epochs for setting in settings] == tried


def test_all_knobs_are_compared_unless_one_is_named() -> None:
    assert read_comparison([]).knobs == KNOBS
    assert [read_comparison(["--only", option_name(knob)]).knobs for knob in KNOBS] == [
        (knob,) for knob in KNOBS
    ]


@pytest.mark.parametrize("option", ["--images", "--epochs", "--seeds"])
def test_numbers_below_one_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_comparison([option, "0"])
    assert "expected a whole number of at least 1, got '0'" in capsys.readouterr().err
