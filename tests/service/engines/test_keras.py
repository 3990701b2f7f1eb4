"""Keras's engine beside LiteRT's; both read what a Keras network was saved or converted to."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from service.artifacts.manifest import EngineName, Manifest, read_manifest
from service.engines.engine import Engine
from service.engines.keras import KerasEngine
from service.engines.litert import LiteRTEngine
from service.errors import ArtifactError
from service.pixels.preprocess import Floats
from service.tasks import TASKS
from tests.conftest import SHIPPED_MODELS

keras: Any = pytest.importorskip("keras", reason="the engine needs Keras and a backend")

# What Keras and its backend warn of on import is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")

FOLDER = SHIPPED_MODELS / "fashion-mnist" / "1"
ONE = ("image",)
PROBABILITIES = ("probabilities",)


def opened(name: EngineName = "keras") -> KerasEngine:
    file = FOLDER / "model.keras"
    return KerasEngine(file, "cpu", name, inputs=ONE, outputs=PROBABILITIES)


@pytest.fixture(scope="module")
def whole() -> KerasEngine:
    return opened()


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return read_manifest(FOLDER, TASKS)


def batch(size: int, *shape: int) -> Floats:
    return np.random.default_rng(0).random((size, *(shape or (28, 28, 1))), dtype=np.float32)


def scores(engine: Engine, images: Floats) -> Floats:
    """The one output of the network."""
    outputs = engine.predict({"image": images})
    assert list(outputs) == ["probabilities"]
    return outputs["probabilities"]


def test_keras_agrees_with_litert(whole: KerasEngine, manifest: Manifest) -> None:
    litert = LiteRTEngine(FOLDER / "model.tflite", 1, inputs=ONE, outputs=PROBABILITIES)
    off = manifest.engines[manifest.engine["cpu"]].max_abs_difference
    for size in (1, 32):
        came = scores(whole, batch(size))
        assert came.dtype == np.float32
        np.testing.assert_allclose(came, scores(litert, batch(size)), atol=off)


def test_keras_in_half_precision_agrees_with_keras(whole: KerasEngine) -> None:
    half = opened("keras-half")
    assert half.name == "keras-half"
    assert {str(layer.compute_dtype) for layer in half.network.layers[1:]} == {"float16"}
    came = scores(half, batch(8))
    assert came.dtype == np.float32
    np.testing.assert_allclose(came, scores(whole, batch(8)), atol=0.01)


def test_single_tensors_are_called_as_the_manifest_says() -> None:
    file = FOLDER / "model.keras"
    engine = KerasEngine(file, "cpu", inputs=["photo"], outputs=["scores"])
    assert list(engine.predict({"photo": batch(1)})) == ["scores"]


def test_network_with_other_tensors_than_the_manifests_is_refused() -> None:
    names = ["boxes", "scores"]
    message = "expected a network with the outputs boxes, scores, got "
    with pytest.raises(ArtifactError, match=message):
        KerasEngine(FOLDER / "model.keras", "cpu", inputs=["image"], outputs=names)


class Files(NamedTuple):
    """The same network as Keras and as LiteRT have it."""

    keras: Path
    litert: Path


OUTPUTS = ("sum", "double")
"""What the network with two outputs computes of its 2x2 inputs; the manifest's order."""


def branches(image: Any) -> dict[str, Any]:
    """Two outputs that no converter and no backend can mistake for each other."""
    flat = keras.layers.Flatten()(image)
    total = keras.layers.Dense(1, "linear", kernel_initializer="ones", name="add")(flat)
    # Not in the alphabet's order, which TensorFlow gives the keys of a dict.
    return {"sum": total, "double": keras.layers.Rescaling(2.0, name="twice")(flat)}


def converted(network: Any, folder: Path) -> Files:
    tensorflow: Any = pytest.importorskip("tensorflow", reason="its converter is TensorFlow's")
    files = Files(folder / "model.keras", folder / "model.tflite")
    network.save(files.keras)
    exported = folder / "exported"
    network.export(exported, verbose=False)
    converter = tensorflow.lite.TFLiteConverter.from_saved_model(str(exported))
    files.litert.write_bytes(converter.convert())
    return files


