"""The choice among measured engines: the fastest of those that are right enough."""

import pytest

pytest.importorskip("tensorflow", reason="engines are made with TensorFlow")

from service.artifacts.manifest import Engine, EngineName, read_manifest
from service.pixels.spec import Tiling
from service.tasks import TASKS
from tests.conftest import SHIPPED_MODELS
from training.engines import choose
from training.errors import ExportError
from training.measure import Engines
from training.tasks import Classification, Denoising

CLASSIFICATION = Classification(("a", "b"))
DENOISING = Denoising(Tiling(multiple=4, tile=64, halo=8))
QUICK, SLOW = {"1": 1.0, "8": 4.0}, {"1": 2.0, "8": 16.0}


def engine(
    milliseconds: dict[str, float],
    accuracy: float = 0.9,
    agreement: float = 1.0,
    difference: float = 0.1,
) -> Engine:
    return Engine(
        max_abs_difference=difference,
        quality={"accuracy": accuracy, "label_agreement": agreement},
        milliseconds=milliseconds,
    )


def denoiser(milliseconds: dict[str, float], psnr_db: float) -> Engine:
    return Engine(max_abs_difference=0.1, quality={"psnr_db": psnr_db}, milliseconds=milliseconds)


def candidates(int8: Engine, half: Engine | None = None) -> Engines:
    return {
        "keras": engine(QUICK),
        "keras-half": half or engine(SLOW),
        "litert": engine(SLOW),
        "litert-int8": int8,
    }


@pytest.mark.parametrize(
    ("int8", "chosen"),
    [
        (engine(QUICK), "litert-int8"),
        (engine(QUICK, accuracy=0.8951, agreement=0.99), "litert-int8"),
        (engine(QUICK, accuracy=0.8949), "litert"),
        (engine(QUICK, agreement=0.9899), "litert"),
        (engine(QUICK, accuracy=0.99, agreement=0.95), "litert"),
        (engine({"1": 3.0, "8": 16.0}), "litert"),
    ],
)
def test_cpu_gets_the_fastest_that_is_right(int8: Engine, chosen: EngineName) -> None:
    assert choose(candidates(int8), CLASSIFICATION)["cpu"] == chosen


def test_export_ends_where_none_of_litert_is_right() -> None:
    wrong = engine(QUICK, accuracy=0.5)
    with pytest.raises(ExportError, match="quality of Keras, got only keras"):
        choose({"keras": engine(SLOW), "litert": wrong, "litert-int8": wrong}, CLASSIFICATION)


def test_every_batch_size_counts_alike() -> None:
    # Twice as fast alone, less than twice as slow in batches of 8.
    assert choose(candidates(engine({"1": 1.0, "8": 26.0})), CLASSIFICATION)["cpu"] == "litert-int8"
    assert choose(candidates(engine({"1": 1.0, "8": 34.0})), CLASSIFICATION)["cpu"] == "litert"


@pytest.mark.parametrize(
    ("times", "chosen"), [(1.05, "litert-dynamic-int8"), (1.15, "litert-int8")]
)
def test_of_engines_as_fast_as_each_other_the_most_exact_is_chosen(
    times: float, chosen: EngineName
) -> None:
    slower = engine({size: times * each for size, each in QUICK.items()}, difference=0.05)
    assert (
        choose(candidates(engine(QUICK)) | {"litert-dynamic-int8": slower}, CLASSIFICATION)["cpu"]
        == chosen
    )


def test_keras_is_no_choice_for_a_cpu_however_fast() -> None:
    assert choose(candidates(engine(SLOW)), CLASSIFICATION)["cpu"].startswith("litert")


@pytest.mark.parametrize(("agreement", "chosen"), [(1.0, "keras-half"), (0.98, "keras")])
def test_gpu_gets_half_precision_where_that_is_right(agreement: float, chosen: str) -> None:
    half = engine(SLOW, agreement=agreement)
    assert choose(candidates(engine(QUICK), half), CLASSIFICATION)["gpu"] == chosen


@pytest.mark.parametrize(("psnr_db", "chosen"), [(24.91, "litert-int8"), (24.89, "litert")])
def test_denoiser_may_lose_a_tenth_of_a_decibel(psnr_db: float, chosen: str) -> None:
    engines: Engines = {
        "keras": denoiser(QUICK, 25.0),
        "keras-half": denoiser(QUICK, 25.0),
        "litert": denoiser(SLOW, 25.0),
        "litert-int8": denoiser(QUICK, psnr_db),
    }
    assert choose(engines, DENOISING)["cpu"] == chosen


@pytest.mark.parametrize("name", sorted(path.name for path in SHIPPED_MODELS.iterdir()))
def test_shipped_model_is_served_with_what_the_rule_chooses(name: str) -> None:
    manifest = read_manifest(SHIPPED_MODELS / name / "1", TASKS)
    task = DENOISING if manifest.task.type == DENOISING.name else CLASSIFICATION
    assert choose(manifest.engines, task) == manifest.engine
