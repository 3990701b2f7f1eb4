import numpy as np
import pytest

from service.inference.job import Job, Unfinished
from service.tasks.denoising import Denoising, Picture
from tests.service.inference.test_pieces import TILE, denoiser_of, doubled


@pytest.fixture
def task() -> Denoising:
    return denoiser_of()


@pytest.mark.parametrize("tiles", [1, 2, 5])
def test_each_advance_is_one_call_of_the_engine(task: Denoising, tiles: int) -> None:
    image = np.full((8, TILE + (tiles - 1) * (TILE - 8), 1), 40, np.uint8)
    job = Job(task, Picture(image))
    for _ in range(tiles - 1):
        piece = job.advance(doubled)
        assert isinstance(piece, Unfinished)
        assert piece.share == pytest.approx(1 / tiles)
    np.testing.assert_array_equal(job.advance(doubled), 2 * image)


def test_engine_that_fails_fails_the_job(task: Denoising) -> None:
    job = Job(task, Picture(np.zeros((8, 8, 1), np.uint8)))
    with pytest.raises(ZeroDivisionError):
        job.advance(lambda _: {"clean": 1 / 0})  # type: ignore[dict-item]
