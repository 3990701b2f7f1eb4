import asyncio
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.artifacts.files import Artifact, find_artifacts
from service.artifacts.manifest import (
    MANIFEST_FILE,
    Device,
    EngineName,
    Manifest,
    parse_manifest,
    read_manifest,
)
from service.call import Call
from service.engines.engine import Tensors
from service.errors import (
    ArtifactError,
    BadInput,
    DeadlinePassed,
    SettingsError,
    TooLarge,
    UnknownModel,
    UnsupportedImage,
)
from service.inference.decoding import Source
from service.inference.memory import Memory
from service.inference.model import Model
from service.inference.registry import Registry, load_registry
from service.pixels.preprocess import Floats
from service.settings import Settings
from service.tasks import TASKS
from service.tasks.classification import Classification, ClassificationOptions
from service.tasks.denoising import Denoising
from service.tasks.task import Answer, Options
from tests.conftest import SHIPPED_MODELS
from tests.drawing import gradient
from tests.exposition import parsed
from tests.metrics import metrics_of
from tests.service.artifacts.test_manifest import CLASSIFIER, DENOISER

SAMPLE = (SHIPPED_MODELS / "fashion-mnist/1/sample.png").read_bytes()

Load = Callable[..., Registry]


@pytest.fixture
def load(models_dir: Path) -> Iterator[Load]:
    """Loads the models of `models_dir`, by default with small batches on the CPU."""
    loaded: list[Registry] = []

    def load(**settings: Any) -> Registry:
        chosen: dict[str, Any] = {"device": "cpu", "workers": 1, "max_batch_size": 4} | settings
        all_settings = Settings(models_dir=models_dir, **chosen)
        artifacts = find_artifacts(models_dir, all_settings.models, TASKS)
        metrics = metrics_of(*(artifact.manifest for artifact in artifacts))
        memory = Memory(all_settings, None, 0)
        registry = load_registry(artifacts, TASKS, all_settings, metrics, memory=memory)
        loaded.append(registry)
        return registry

    yield load
    for registry in loaded:
        registry.close()


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def add_copy(folder: Path, name: str, version: str) -> None:
    """Put another artifact beside `folder`'s, the same but for its name and version."""
    copy = folder.parents[1] / name / version
    shutil.copytree(folder, copy)
    edit(copy, lambda manifest: manifest.update(name=name, version=version))


def found(registry: Registry, name: str, version: str | None = None) -> tuple[str, str]:
    manifest = registry.find(name, version).manifest
    return manifest.name, manifest.version


@pytest.mark.parametrize("others", [(), ("2",), ("2", "10"), ("10", "9")])
def test_highest_version_is_meant_without_one(
    artifact_folder: Path, load: Load, others: tuple[str, ...]
) -> None:
    for version in others:
        add_copy(artifact_folder, "fashion-mnist", version)
    highest = max(["1", *others], key=int)
    assert found(load(), "fashion-mnist") == ("fashion-mnist", highest)


def test_every_version_is_found_by_its_number(artifact_folder: Path, load: Load) -> None:
    add_copy(artifact_folder, "fashion-mnist", "2")
    registry = load()
    for version in ("1", "2"):
        assert found(registry, "fashion-mnist", version) == ("fashion-mnist", version)


def test_names_are_sorted_and_named_once(artifact_folder: Path, load: Load) -> None:
    add_copy(artifact_folder, "fashion-mnist", "2")
    add_copy(artifact_folder, "shoes", "1")
    add_copy(artifact_folder, "bags", "1")
    assert load().names() == ["bags", "fashion-mnist", "shoes"]


def test_versions_are_listed_by_their_numbers(artifact_folder: Path, load: Load) -> None:
    for version in ("10", "2"):
        add_copy(artifact_folder, "fashion-mnist", version)
    versions = load().versions("fashion-mnist")
    assert [model.manifest.version for model in versions] == ["1", "2", "10"]


def test_only_the_named_version_is_loaded(artifact_folder: Path, load: Load) -> None:
    for version in ("2", "3"):
        add_copy(artifact_folder, "fashion-mnist", version)
    registry = load(models=("fashion-mnist/2",))
    assert [model.manifest.version for model in registry.versions("fashion-mnist")] == ["2"]


