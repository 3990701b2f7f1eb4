from pathlib import Path

import numpy as np
import pytest

from service.engines.litert import LiteRTEngine
from service.errors import ArtifactError
from service.pixels.preprocess import Floats
from tests.conftest import SHIPPED_MODELS

FILE = SHIPPED_MODELS / "fashion-mnist" / "1" / "model.tflite"


def opened(threads: int = 1) -> LiteRTEngine:
    return LiteRTEngine(FILE, threads, inputs=["image"], outputs=["probabilities"])


@pytest.fixture
def litert() -> LiteRTEngine:
    return opened()


def batch(size: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).random((size, 28, 28, 1), dtype=np.float32)


def scores(engine: LiteRTEngine, images: Floats) -> Floats:
    """The one output of the network."""
    outputs = engine.predict({"image": images})
    assert list(outputs) == ["probabilities"]
    return outputs["probabilities"]


@pytest.mark.parametrize("size", [1, 3, 32])
def test_every_item_of_a_batch_has_its_probabilities(litert: LiteRTEngine, size: int) -> None:
    came = scores(litert, batch(size))
    assert came.shape == (size, 10)
    assert came.dtype == np.float32
    np.testing.assert_allclose(came.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("sizes", [(1, 3, 32), (32, 3, 1), (3, 32, 1, 32, 3)])
def test_prediction_does_not_depend_on_the_batch_around_it(
    litert: LiteRTEngine, sizes: tuple[int, ...]
) -> None:
    items = batch(32)
    alone = np.concatenate([scores(litert, items[k : k + 1]) for k in range(32)])
    for size in sizes:
        np.testing.assert_allclose(scores(litert, items[:size]), alone[:size], atol=1e-5)


def test_items_keep_their_order(litert: LiteRTEngine) -> None:
    items = batch(8)
    forward = scores(litert, items)
    backward = scores(litert, np.ascontiguousarray(items[::-1]))
    np.testing.assert_allclose(forward, backward[::-1], atol=1e-5)
    assert not np.allclose(forward, backward, atol=1e-3)


def test_result_is_not_overwritten_by_the_next_call(litert: LiteRTEngine) -> None:
    first = scores(litert, batch(3))
    kept = first.copy()
    assert not np.array_equal(scores(litert, batch(3, seed=1)), kept)
    np.testing.assert_array_equal(first, kept)


def test_input_is_left_as_it_was(litert: LiteRTEngine) -> None:
    items = batch(3)
    scores(litert, items)
    np.testing.assert_array_equal(items, batch(3))


def test_number_of_threads_does_not_change_the_answer(litert: LiteRTEngine) -> None:
    np.testing.assert_allclose(
        scores(opened(threads=2), batch(8)), scores(litert, batch(8)), atol=1e-5
    )


def test_single_tensors_are_called_as_the_manifest_says() -> None:
    engine = LiteRTEngine(FILE, 1, inputs=["photo"], outputs=["scores"])
    assert list(engine.predict({"photo": batch(1)})) == ["scores"]


@pytest.mark.parametrize(
    ("inputs", "outputs", "what"),
    [
        (["image", "mask"], ["probabilities"], "inputs image, mask"),
        (["image"], ["boxes", "scores"], "outputs boxes, scores"),
    ],
)
def test_network_with_other_tensors_than_the_manifests_is_refused(
    inputs: list[str], outputs: list[str], what: str
) -> None:
    with pytest.raises(ArtifactError, match=f"expected a network with the {what}, got "):
        LiteRTEngine(FILE, 1, inputs=inputs, outputs=outputs)


def test_file_is_not_mapped_so_that_shortening_it_ends_no_process(litert: LiteRTEngine) -> None:
    assert str(FILE) not in Path("/proc/self/maps").read_text()
