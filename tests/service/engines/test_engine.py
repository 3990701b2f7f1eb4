import subprocess
import sys
from typing import get_args

import numpy as np
import pytest

from service.artifacts.manifest import EngineName, read_manifest
from service.engines.engine import Engine, KerasEngine, LiteRTEngine
from service.pixels.preprocess import Floats
from tests.conftest import SHIPPED_MODELS

FOLDER = SHIPPED_MODELS / "fashion-mnist" / "1"


@pytest.fixture
def litert() -> LiteRTEngine:
    return LiteRTEngine(FOLDER / "model.tflite", threads=1)


def batch(size: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).random((size, 28, 28, 1), dtype=np.float32)


@pytest.mark.parametrize("size", [1, 3, 32])
def test_every_item_of_a_batch_has_its_probabilities(litert: LiteRTEngine, size: int) -> None:
    scores = litert.predict(batch(size))
    assert scores.shape == (size, 10)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("sizes", [(1, 3, 32), (32, 3, 1), (3, 32, 1, 32, 3)])
def test_prediction_does_not_depend_on_the_batch_around_it(
    litert: LiteRTEngine, sizes: tuple[int, ...]
) -> None:
    items = batch(32)
    alone = np.concatenate([litert.predict(items[k : k + 1]) for k in range(32)])
    for size in sizes:
        np.testing.assert_allclose(litert.predict(items[:size]), alone[:size], atol=1e-5)


def test_items_keep_their_order(litert: LiteRTEngine) -> None:
    items = batch(8)
    forward, backward = litert.predict(items), litert.predict(np.ascontiguousarray(items[::-1]))
    np.testing.assert_allclose(forward, backward[::-1], atol=1e-5)
    assert not np.allclose(forward, backward, atol=1e-3)


def test_result_is_not_overwritten_by_the_next_call(litert: LiteRTEngine) -> None:
    first = litert.predict(batch(3))
    kept = first.copy()
    assert not np.array_equal(litert.predict(batch(3, seed=1)), kept)
    np.testing.assert_array_equal(first, kept)


def test_input_is_left_as_it_was(litert: LiteRTEngine) -> None:
    items = batch(3)
    litert.predict(items)
    np.testing.assert_array_equal(items, batch(3))


def test_number_of_threads_does_not_change_the_answer(litert: LiteRTEngine) -> None:
    two = LiteRTEngine(FOLDER / "model.tflite", threads=2)
    np.testing.assert_allclose(two.predict(batch(8)), litert.predict(batch(8)), atol=1e-5)


# What Keras and its backend warn of on import is theirs.
@pytest.mark.filterwarnings("ignore")
def test_keras_agrees_with_litert(litert: LiteRTEngine) -> None:
    pytest.importorskip("keras")
    keras: Engine = KerasEngine(FOLDER / "model.keras", "cpu")
    manifest = read_manifest(FOLDER)
    off = manifest.engines[manifest.engine["cpu"]].max_abs_difference
    for size in (1, 32):
        scores = keras.predict(batch(size))
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, litert.predict(batch(size)), atol=off)


@pytest.mark.filterwarnings("ignore")
def test_keras_in_half_precision_agrees_with_keras() -> None:
    pytest.importorskip("keras")
    whole, half = (
        KerasEngine(FOLDER / "model.keras", "cpu", name)
        for name in get_args(EngineName)
        if name.startswith("keras")
    )
    assert half.name == "keras-half"
    assert {str(layer.compute_dtype) for layer in half.network.layers[1:]} == {"float16"}
    scores = half.predict(batch(8))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, whole.predict(batch(8)), atol=0.01)


def test_import_loads_no_training_framework() -> None:
    ours = "service.engines.engine, service.inference.registry, service.server.front"
    heavy = "{'tensorflow', 'keras', 'jax', 'torch', 'training', 'h5py', 'matplotlib'}"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {ours}; print({heavy} & set(sys.modules))"],
        cwd=SHIPPED_MODELS.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "set()\n"