def test_only_the_named_models_are_loaded(artifact_folder: Path, load: Load) -> None:
    add_copy(artifact_folder, "bags", "1")
    assert load(models=("bags",)).names() == ["bags"]


@pytest.mark.parametrize("name", ["bags", "", "Fashion-MNIST", "fashion-mnist/1", "x" * 10_000])
def test_unknown_name_is_named_beside_the_known(load: Load, name: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        load().find(name)
    message = str(caught.value)
    assert message.endswith("; expected one of fashion-mnist")
    assert name[:70] in message
    assert len(message) < 200


@pytest.mark.parametrize("version", ["3", "0", "", "01", "latest", "-1", "9" * 10_000])
def test_unknown_version_is_named_beside_the_known(
    artifact_folder: Path, load: Load, version: str
) -> None:
    add_copy(artifact_folder, "fashion-mnist", "2")
    with pytest.raises(UnknownModel) as caught:
        load().find("fashion-mnist", version)
    message = str(caught.value)
    assert message.startswith("fashion-mnist: unknown version '")
    assert version[:70] in message
    assert len(message) < 200


@pytest.mark.parametrize(
    "expected",
    [
        {"label": "Bag", "index": 8},
        {"probability": 0.0},
        {"probability": 0.0, "tolerance": 0.3},
    ],
    ids=["label", "probability", "beyond the tolerance"],
)
def test_sample_that_is_not_answered_as_recorded_stops_the_start(
    artifact_folder: Path, load: Load, expected: dict[str, object]
) -> None:
    edit(artifact_folder, lambda manifest: manifest["sample"]["expected"].update(expected))
    with pytest.raises(
        ArtifactError, match=r"sample\.png on litert-dynamic-int8: expected .* got 'Trouser'"
    ):
        load()


def test_sample_within_the_tolerance_is_answered_as_recorded(
    artifact_folder: Path, load: Load
) -> None:
    wide = {"probability": 0.5, "tolerance": 0.5}
    edit(artifact_folder, lambda manifest: manifest["sample"]["expected"].update(wide))
    assert load().names() == ["fashion-mnist"]


def test_altered_network_stops_the_start(artifact_folder: Path, load: Load) -> None:
    path = artifact_folder / "model.tflite"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match=r"model\.tflite: expected SHA-256"):
        load()


def test_edited_card_does_not_stop_the_start(artifact_folder: Path, load: Load) -> None:
    card = artifact_folder / "README.md"
    card.write_text(card.read_text().replace("the", "teh"))
    (artifact_folder / "curves.png").unlink()
    assert load().names() == ["fashion-mnist"]


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Put other content into a file, and its checksum into the manifest."""
    (folder / name).write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit(folder, lambda manifest: manifest["files"].update({name: entry}))


def test_file_that_is_no_network_stops_the_start(artifact_folder: Path, load: Load) -> None:
    replace_file(artifact_folder, "model.tflite", b"junk")
    with pytest.raises(ArtifactError, match="do not fit"):
        load()


def test_sample_that_is_no_image_stops_the_start(artifact_folder: Path, load: Load) -> None:
    replace_file(artifact_folder, "sample.png", b"junk")
    with pytest.raises(ArtifactError, match=r"sample\.png: expected an image"):
        load()


def test_input_of_another_size_than_the_network_takes_stops_the_start(
    artifact_folder: Path, load: Load
) -> None:
    def enlarge(manifest: dict[str, Any]) -> None:
        for part in (manifest["input"], manifest["inputs"]["image"]):
            part["shape"] = [32, 32, 1]

    edit(artifact_folder, enlarge)
    with pytest.raises(ArtifactError, match="do not fit"):
        load()


def test_one_bad_version_stops_the_start(artifact_folder: Path, load: Load) -> None:
    add_copy(artifact_folder, "fashion-mnist", "2")
    (artifact_folder.parent / "2" / "sample.png").unlink()
    with pytest.raises(ArtifactError, match=r"sample\.png is missing"):
        load()


def test_folder_without_models_stops_the_start(artifact_folder: Path, load: Load) -> None:
    shutil.rmtree(artifact_folder)
    with pytest.raises(ArtifactError, match="expected at least one model"):
        load()


def test_loaded_model_is_announced_in_the_metrics(
    artifact_folder: Path,
) -> None:
    artifact = Artifact(artifact_folder, read_manifest(artifact_folder, TASKS))
    metrics = metrics_of(artifact.manifest)
    settings = Settings(device="cpu", workers=1)
    memory = Memory(settings, None, 0)
    load_registry([artifact], TASKS, settings, metrics, memory=memory).close()
    labels = {
        "model": "fashion-mnist",
        "version": "1",
        "task": "classification",
        "engine": "litert-dynamic-int8",
        "device": "cpu",
        "sha256": read_manifest(artifact_folder, TASKS).files["model.tflite"].sha256,
    }
    series = parsed(metrics.expose().decode())
    assert [pairs for name, pairs in series if name == "vitrine_model_info"] == [
        tuple(sorted(labels.items()))
    ]


def test_largest_batch_need_not_be_a_power_of_two(load: Load) -> None:
    assert load(max_batch_size=3).names() == ["fashion-mnist"]


class SteadyEngine:
    """Answers whatever comes in the same way; no network is loaded."""

    name: EngineName = "keras"
    device: Device = "cpu"
    fixed_sizes = False

    def __init__(self, manifest: Manifest) -> None:
        self._outputs = manifest.outputs

    def predict(self, batch: Tensors) -> dict[str, Floats]:
        (given,) = batch.values()
        (name,) = self._outputs
        if given.shape[1:] != (28, 28, 1):
            return {name: given}
        return {name: np.tile(np.linspace(0, 1, 10, dtype=np.float32), (len(given), 1))}


Serve = Callable[..., Registry]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """A registry of models of the given names and versions; `d` begins a denoiser's name."""
    served: list[Registry] = []

    def serve(*names: str, defaults: Mapping[str, str] | None = None) -> Registry:
        models = [model(name, tmp_path) for name in names]
        served.append(Registry(models, defaults or {}))
        return served[-1]

    yield serve
    for registry in served:
        registry.close()


