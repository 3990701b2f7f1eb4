"""Rewrite an artifact's manifest and card in the newest form; the network stays as it is."""

import importlib
import re
from pathlib import Path

from service.artifacts.files import Artifact, verify
from service.artifacts.manifest import Manifest, read_manifest, write_manifest
from service.tasks import TASKS
from training.card import Card, render_card
from training.errors import ExportError
from training.export import listed_files
from training.tasks import TASKS as TRAINING_TASKS

CARD_FILE = "README.md"
_SECTIONS = {
    "purpose": "What it is for",
    "not_for": "What it is not for",
    "data": "Data and licence",
    "limits": "Limits and known biases",
}


def upgrade(folder: Path) -> None:
    """Bring `models/<name>/<version>` to the newest schema.

    Raises ArtifactError for an incomplete artifact, ExportError for a card without the usual
    sections.
    """
    manifest = read_manifest(folder, TASKS)
    verify(Artifact(folder, manifest))
    path = folder / CARD_FILE
    path.write_text(render_card(manifest, _card(path, manifest)))
    write_manifest(folder, manifest.model_copy(update={"files": listed_files(folder)}))


def _card(path: Path, manifest: Manifest) -> Card:
    """The text of a card that was rendered before."""
    text = path.read_text()
    title = re.search(r"^# (.+?)( \(smoke run.*)?$", text, re.MULTILINE)
    words: dict[str, str] = {}
    for field, heading in _SECTIONS.items():
        found = re.search(rf"^## {heading}\n(.*?)\n*(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        if found is None:
            raise ExportError(f"{path}: expected a section {heading!r}, got none")
        words[field] = found[1]
    if title is None:
        raise ExportError(f"{path}: expected a title, got none")
    name = manifest.training.recipe.replace("-", "_")
    recipe = importlib.import_module(f"training.recipes.{name}")
    task = TRAINING_TASKS[manifest.task.type]
    return Card(
        title=title[1],
        **words,
        results=getattr(recipe, "results", None),
        figures=tuple(figure for figure in task.figures if figure[1] in manifest.files),
    )
