"""Every artifact in `models/`: whole, true to its manifest, and the same on both engines.

A new model is tested by being there.
"""

import functools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from service.artifacts.files import Artifact, verify
from service.artifacts.manifest import (
    MANIFEST_FILE,
    Device,
    EngineName,
    read_manifest,
    write_manifest,
)
from service.engines.device import open_engine
from service.engines.engine import Engine
from service.engines.keras import KerasEngine
from service.inference.memory import Memory
from service.inference.model import Model
from service.pixels.preprocess import Floats, preprocess
from service.settings import Settings
from service.tasks import TASKS
from service.tasks.classification import ClassificationSpec, ExpectedLabel
from tests.metrics import metrics_of

MODELS = Path(__file__).parents[2] / "models"
FOLDERS = sorted(path.parent for path in MODELS.glob("*/*/manifest.json"))
MAX_FILE_BYTES = {".tflite": 20_000_000, ".keras": 32_000_000}
MAX_OTHER_FILE_BYTES = 10_000_000
TOLERANCE = 0.02  # beyond what the validation images differed by
MIN_LABEL_AGREEMENT = 0.99
MAX_LOSSES = {"accuracy": 0.005, "psnr_db": 0.1}
"""What an engine may cost, by the measure of its task."""


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda path: f"{path.parent.name}/{path.name}")
def folder(request: pytest.FixtureRequest) -> Path:
    """Every artifact's folder; all tests of one run before those of the next."""
    found: Path = request.param
    return found


@functools.lru_cache(maxsize=3)  # an artifact's: for its CPU, for its GPU, and in float32
def opened(folder: Path, name: EngineName) -> Engine:
    """One engine of an artifact; skips where this environment lacks what it needs."""
    if name.startswith("keras"):
        pytest.importorskip("keras", reason="the .keras file needs Keras and a backend")
    manifest = read_manifest(folder, TASKS)
    file = manifest.engines[name].file
    assert file is not None
    return open_engine(
        name, folder / file, "cpu", 1, inputs=manifest.inputs, outputs=manifest.outputs
    )


def predict(engine: Engine, folder: Path, batch: Floats) -> Floats:
    """The one output for a batch of the one input."""
    (name,) = read_manifest(folder, TASKS).inputs
    (output,) = engine.predict({name: batch}).values()
    return output


def inputs(folder: Path) -> Floats:
    """The sample and random images, as the service hands them to the network."""
    manifest = read_manifest(folder, TASKS)
    with Image.open(folder / manifest.sample.file) as image:
        sample = preprocess(image, manifest.input)
    random = np.random.default_rng(1).integers(0, 256, (8, *sample.shape), dtype=np.uint8)
    images = [Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels)
              for pixels in random]  # fmt: skip
    return np.stack([sample, *(preprocess(image, manifest.input) for image in images)])


def variations(folder: Path) -> Floats:
    """The sample as it is, mirrored, darker, and paler."""
    manifest = read_manifest(folder, TASKS)
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


def test_model_lies_in_the_folder_of_its_name_and_version(folder: Path) -> None:
    manifest = read_manifest(folder, TASKS)
    assert (folder.parent.name, folder.name) == (manifest.name, manifest.version)


def test_manifest_is_as_it_would_be_written_today(folder: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path, read_manifest(folder, TASKS))
    written, there = (each / MANIFEST_FILE for each in (tmp_path, folder))
    assert written.read_text() == there.read_text()


def test_checksums_hold(folder: Path) -> None:
    verify(Artifact(folder, read_manifest(folder, TASKS)))


def test_folder_holds_what_the_manifest_lists_and_nothing_else(folder: Path) -> None:
    listed = {*read_manifest(folder, TASKS).files, "manifest.json"}
    assert {path.name for path in folder.iterdir()} == listed


def test_files_are_small_enough_for_the_repository(folder: Path) -> None:
    too_large = {
        path.name: path.stat().st_size
        for path in folder.iterdir()
        if path.stat().st_size >= MAX_FILE_BYTES.get(path.suffix, MAX_OTHER_FILE_BYTES)
    }
    assert not too_large


def test_card_shows_the_parameters_and_the_accuracy(folder: Path) -> None:
    manifest, card = read_manifest(folder, TASKS), (folder / "README.md").read_text()
    assert f"`{manifest.name}`, version {manifest.version}" in card
    assert f"{manifest.parameters:,} parameters" in card
    if "accuracy" in manifest.metrics:
        assert f"accuracy **{manifest.metrics['accuracy']:.4f}**" in card


def test_cards_figures_are_there(folder: Path) -> None:
    shown = [part.partition(")")[0] for part in (folder / "README.md").read_text().split("](")[1:]]
    assert shown
    for file in shown:
        with Image.open(folder / file) as image:
            assert image.format == "PNG"


def test_model_is_no_smoke_run(folder: Path) -> None:
    training = read_manifest(folder, TASKS).training
    assert training.arguments["smoke"] is False
    assert training.dataset_sha256


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_sample_is_answered_as_recorded(folder: Path, device: Device) -> None:
    artifact = Artifact(folder, read_manifest(folder, TASKS))
    manifest = artifact.manifest
    engine, task = opened(folder, manifest.engine[device]), TASKS[manifest.task.type](manifest)
    settings = Settings(workers=1)
    memory = Memory(settings, None, 0).share_of_model()
    model = Model(artifact, task, engine, settings, metrics_of(manifest), memory=memory)
    model.prove()
    model.close()


def test_recorded_answer_is_one_of_the_labels_or_a_file(folder: Path) -> None:
    manifest = read_manifest(folder, TASKS)
    expected = manifest.sample.expected
    assert manifest.sample_files() <= manifest.files.keys()
    if isinstance(manifest.task, ClassificationSpec):
        assert isinstance(expected, ExpectedLabel)
        assert manifest.task.labels[expected.index] == expected.label


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_engine_that_is_served_costs_no_more_than_it_may(folder: Path, device: Device) -> None:
    manifest = read_manifest(folder, TASKS)
    served = manifest.engines[manifest.engine[device]].quality
    float32 = manifest.engines["keras"].quality
    assert served.keys() == float32.keys()
    losses = {name: float32[name] - served[name] for name in MAX_LOSSES.keys() & served.keys()}
    assert losses
    assert all(loss <= MAX_LOSSES[name] for name, loss in losses.items())
    assert served.get("label_agreement", 1.0) >= MIN_LABEL_AGREEMENT


def test_engine_that_is_served_answers_as_the_float_network_does(folder: Path) -> None:
    manifest = read_manifest(folder, TASKS)
    served = manifest.engine["cpu"]
    batch = variations(folder)
    ours, exact = (predict(opened(folder, name), folder, batch) for name in (served, "keras"))
    assert np.abs(ours - exact).max() <= manifest.engines[served].max_abs_difference + TOLERANCE


def test_answer_does_not_depend_on_the_batch_around_it(folder: Path) -> None:
    batch = inputs(folder)
    engine = opened(folder, read_manifest(folder, TASKS).engine["cpu"])
    alone = [predict(engine, folder, batch[item : item + 1]) for item in range(len(batch))]
    np.testing.assert_allclose(predict(engine, folder, batch), np.concatenate(alone), atol=1e-5)


def test_network_has_the_parameters_of_the_manifest(folder: Path) -> None:
    engine = opened(folder, "keras")
    assert isinstance(engine, KerasEngine)
    assert engine.network.count_params() == read_manifest(folder, TASKS).parameters