def model(name: str, folder: Path) -> Model:
    name, _, version = name.partition("/")
    fields = DENOISER if name.startswith("d") else CLASSIFIER
    manifest = parse_manifest(fields | {"name": name, "version": version or "1"}, TASKS)
    task = TASKS[manifest.task.type](manifest)
    engine = SteadyEngine(manifest)
    settings = Settings(workers=1, queue_limit=4)
    memory = Memory(settings, None, 0).share_of_model()
    metrics = metrics_of(manifest)
    return Model(Artifact(folder, manifest), task, engine, settings, metrics, memory=memory)


def call() -> Call:
    return Call("test", timeout_s=60)


def labelled(answer: object) -> bool:
    return isinstance(answer, Answer) and isinstance(answer.content, Mapping)


@pytest.mark.parametrize("name", ["fashion-mnist", "bags"])
def test_only_model_of_a_task_is_its_default(serve: Serve, name: str) -> None:
    registry = serve(name, "d-small")
    assert registry.default(Classification) == name
    assert registry.default(Denoising) == "d-small"


def test_versions_of_one_model_are_one_default(serve: Serve) -> None:
    registry = serve("bags", "bags/2")
    assert registry.default(Classification) == "bags"
    assert [registry.is_default(each) for each in registry.versions("bags")] == [False, True]


def test_usual_model_is_the_default_among_several(serve: Serve) -> None:
    registry = serve("bags", "fashion-mnist", "shoes", "d-small", "denoiser")
    assert registry.default(Classification) == "fashion-mnist"
    assert registry.default(Denoising) == "denoiser"
    defaults = [name for name in registry.names() if registry.is_default(registry.find(name))]
    assert defaults == ["denoiser", "fashion-mnist"]


def test_setting_chooses_another_default(serve: Serve) -> None:
    registry = serve("bags", "fashion-mnist", "denoiser", defaults={"classify": "bags"})
    assert registry.default(Classification) == "bags"
    assert registry.default(Denoising) == "denoiser"
    assert not registry.is_default(registry.find("fashion-mnist"))


def test_without_a_default_the_names_are_listed(serve: Serve) -> None:
    registry = serve("bags", "shoes", "denoiser")
    with pytest.raises(BadInput) as caught:
        registry.select_for(Classification, None, call())
    assert str(caught.value) == "expected the name of a model, one of bags, shoes; got none"
    assert not registry.is_default(registry.find("bags"))


