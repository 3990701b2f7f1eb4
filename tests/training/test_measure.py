"""What engines cost: engines that answer as told, and how that is judged."""

import time

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="engines are made with TensorFlow")

from service.artifacts.manifest import Device, EngineName
from service.engines.engine import Engine as RunningEngine
from service.engines.engine import Tensors
from service.pixels.preprocess import Floats
from service.pixels.spec import Tiling
from training import measure
from training.errors import ExportError
from training.tasks import Classification, Denoising

CLASSIFICATION = Classification(("a", "b", "c"))
DENOISING = Denoising(Tiling(multiple=4, tile=64, halo=8))
TRUTH = np.array([0, 1, 2, 0])
RIGHT = np.eye(3, dtype=np.float32)[TRUTH]
IMAGES = np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1)


class ToldEngine:
    """Answers image number n with answer number n, after a while."""

    device: Device = "cpu"
    fixed_sizes = False

    def __init__(self, answers: Floats, seconds_an_image: float = 0.0) -> None:
        self.name: EngineName = "litert"
        self._answers, self._seconds = answers, seconds_an_image

    def predict(self, batch: Tensors) -> dict[str, Floats]:
        images = batch["image"]
        time.sleep(self._seconds * len(images))
        answers: Floats = self._answers[images[:, 0, 0, 0].astype(int)]
        return {"probabilities": answers, "image": answers}


def measured(**engines: RunningEngine) -> measure.Engines:
    named: dict[EngineName, RunningEngine] = {"keras": ToldEngine(RIGHT), **engines}  # type: ignore[dict-item]
    return measure.measure(named, IMAGES, TRUTH, CLASSIFICATION)


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "TIMED_ROUNDS", 2)


def test_engine_is_compared_with_keras_and_with_the_truth() -> None:
    answers = RIGHT.copy()
    answers[3] = [0.4, 0.6, 0.0]  # once the wrong label
    engine = measured(litert=ToldEngine(answers))["litert"]
    assert engine.max_abs_difference == pytest.approx(0.6)
    assert engine.quality == {"label_agreement": 0.75, "accuracy": 0.75}


def test_engine_that_answers_no_numbers_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    broken = np.where(RIGHT == 1, np.float32(np.nan), RIGHT)
    assert list(measured(litert=ToldEngine(broken))) == ["keras"]
    assert "No litert: some of its outputs are NaN or infinite" in capsys.readouterr().out


def test_network_that_answers_no_numbers_is_refused() -> None:
    broken = ToldEngine(np.full_like(RIGHT, np.inf))
    with pytest.raises(ExportError, match="expected finite outputs from the network"):
        measure.measure({"keras": broken}, IMAGES, TRUTH, CLASSIFICATION)


def test_every_engine_is_timed_with_every_batch_that_the_fastest_takes_in_time() -> None:
    engines = measured(litert=ToldEngine(RIGHT, seconds_an_image=0.02))
    for engine in engines.values():
        assert list(engine.milliseconds) == ["1", "8", "32"]
    assert engines["litert"].milliseconds["8"] >= 160


def test_batches_that_take_all_engines_too_long_are_not_timed() -> None:
    engines = measure.measure({"keras": ToldEngine(RIGHT, 0.1)}, IMAGES, TRUTH, CLASSIFICATION)
    for engine in engines.values():
        assert list(engine.milliseconds) == ["1"]


def test_denoiser_is_judged_by_its_images() -> None:
    clean = np.full((4, 2, 2, 1), 0.5, np.float32)
    engines = measure.measure(
        {"keras": ToldEngine(clean), "litert": ToldEngine(clean + np.float32(0.1))},
        IMAGES,
        clean,
        DENOISING,
    )
    assert engines["litert"].quality == {"psnr_db": pytest.approx(20, abs=0.2)}
    assert engines["keras"].quality["psnr_db"] > 40
