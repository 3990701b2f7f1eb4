import numpy as np
import pytest
from PIL import Image

from service.artifacts.manifest import read_manifest
from service.inference.costs import Costs
from service.tasks import TASKS
from service.tasks.denoising import Denoising, Picture
from tests.conftest import SHIPPED_MODELS


@pytest.fixture
def costs() -> Costs:
    """An image of 64x64 grey pixels has taken 2 s."""
    costs = Costs(Denoising(read_manifest(SHIPPED_MODELS / "denoiser" / "1", TASKS)))
    costs.measured(picture(64), 2.0)
    return costs


def picture(side: int) -> Picture:
    return Picture(np.zeros((side, side, 1), np.uint8))


def test_seconds_are_proportional_to_the_pixels(costs: Costs) -> None:
    assert costs.of_item(picture(64)) == pytest.approx(2)
    assert costs.of_item(picture(32)) == pytest.approx(0.5)


def test_opened_image_is_expected_to_take_what_its_item_takes(costs: Costs) -> None:
    assert costs.of_image(Image.new("L", (64, 64))) == pytest.approx(2)
    assert costs.of_image(Image.new("RGB", (64, 64))) > 2


def test_nothing_is_expected_before_an_item_was_measured() -> None:
    costs = Costs(Denoising(read_manifest(SHIPPED_MODELS / "denoiser" / "1", TASKS)))
    assert costs.of_item(picture(64)) == 0
