"""What preprocessing can be written down as, and what is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from service.pixels.spec import Input, Scale


def spec(**changes: Any) -> Input:
    fields: dict[str, Any] = {
        "shape": (16, 16, 3),
        "color": "rgb",
        "resize": {"method": "cover"},
        "scale": {},
    }
    return Input.model_validate(fields | changes)


@pytest.mark.parametrize("method", ["keep", "cover", "contain", "stretch", "fashion-mnist"])
def test_every_method_of_resizing_survives_json(method: str) -> None:
    written = spec(resize={"method": method})
    assert Input.model_validate_json(written.model_dump_json()) == written


@pytest.mark.parametrize(
    ("color", "channels", "expected"), [("grey", 3, 1), ("rgb", 1, 3), ("bgr", 1, 3), ("bgr", 4, 3)]
)
def test_channels_are_those_of_the_color(color: str, channels: int, expected: int) -> None:
    message = f"expected {expected} channels of input for {color}, got {channels}"
    with pytest.raises(ValidationError, match=message):
        spec(shape=(16, 16, channels), color=color)


@pytest.mark.parametrize("name", ["mean", "deviation"])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_color_may_have_a_mean_and_a_deviation_for_each_channel(name: str, color: str) -> None:
    read = spec(color=color, scale={name: [0.5, 0.4, 0.3]})
    assert getattr(read.scale, name) == (0.5, 0.4, 0.3)


@pytest.mark.parametrize("name", ["mean", "deviation"])
def test_grey_has_one_mean_and_one_deviation(name: str) -> None:
    message = f"expected one {name} for the one channel of grey, got three"
    with pytest.raises(ValidationError, match=message):
        spec(shape=(16, 16, 1), color="grey", scale={name: [0.5, 0.4, 0.3]})


@pytest.mark.parametrize("deviation", [0, -1, "half", [0.2, 0, 0.2], [0.2, 0.2]])
def test_deviation_that_cannot_be_divided_by_is_refused(deviation: Any) -> None:
    with pytest.raises(ValidationError, match="deviation"):
        Scale.model_validate({"deviation": deviation})


@pytest.mark.parametrize("fill", [-1, 256])
def test_fill_is_a_grey_level(fill: int) -> None:
    with pytest.raises(ValidationError, match="fill"):
        spec(resize={"method": "contain", "fill": fill})
