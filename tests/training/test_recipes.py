"""Every recipe from its data files to the service, through the command line.

The data sets are drawn, in the file formats of the real ones; `--smoke` keeps the runs short. What
comes out is a poor model, but a whole artifact.
"""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorflow", reason="recipes need TensorFlow")
pytest.importorskip("keras", reason="recipes need Keras")
pytest.importorskip("h5py", reason="the hand-signs recipe needs h5py")
pytest.importorskip("skimage", reason="the denoiser recipe needs scikit-image")

import keras

from service.artifacts.files import find_artifacts
from service.artifacts.manifest import Manifest, read_manifest
from service.call import Call
from service.inference.memory import Memory
from service.inference.model import Model
from service.inference.registry import load_registry
from service.pixels.spec import Scale
from service.settings import Settings
from service.tasks import TASKS
from service.tasks.classification import ClassificationSpec, ExpectedLabel
from service.tasks.denoising import ExpectedImage
from tests.metrics import metrics_of
from tests.training import tiny
from tests.training.drawn import write_fashion_mnist, write_mnist, write_signs
from training import recipes
from training.__main__ import main
from training.data import Split
from training.recipes import denoiser, fashion_mnist, hand_signs


@dataclass(frozen=True)
class Run:
    """A recipe's command line, and what must come of it."""

    command: tuple[str, ...]
    parameters: int | None
    figure: str = "confusion.png"
    after: tuple[str, ...] = ()


SIBLINGS = ("fashion-mnist-dense", "fashion-mnist-mlp")
RUNS = {
    "fashion-mnist-dense": Run(("fashion-mnist", "--network", "dense"), 575_050),
    "fashion-mnist-mlp": Run(("fashion-mnist", "--network", "mlp"), 235_146),
    # Its card compares all three networks, so it comes last.
    "fashion-mnist": Run(("fashion-mnist",), 219_690, after=SIBLINGS),
    "hand-signs": Run(("hand-signs", "--data", "data/signs"), 182_950),
    "denoiser": Run(("denoiser",), None, figure="before-after.png"),
}
# One of each task is enough to see that nothing broke; the others take as long again.
QUICK = ("fashion-mnist-mlp", "denoiser")
NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name) for name in RUNS
]
CLASSIFIERS = [name for name in NAMES if name.id != "denoiser"]


class Trainer:
    """A folder with every data set, in which each recipe runs once and only if asked for."""

    def __init__(self, folder: Path) -> None:
        self.models = folder / "models"
        self.garments = write_fashion_mnist(folder / "keras" / "datasets" / "fashion-mnist")
        write_mnist(folder / "keras" / "datasets")
        write_signs(folder / "data" / "signs")
        self._done: set[str] = set()

    def artifact(self, name: str) -> Path:
        """The folder that the recipe for this model wrote."""
        if name not in self._done:
            self._done.add(name)
            for other in RUNS[name].after:
                self.artifact(other)
            assert main([*RUNS[name].command, "--smoke", "--out", str(self.models)]) == 0
        return self.models / name / "1"

    def manifest(self, name: str) -> Manifest:
        return read_manifest(self.artifact(name), TASKS)


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    folder = tmp_path_factory.mktemp("trainer")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # checkpoints go to the current directory
        patch.setenv("KERAS_HOME", str(folder / "keras"))
        yield Trainer(folder)


def served(models: Path, name: str) -> Model:
    """The model as the service loads it: verified, proven on its sample, warm."""
    settings = Settings(models_dir=models, models=(name,), workers=1, device="cpu")
    artifacts = find_artifacts(models, (name,), TASKS)
    metrics = metrics_of(*(artifact.manifest for artifact in artifacts))
    memory = Memory(settings, None, 0)
    return load_registry(artifacts, TASKS, settings, metrics, memory=memory).find(name)


def labels_of(manifest: Manifest) -> tuple[str, ...]:
    """The labels of a classifier."""
    assert isinstance(manifest.task, ClassificationSpec)
    return manifest.task.labels


def answered(folder: Path) -> Any:
    """What the service answers to the sample of this artifact."""

    async def ask() -> Any:
        model = served(folder.parents[1], folder.parent.name)
        try:
            sample = (folder / model.manifest.sample.file).read_bytes()
            answer = await model.infer(sample, model.task.default_options, Call("test"))
            return answer.content
        finally:
            model.close()

    return asyncio.run(ask())