def test_without_a_model_of_a_task_that_is_said_and_none_is_named(serve: Serve) -> None:
    with pytest.raises(BadInput) as caught:
        serve("bags").select_for(Denoising, None, call())
    assert str(caught.value) == "no model for denoising is served here"


def test_model_of_another_task_is_refused(serve: Serve) -> None:
    with pytest.raises(BadInput) as caught:
        serve("bags", "denoiser").select_for(Denoising, "bags", call())
    assert str(caught.value) == (
        "expected a model for denoising, got bags, a model for classification"
    )


@pytest.mark.parametrize(
    ("defaults", "said"),
    [
        ({"paint": "bags"}, "expected one of classify, denoise before =, got 'paint'"),
        ({"classify": "shoes"}, "unknown model 'shoes'; expected one of bags, denoiser"),
        ({"classify": "denoiser"}, "expected a model for classification, got denoiser"),
    ],
)
def test_default_that_cannot_be_served_stops_the_start(
    serve: Serve, defaults: dict[str, str], said: str
) -> None:
    with pytest.raises(SettingsError, match=f"VITRINE_DEFAULT_MODELS: {said}"):
        serve("bags", "denoiser", defaults=defaults)


def test_task_without_a_form_route_is_no_choice_for_a_default(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Denoising, "verb", None)
    for verb in ("None", "denoise"):
        with pytest.raises(SettingsError, match=f"expected one of classify before =, got '{verb}'"):
            serve("bags", "denoiser", defaults={verb: "denoiser"})


def test_selected_model_is_noted_in_the_call(serve: Serve) -> None:
    registry = serve("bags", "bags/2", "denoiser")
    for name, version, chosen in (("bags", None, "2"), ("bags", "1", "1"), ("denoiser", None, "1")):
        mine = call()
        task = registry.select(name, version, mine).manifest.task.type
        assert (mine.model, mine.version, mine.task) == (name, chosen, task)


def test_named_model_answers(serve: Serve) -> None:
    registry, mine = serve("bags", "denoiser"), call()
    answer = asyncio.run(registry.infer("bags", None, SAMPLE, mine, ClassificationOptions(top_k=2)))
    assert isinstance(answer.content, Mapping)
    assert answer.content["top"] == [
        {"label": "Ankle boot", "index": 9, "probability": 1.0},
        {"label": "Bag", "index": 8, "probability": pytest.approx(8 / 9, abs=1e-6)},
    ]
    assert (mine.model, mine.version, mine.items) == ("bags", "1", 1)
    image = gradient()
    clean = asyncio.run(registry.infer("denoiser", "1", image, call(), Options())).image()
    np.testing.assert_array_equal(np.asarray(clean), np.asarray(image))


@pytest.mark.parametrize(("name", "version"), [("shoes", None), ("bags", "2")])
def test_unknown_model_does_not_answer(serve: Serve, name: str, version: str | None) -> None:
    with pytest.raises(UnknownModel):
        asyncio.run(serve("bags").infer(name, version, SAMPLE, call(), ClassificationOptions()))


def test_several_items_are_answered_in_their_places(serve: Serve) -> None:
    mine = call()
    sources: list[Source] = [
        SAMPLE,
        b"no image",
        gradient(),
        {"image": np.zeros((9, 9), np.float32)},
    ]
    first, unsupported, opened, shape = asyncio.run(
        serve("bags").infer_each("bags", None, sources, mine, ClassificationOptions())
    )
    assert labelled(first)
    assert labelled(opened)
    assert isinstance(unsupported, UnsupportedImage)
    assert isinstance(shape, BadInput)
    assert mine.items == 2


def test_more_items_than_may_ever_wait_are_too_many(serve: Serve) -> None:
    registry, options = serve("bags"), ClassificationOptions()
    with pytest.raises(TooLarge, match="expected at most 4 images at once, got 5"):
        asyncio.run(registry.infer_each("bags", None, [SAMPLE] * 5, call(), options))
    answers = asyncio.run(registry.infer_each("bags", None, [SAMPLE] * 4, call(), options))
    assert all(map(labelled, answers))


def test_deadline_that_has_passed_is_that_of_the_whole_call(serve: Serve) -> None:
    late = Call("test", timeout_s=0)
    with pytest.raises(DeadlinePassed):
        asyncio.run(
            serve("bags").infer_each("bags", None, [SAMPLE] * 2, late, ClassificationOptions())
        )
