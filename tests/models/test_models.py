"""Every artifact in `models/`: whole, true to its manifest, and the same on both engines.

A new model is tested by being there.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from service.artifacts.files import Artifact, verify
from service.artifacts.manifest import Device, EngineName, ExpectedLabel, read_manifest
from service.engines.engine import Engine, open_engine
from service.inference.model import Model
from service.pixels.preprocess import Floats, preprocess
from service.settings import Settings
from tests.metrics import metrics_of

MODELS = Path(__file__).parents[2] / "models"
FOLDERS = sorted(path.parent for path in MODELS.glob("*/*/manifest.json"))
MAX_FILE_BYTES = {".tflite": 20_000_000, ".keras": 32_000_000}
MAX_OTHER_FILE_BYTES = 10_000_000
TOLERANCE = 0.02  # beyond what the validation images differed by
MIN_LABEL_AGREEMENT, MAX_ACCURACY_LOSS, MAX_PSNR_LOSS_DB = 0.99, 0.005, 0.1

every_model = pytest.mark.parametrize(
    "folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}/{folder.name}"
)


def opened(folder: Path, name: EngineName) -> Engine:
    """One engine of an artifact; skips where this environment lacks what it needs."""
    if name.startswith("keras"):
        pytest.importorskip("keras", reason="the .keras file needs Keras and a backend")
    file = read_manifest(folder).engines[name].file
    assert file is not None
    return open_engine(name, folder / file, "cpu", threads=1)


def inputs(folder: Path) -> Floats:
    """The sample and random images, as the service hands them to the network."""
    manifest = read_manifest(folder)
    with Image.open(folder / manifest.sample.file) as image:
        sample = preprocess(image, manifest.input)
    random = np.random.default_rng(1).integers(0, 256, (8, *sample.shape), dtype=np.uint8)
    images = [Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels)
              for pixels in random]  # fmt: skip
    return np.stack([sample, *(preprocess(image, manifest.input) for image in images)])


def variations(folder: Path) -> Floats:
    """The sample as it is, mirrored, darker, and paler."""
    manifest = read_manifest(folder)
    with Image.open(folder / manifest.sample.file) as opened_image:
        image = opened_image.convert("L" if manifest.input.color == "grey" else "RGB")
    varied = [
        image,
        ImageOps.mirror(image),
        ImageEnhance.Brightness(image).enhance(0.8),
        ImageEnhance.Contrast(image).enhance(0.8),
    ]
    return np.stack([preprocess(each, manifest.input) for each in varied])


def test_models_are_there_to_be_tested() -> None:
    assert FOLDERS


@every_model
def test_model_lies_in_the_folder_of_its_name_and_version(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert (folder.parent.name, folder.name) == (manifest.name, manifest.version)


@every_model
def test_checksums_hold(folder: Path) -> None:
    verify(Artifact(folder, read_manifest(folder)))


@every_model
def test_folder_holds_what_the_manifest_lists_and_nothing_else(folder: Path) -> None:
    listed = {*read_manifest(folder).files, "manifest.json"}
    assert {path.name for path in folder.iterdir()} == listed


@every_model
def test_files_are_small_enough_for_the_repository(folder: Path) -> None:
    too_large = {
        path.name: path.stat().st_size
        for path in folder.iterdir()
        if path.stat().st_size >= MAX_FILE_BYTES.get(path.suffix, MAX_OTHER_FILE_BYTES)
    }
    assert not too_large


@every_model
def test_card_shows_the_parameters_and_the_accuracy(folder: Path) -> None:
    manifest, card = read_manifest(folder), (folder / "README.md").read_text()
    assert f"`{manifest.name}`, version {manifest.version}" in card
    assert f"{manifest.parameters:,} parameters" in card
    if manifest.task == "classification":
        assert f"accuracy **{manifest.metrics['accuracy']:.4f}**" in card


@every_model
def test_cards_figures_are_there(folder: Path) -> None:
    shown = [part.partition(")")[0] for part in (folder / "README.md").read_text().split("](")[1:]]
    assert shown
    for file in shown:
        with Image.open(folder / file) as image:
            assert image.format == "PNG"


@every_model
def test_model_is_no_smoke_run(folder: Path) -> None:
    training = read_manifest(folder).training
    assert training.arguments["smoke"] is False
    assert training.dataset_sha256


@every_model
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_sample_is_answered_as_recorded(folder: Path, device: Device) -> None:
    artifact = Artifact(folder, read_manifest(folder))
    engine = opened(folder, artifact.manifest.engine[device])
    model = Model(artifact, engine, Settings(workers=1), metrics_of(artifact.manifest))
    model.prove()
    model.close()


@every_model
def test_sample_answer_is_one_of_the_labels(folder: Path) -> None:
    manifest = read_manifest(folder)
    expected = manifest.sample.expected
    if isinstance(expected, ExpectedLabel):
        assert manifest.labels[expected.index] == expected.label
    else:
        assert expected.file in manifest.files


@every_model
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_engine_that_is_served_costs_no_more_than_it_may(folder: Path, device: Device) -> None:
    manifest = read_manifest(folder)
    served, float32 = manifest.engines[manifest.engine[device]], manifest.engines["keras"]
    if manifest.task == "classification":
        assert served.label_agreement is not None
        assert served.accuracy is not None
        assert float32.accuracy is not None
        assert served.label_agreement >= MIN_LABEL_AGREEMENT
        assert served.accuracy >= float32.accuracy - MAX_ACCURACY_LOSS
    else:
        assert served.psnr_db is not None
        assert float32.psnr_db is not None
        assert served.psnr_db >= float32.psnr_db - MAX_PSNR_LOSS_DB


@every_model
def test_engine_that_is_served_answers_as_the_float_network_does(folder: Path) -> None:
    manifest = read_manifest(folder)
    served = manifest.engine["cpu"]
    batch = variations(folder)
    ours, exact = (opened(folder, name).predict(batch) for name in (served, "keras"))
    assert np.abs(ours - exact).max() <= manifest.engines[served].max_abs_difference + TOLERANCE


@every_model
def test_answer_does_not_depend_on_the_batch_around_it(folder: Path) -> None:
    batch = inputs(folder)
    engine = opened(folder, read_manifest(folder).engine["cpu"])
    alone = np.concatenate([engine.predict(batch[item : item + 1]) for item in range(len(batch))])
    np.testing.assert_allclose(engine.predict(batch), alone, atol=1e-5)


@every_model
def test_network_has_the_parameters_of_the_manifest(folder: Path) -> None:
    keras = pytest.importorskip("keras", reason="the .keras file needs Keras and a backend")
    manifest = read_manifest(folder)
    file = manifest.engines["keras"].file
    assert file is not None
    network = keras.saving.load_model(folder / file, compile=False)
    assert network.count_params() == manifest.parameters