@pytest.mark.parametrize("name", NAMES)
def test_recipe_writes_a_whole_artifact(name: str, trainer: Trainer) -> None:
    folder = trainer.artifact(name)
    files = {path.name for path in folder.iterdir()}
    assert files == {"manifest.json", *trainer.manifest(name).files}
    assert {"model.keras", "model.tflite", "README.md", "sample.png", "curves.png"} <= files
    assert RUNS[name].figure in files


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_network_has_its_number_of_parameters(name: str, trainer: Trainer) -> None:
    assert trainer.manifest(name).parameters == RUNS[name].parameters


def test_denoiser_has_at_most_300_000_parameters(trainer: Trainer) -> None:
    assert trainer.manifest("denoiser").parameters <= 300_000


@pytest.mark.slow
def test_same_command_gives_the_same_metrics(trainer: Trainer, tmp_path: Path) -> None:
    command = RUNS["fashion-mnist-mlp"].command
    assert main([*command, "--smoke", "--out", str(tmp_path)]) == 0
    again = read_manifest(tmp_path / "fashion-mnist-mlp" / "1", TASKS)
    assert again.metrics == trainer.manifest("fashion-mnist-mlp").metrics


@pytest.mark.parametrize("name", NAMES)
def test_recipe_leaves_no_checkpoints(name: str, trainer: Trainer) -> None:
    trainer.artifact(name)
    assert not Path(".checkpoints").exists()


@pytest.mark.parametrize("name", NAMES)
def test_manifest_records_the_command(name: str, trainer: Trainer) -> None:
    training = trainer.manifest(name).training
    assert training.recipe == RUNS[name].command[0]
    assert training.arguments["smoke"] is True
    assert training.seed == training.arguments["seed"] == 1
    assert "data" not in training.arguments


@pytest.mark.parametrize("name", NAMES)
def test_manifest_records_the_checksum_of_every_data_file(name: str, trainer: Trainer) -> None:
    files = {
        "hand-signs": set(hand_signs.FILES),
        "denoiser": {*fashion_mnist.FILES, "mnist.npz"},
    }.get(name, set(fashion_mnist.FILES))
    assert trainer.manifest(name).training.dataset_sha256.keys() == files


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_metrics_are_of_the_whole_test_split(name: str, trainer: Trainer) -> None:
    manifest = trainer.manifest(name)
    each = {len(hand_signs.LABELS): 3, len(fashion_mnist.LABELS): 2}[len(labels_of(manifest))]
    assert manifest.metrics["test_count"] == each * len(labels_of(manifest))
    assert all(manifest.metrics[f"count/{label}"] == each for label in labels_of(manifest))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_service_answers_the_sample_as_recorded(name: str, trainer: Trainer) -> None:
    expected = trainer.manifest(name).sample.expected
    assert isinstance(expected, ExpectedLabel)
    answer = answered(trainer.artifact(name))
    assert (answer["label"], answer["index"]) == (expected.label, expected.index)
    assert answer["probability"] == pytest.approx(expected.probability, abs=expected.tolerance)


def test_service_denoises_the_sample_at_its_own_size(trainer: Trainer) -> None:
    folder = trainer.artifact("denoiser")

    with (
        Image.open(BytesIO(answered(folder))) as answer,
        Image.open(folder / "sample-expected.png") as expected,
    ):
        assert (answer.mode, answer.size) == ("L", (28, 28))
        off = np.abs(np.asarray(answer, dtype=int) - np.asarray(expected, dtype=int))
    recorded = trainer.manifest("denoiser").sample.expected
    assert isinstance(recorded, ExpectedImage)
    assert off.max() <= recorded.tolerance


def test_mlp_carries_the_standardisation_of_its_training_images(trainer: Trainer) -> None:
    scale = trainer.manifest("fashion-mnist-mlp").input.scale
    pixels = trainer.garments / 255
    assert scale.divisor == 255
    assert scale.mean == pytest.approx(pixels.mean())
    assert scale.deviation == pytest.approx(pixels.std())


STANDARDISED = ("fashion-mnist-mlp", "hand-signs")


@pytest.mark.slow
def test_hand_signs_are_standardised(trainer: Trainer) -> None:
    scale = trainer.manifest("hand-signs").input.scale
    pixels, _ = hand_signs.read_split(trainer.models.parent / "data" / "signs", "train")
    assert scale.mean == pytest.approx(pixels.mean() / 255)
    assert scale.deviation == pytest.approx(pixels.std() / 255)


