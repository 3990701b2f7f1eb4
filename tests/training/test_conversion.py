"""A network as LiteRT files, and what LiteRT cannot take."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="LiteRT files are made with TensorFlow")

import keras

from service.engines.litert import LiteRTEngine
from tests.training.tiny import network
from training.conversion import convert
from training.errors import ExportError

IMAGES = np.random.default_rng(0).random((20, 4, 4, 1), dtype=np.float32)


def test_three_files_answer_alike(tmp_path: Path) -> None:
    made = network()
    files = convert(made, IMAGES, tmp_path)
    assert list(files) == ["litert", "litert-dynamic-int8", "litert-int8"]
    exact = made.predict_on_batch(IMAGES)
    for file in files.values():
        engine = LiteRTEngine(file, 1, inputs=["image"], outputs=["probabilities"])
        answer = engine.predict({"image": IMAGES})["probabilities"]
        np.testing.assert_allclose(answer, exact, atol=0.05)


def test_network_that_litert_cannot_take_is_refused(tmp_path: Path) -> None:
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(1, 1)(inputs)
    determinant = keras.ops.det(x[..., 0])  # TensorFlow has it, LiteRT has not
    with pytest.raises(ExportError, match="LiteRT cannot take this network"):
        convert(keras.Model(inputs, determinant), IMAGES, tmp_path)
