"""Export a trained network as an artifact that the service loads; writes the manifest last."""

import hashlib
import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from PIL import Image

from service.artifacts.manifest import (
    MANIFEST_FILE,
    SCHEMA,
    Device,
    EngineName,
    File,
    Manifest,
    Training,
    parse_manifest,
    write_manifest,
)
from service.engines.device import open_engine
from service.pixels.preprocess import Floats, preprocess
from service.pixels.spec import Input
from service.tasks import TASKS
from training.card import Card, render_card
from training.engines import sample_answer, write_engines
from training.measure import Engines
from training.options import Options
from training.signing import SIGNATURE_FILE
from training.tasks.task import INPUT, TrainingTask

CALIBRATION_IMAGES = 400
LIBRARIES = ("keras", "tensorflow", "jax", "torch", "numpy", "pillow", "ai-edge-litert")


@dataclass(frozen=True)
class Trained:
    """A trained network, and everything else that its artifact contains."""

    name: str
    task: TrainingTask
    input: Input
    network: keras.Model
    validation: Floats
    validation_truth: Any
    """The right answers: labels (n,), or the images that a denoiser should return."""
    calibration: Floats
    """CALIBRATION_IMAGES preprocessed training images; the 8-bit engines are fitted to them."""
    metrics: dict[str, float]
    sample: Image.Image
    dataset: str
    dataset_sha256: dict[str, str]
    seconds: float
    card: Card
    draw_figures: Callable[[Path], None]
    latency_objective_s: float | None = 0.25
    """99 % of the requests are to be answered within; None where it depends on the input."""
    base: str | None = None
    base_sha256: str | None = None


def export(trained: Trained, options: Options) -> Path:
    """Write `<out>/<name>/<next version>/`; raises ExportError as `write_engines` does."""
    parent = options.out / trained.name
    parent.mkdir(parents=True, exist_ok=True)
    version = str(1 + max((int(p.name) for p in parent.iterdir() if p.name.isdigit()), default=0))
    with tempfile.TemporaryDirectory(dir=parent, prefix=".writing-") as scratch:
        folder = Path(scratch) / version
        folder.mkdir()
        image = preprocess(trained.sample, trained.input)
        engines, choice = write_engines(
            trained.network,
            folder,
            trained.task,
            inputs=trained.validation,
            truth=trained.validation_truth,
            calibration=trained.calibration,
            sample=image,
        )
        sample = _write_sample(trained, image, folder, engines, tuple(choice.values()))
        trained.draw_figures(folder)
        draft = _manifest(trained, options, version, engines=engines, choice=choice, sample=sample)
        (folder / "README.md").write_text(render_card(draft, trained.card))
        write_manifest(folder, draft.model_copy(update={"files": listed_files(folder)}))
        return Path(shutil.move(folder, parent / version))


def listed_files(folder: Path) -> dict[str, File]:
    """Size and checksum of everything in an artifact but its manifest and that one's signature."""
    return {
        path.name: File(
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(), bytes=path.stat().st_size
        )
        for path in sorted(folder.iterdir())
        if path.name not in (MANIFEST_FILE, SIGNATURE_FILE)
    }


def _write_sample(
    trained: Trained,
    image: Floats,
    folder: Path,
    engines: Engines,
    served: Sequence[EngineName],
) -> dict[str, Any]:
    """Record the float network's answer to the sample, and how far the served engines differ.

    They agree in the task's sense: `write_engines` chooses no other.
    """
    trained.sample.save(folder / "sample.png", optimize=True)
    tensors = {"inputs": [INPUT], "outputs": list(trained.task.outputs())}
    opened = (
        open_engine(name, folder / str(engines[name].file), "cpu", 1, **tensors)
        for name in ("keras", *served)
    )
    answers = [sample_answer(engine, image, trained.task) for engine in opened]
    return {"file": "sample.png", "expected": trained.task.expected(answers, folder)}


def _manifest(
    trained: Trained,
    options: Options,
    version: str,
    *,
    engines: Engines,
    choice: dict[Device, EngineName],
    sample: dict[str, Any],
) -> Manifest:
    fields = {
        "schema": SCHEMA,
        "name": trained.name,
        "version": version,
        "task": trained.task.spec(),
        "input": trained.input,
        "inputs": trained.task.inputs(trained.input),
        "outputs": trained.task.outputs(),
        "parameters": trained.network.count_params(),
        "metrics": {name: round(value, 6) for name, value in trained.metrics.items()},
        "latency_objective_s": trained.latency_objective_s,
        "engines": engines,
        "engine": choice,
        "files": {},
        "sample": sample,
        "training": Training(
            recipe=options.recipe,
            arguments=options.arguments,
            seed=options.seed,
            dataset=trained.dataset,
            dataset_sha256=trained.dataset_sha256,
            base=trained.base,
            base_sha256=trained.base_sha256,
            commit=options.commit,
            libraries=_library_versions(),
            seconds=round(trained.seconds, 1),
        ),
    }
    return parse_manifest(fields, TASKS)


def _library_versions() -> dict[str, str]:
    versions: dict[str, str] = {}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