@pytest.mark.parametrize("name", [name for name in NAMES if name.id not in STANDARDISED])
def test_other_networks_take_pixels_from_0_to_1(name: str, trainer: Trainer) -> None:
    assert trainer.manifest(name).input.scale == Scale()


@pytest.mark.slow
def test_cnn_is_compared_with_its_siblings(trainer: Trainer) -> None:
    cnn = trainer.manifest("fashion-mnist")
    for name in SIBLINGS:
        kind = name.removeprefix("fashion-mnist-")
        accuracy = trainer.manifest(name).metrics["accuracy"]
        assert cnn.metrics[f"accuracy/network {kind}"] == accuracy
        assert cnn.metrics[f"parameters/network {kind}"] == RUNS[name].parameters
        row = f"| {kind} | {RUNS[name].parameters:,} | {accuracy:.4f} |"
        assert row in (trainer.artifact("fashion-mnist") / "README.md").read_text()


@pytest.mark.parametrize("kind", ["cnn", "dense", "mlp"])
def test_networks_are_compared_on_the_same_augmentation(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []
    monkeypatch.setattr(fashion_mnist, "fit_classifier", lambda *given, **_: found.extend(given))
    images = np.full((200, 28, 28, 1), 2, np.float32)
    images[:, 0] = black = np.float32(-0.8)  # as that of standardised images
    split = Split(images, np.zeros(200, np.int64))
    fashion_mnist.train(fashion_mnist.build(kind), split, split, 1, tiny.options(tmp_path))
    network, layers, *_ = found
    assert network.name == kind
    assert [type(layer).__name__ for layer in layers] == ["RandomFlip", "RandomTranslation"]
    moved = keras.Sequential([keras.Input((28, 28, 1)), *layers])(images, training=True)
    assert set(np.unique(moved)) == {black, 2}


def test_cnn_without_siblings_says_that_they_are_to_be_trained(tmp_path: Path) -> None:
    assert fashion_mnist.sibling_metrics(tmp_path) == {}


def test_sibling_without_a_manifest_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "fashion-mnist-mlp" / "1").mkdir(parents=True)
    assert fashion_mnist.sibling_metrics(tmp_path) == {}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_card_shows_the_accuracy(name: str, trainer: Trainer) -> None:
    card = (trainer.artifact(name) / "README.md").read_text()
    assert f"**{trainer.manifest(name).metrics['accuracy']:.4f}**" in card


def test_denoisers_card_shows_no_number_that_is_not_in_its_manifest(trainer: Trainer) -> None:
    metrics = trainer.manifest("denoiser").metrics
    table = denoiser.results(trainer.manifest("denoiser"))
    assert table in (trainer.artifact("denoiser") / "README.md").read_text()
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(lines) == 2 * len(denoiser.SIGMAS)
    for line in lines:
        data, count, sigma, *cells, gain = (cell.strip() for cell in line.strip("|").split("|"))
        assert count == f"{metrics[f'test_count/{data}']:,.0f}"
        key = f"{data} sigma {sigma}"
        for kind, cell in zip(("noisy", "denoised", "nlm"), cells, strict=True):
            psnr, ssim = metrics[f"psnr_db/{key} {kind}"], metrics[f"ssim/{key} {kind}"]
            assert cell.strip("*") == f"{psnr:.2f} / {ssim:.3f}"
        over = metrics[f"psnr_db/{key} denoised"] - metrics[f"psnr_db/{key} nlm"]
        assert gain == f"{over:+.2f} dB"


@pytest.mark.parametrize("sigma", denoiser.SIGMAS)
def test_denoisers_overall_figure_is_the_mean_of_both_data_sets(
    sigma: float, trainer: Trainer
) -> None:
    metrics = trainer.manifest("denoiser").metrics
    both = [
        metrics[f"psnr_db/{data} sigma {sigma} denoised"] for data in ("fashion_mnist", "mnist")
    ]
    assert metrics[f"psnr_db_sigma_{sigma}"] == pytest.approx(sum(both) / 2, abs=1e-5)


def test_metric_of_the_denoiser_is_psnr() -> None:
    clean = np.zeros((2, 4, 4, 1), dtype=np.float32)
    off = clean + np.array([0.1, 0.01], dtype=np.float32).reshape(2, 1, 1, 1)
    assert np.asarray(denoiser.psnr_metric(clean, off)) == pytest.approx([20, 40], abs=1e-4)


