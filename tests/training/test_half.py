"""Weights in half precision: half the bytes, and nearly the same network once it is loaded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras", reason="a .keras file needs Keras")

import keras

from training.errors import ExportError
from training.half import halve_weights, round_to_half


@pytest.fixture
def network() -> Any:
    keras.utils.set_random_seed(1)
    layers = keras.layers
    return keras.Sequential(
        [layers.Input((8, 8, 3)), layers.Conv2D(64, 3), layers.Flatten(), layers.Dense(64)]
    )


def test_file_is_half_as_large(network: Any, tmp_path: Path) -> None:
    network.save(tmp_path / "model.keras")
    before = (tmp_path / "model.keras").stat().st_size
    halve_weights(tmp_path / "model.keras")
    assert (tmp_path / "model.keras").stat().st_size < 0.55 * before


def test_keras_loads_it_in_float32_with_weights_rounded_to_11_bits(
    network: Any, tmp_path: Path
) -> None:
    network.save(tmp_path / "model.keras")
    halve_weights(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert {weight.dtype for weight in loaded.weights} == {"float32"}
    for came, sent in zip(loaded.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_allclose(came, sent, rtol=2**-11, atol=2**-24)
        np.testing.assert_array_equal(came, sent.astype(np.float16).astype(np.float32))
    image = np.ones((1, 8, 8, 3), np.float32)
    np.testing.assert_allclose(loaded(image), network(image), atol=0.01)


def test_network_rounded_before_is_stored_as_it_is(network: Any, tmp_path: Path) -> None:
    round_to_half(network)
    network.save(tmp_path / "model.keras")
    halve_weights(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for came, sent in zip(loaded.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(came, sent)


@pytest.mark.parametrize("weight", [1e5, -1e5, np.nan])
def test_weight_beyond_the_range_is_refused(network: Any, tmp_path: Path, weight: float) -> None:
    network.layers[0].set_weights([np.full((3, 3, 3, 64), weight), np.zeros(64)])
    network.save(tmp_path / "model.keras")
    before = (tmp_path / "model.keras").read_bytes()
    expected = r"expected weights up to 65504.0 for half precision, got (100000.0|nan)"
    with pytest.raises(ExportError, match=expected):
        halve_weights(tmp_path / "model.keras")
    assert (tmp_path / "model.keras").read_bytes() == before
    with pytest.raises(ExportError, match=expected):
        round_to_half(network)