@pytest.fixture(scope="module")
def two_outputs(tmp_path_factory: pytest.TempPathFactory) -> Files:
    image = keras.Input((2, 2, 1), name="image")
    return converted(keras.Model(image, branches(image)), tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def two_inputs(tmp_path_factory: pytest.TempPathFactory) -> Files:
    image, offset = keras.Input((2, 2, 1), name="image"), keras.Input((4,), name="offset")
    outputs = branches(image)
    outputs["sum"] = keras.layers.Add()([outputs["double"], offset])
    network = keras.Model({"image": image, "offset": offset}, outputs)
    return converted(network, tmp_path_factory.mktemp("inputs"))


def both(files: Files, *inputs: str) -> dict[str, Engine]:
    """The engines of a network, with LiteRT's and Keras's name each."""
    return {
        "keras": KerasEngine(files.keras, "cpu", inputs=inputs, outputs=OUTPUTS),
        "litert": LiteRTEngine(files.litert, 1, inputs=inputs, outputs=OUTPUTS),
    }


@pytest.mark.parametrize("size", [1, 3])
def test_every_output_of_a_network_has_its_name_and_its_values(
    two_outputs: Files, size: int
) -> None:
    images = batch(size, 2, 2, 1)
    flat = images.reshape(size, 4)
    for name, engine in both(two_outputs, "image").items():
        came = engine.predict({"image": images})
        assert list(came) == list(OUTPUTS), name
        assert {output.dtype for output in came.values()} == {np.dtype(np.float32)}
        np.testing.assert_allclose(came["sum"], flat.sum(axis=1, keepdims=True), rtol=1e-5)
        np.testing.assert_allclose(came["double"], 2 * flat, rtol=1e-5)


def test_every_input_of_a_network_is_given_by_its_name(two_inputs: Files) -> None:
    images, offsets = batch(3, 2, 2, 1), batch(3, 4)
    flat = images.reshape(3, 4)
    for name, engine in both(two_inputs, "image", "offset").items():
        for given in ({"image": images, "offset": offsets}, {"offset": offsets, "image": images}):
            came = engine.predict(given)
            np.testing.assert_allclose(came["sum"], 2 * flat + offsets, rtol=1e-5, err_msg=name)
            np.testing.assert_allclose(came["double"], 2 * flat, rtol=1e-5, err_msg=name)


def test_output_that_the_network_does_not_have_is_named(two_outputs: Files) -> None:
    wanted = ("sum", "half")
    message = "expected a network with the outputs sum, half, got (sum, double|double, sum)"
    with pytest.raises(ArtifactError, match=message):
        KerasEngine(two_outputs.keras, "cpu", inputs=ONE, outputs=wanted)
    with pytest.raises(ArtifactError, match=message):
        LiteRTEngine(two_outputs.litert, 1, inputs=ONE, outputs=wanted)


def test_two_outputs_in_half_precision_keep_their_names(two_outputs: Files) -> None:
    engine = KerasEngine(two_outputs.keras, "cpu", "keras-half", inputs=ONE, outputs=OUTPUTS)
    images = batch(3, 2, 2, 1)
    came = engine.predict({"image": images})
    np.testing.assert_allclose(came["double"], 2 * images.reshape(3, 4), rtol=0.01)
    np.testing.assert_allclose(came["sum"][:, 0], images.sum(axis=(1, 2, 3)), rtol=0.01)


def test_list_of_outputs_is_called_as_its_layers(tmp_path: Path) -> None:
    image = keras.Input((2, 2, 1), name="image")
    network = keras.Model(image, list(branches(image).values()))
    network.save(tmp_path / "model.keras")
    file, names = tmp_path / "model.keras", ["add", "twice"]
    engine = KerasEngine(file, "cpu", inputs=ONE, outputs=names)
    images = batch(2, 2, 2, 1)
    came = engine.predict({"image": images})
    assert (came["add"].shape, came["twice"].shape) == ((2, 1), (2, 4))
    np.testing.assert_allclose(came["twice"], 2 * images.reshape(2, 4), rtol=1e-5)


@pytest.mark.parametrize("is_half", [False, True])
@pytest.mark.parametrize("side", ["inputs", "outputs", "both", "neither"])
def test_single_tensor_in_a_dict_needs_no_other_call(
    tmp_path: Path, side: str, is_half: bool
) -> None:
    image = keras.Input((2, 2, 1), name="image")
    flat = keras.layers.Flatten(name="flat")(image)
    inputs = {"photo": image} if side in ("inputs", "both") else image
    outputs = {"scores": flat} if side in ("outputs", "both") else [flat]
    keras.Model(inputs, outputs).save(tmp_path / "model.keras")
    name: EngineName = "keras-half" if is_half else "keras"
    engine = KerasEngine(tmp_path / "model.keras", "cpu", name, inputs=ONE, outputs=PROBABILITIES)
    images = np.ones((3, 2, 2, 1), np.float32)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The structure of")
        np.testing.assert_array_equal(scores(engine, images), images.reshape(3, 4))


def test_file_that_holds_code_is_refused_and_its_code_does_not_run(tmp_path: Path) -> None:
    mark, file = tmp_path / "mark", tmp_path / "model.keras"
    pixels = keras.Input((28, 28, 1), name="image")
    code = eval(f"lambda x: (open({str(mark)!r}, 'w').close(), x)[1]")
    network = keras.Model(pixels, keras.layers.Lambda(code, name="probabilities")(pixels))
    network.save(file)
    mark.unlink()
    with pytest.raises(ArtifactError, match=r"model\.keras is not loaded: .*Lambda"):
        KerasEngine(file, "cpu", inputs=ONE, outputs=PROBABILITIES)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["model.h5", "model.hdf5", "model"])
def test_file_of_a_format_that_may_hold_code_is_not_opened(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match=r"expected a \.keras file"):
        KerasEngine(tmp_path / name, "cpu", inputs=ONE, outputs=PROBABILITIES)


def test_keras_file_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.keras"
    file.write_bytes(b"no zip")
    with pytest.raises(ArtifactError, match="is not loaded"):
        KerasEngine(file, "cpu", inputs=ONE, outputs=PROBABILITIES)