def test_noise_is_such_as_an_8_bit_image_can_hold() -> None:
    clean = np.full((20, 16, 16, 1), 0.5, dtype=np.float32)
    noisy = denoiser.add_noise(clean, np.random.default_rng(1))
    assert noisy.shape == clean.shape
    assert noisy.dtype == np.float32
    levels = noisy * 255
    assert np.abs(levels - np.rint(levels)).max() < 1e-4
    assert (noisy.min(), noisy.max()) == (0, 1)


def batches_of_two_epochs(seed: int) -> list[Any]:
    images = np.random.default_rng(1).random((100, 8, 8, 1), dtype=np.float32)
    batches = denoiser.NoisyBatches(images, seed)
    found = []
    for _ in range(2):
        found.append(np.concatenate([batches[index][0] for index in range(len(batches))]))
        batches.on_epoch_end()
    return found


def test_noise_is_new_every_epoch() -> None:
    first, second = batches_of_two_epochs(seed=1)
    assert len(first) == len(second) == 100
    assert (first != second).any()


@pytest.mark.parametrize(("seed", "same"), [(1, True), (2, False)])
def test_noise_is_the_same_for_the_same_seed_only(seed: int, same: bool) -> None:
    pairs = zip(batches_of_two_epochs(seed=1), batches_of_two_epochs(seed), strict=True)
    assert [np.array_equal(one, other) for one, other in pairs] == [same, same]


FOURTH = '''
    """Day or night: whether a picture is light or dark.

    Data: drawn by the recipe.
    """

    from pathlib import Path

    import keras
    import numpy as np
    from PIL import Image

    from service.pixels.spec import Cover, Input
    from training.card import Card
    from training.data import Split, hold_out, prepare
    from training.evaluation import classification_metrics
    from training.export import Trained, export
    from training.fit import fit, seed_everything
    from training.options import Options
    from training.tasks import Classification

    LABELS = ("night", "day")
    INPUT = Input(shape=(6, 9, 3), color="rgb", resize=Cover())


    def run(options: Options) -> Path:
        seed_everything(options.seed)
        training, validation = hold_out(draw(1), 0.25, options.seed)
        pool = keras.layers.GlobalAveragePooling2D()
        network = keras.Sequential([pool, keras.layers.Dense(2, "softmax")])
        network.compile(keras.optimizers.Adam(0.3), "sparse_categorical_crossentropy")
        fit(
            network,
            (training.images, training.labels),
            (validation.images, validation.labels),
            checkpoints=options.checkpoints,
            epochs=8,
            patience=8,
            monitor="val_loss",
        )
        test = draw(2)
        answers = network.predict(test.images)
        return export(
            Trained(
                name="day-or-night",
                task=Classification(LABELS),
                input=INPUT,
                network=network,
                validation=validation.images,
                validation_truth=validation.labels,
                calibration=training.images,
                metrics=classification_metrics(test.labels, answers, LABELS),
                sample=Image.new("RGB", (30, 20), (230, 240, 250)),
                dataset="drawn",
                dataset_sha256={},
                seconds=0.0,
                card=Card("Day or night", "Fun.", "All else.", "Drawn.", "Many.", figures=()),
                draw_figures=lambda folder: None,
            ),
            options,
        )


    def draw(seed: int) -> Split:
        labels = np.arange(40) % 2
        noise = np.random.default_rng(seed).integers(0, 60, (40, 6, 9, 3))
        images = (noise + 190 * labels.reshape(-1, 1, 1, 1)).astype(np.uint8)
        return Split(prepare(images, INPUT), labels)
'''


@pytest.fixture
def fourth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A recipe that is one file and nothing else; its name."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "day_or_night.py").write_text(dedent(FOURTH).lstrip())
    monkeypatch.setattr(recipes, "__path__", [str(tmp_path / "recipes")])
    monkeypatch.chdir(tmp_path)
    yield "day-or-night"
    sys.modules.pop("training.recipes.day_or_night", None)


def test_new_recipe_is_listed_by_its_file_alone(
    fourth: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main([])
    described = "Day or night: whether a picture is light or dark."
    assert capsys.readouterr().out.splitlines()[1:] == [f"  {fourth}  {described}"]


def test_new_recipe_is_served_without_a_change_of_the_service(
    fourth: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([fourth, "--out", "models"]) == 0
    assert "VITRINE_MODELS_DIR=models make serve" in capsys.readouterr().out
    folder = tmp_path / "models" / fourth / "1"
    assert answered(folder)["label"] == "day"
    assert read_manifest(folder, TASKS).metrics["accuracy"] == 1
