"""Manifests of schema 1, which knew two tasks and one output, as schema 2."""

from collections.abc import Mapping
from typing import Any, Protocol

from service.errors import ArtifactError

_QUALITY = ("label_agreement", "accuracy", "psnr_db")
_LARGE_PARAMETERS = 5_000_000


class _Converter(Protocol):
    def from_schema_1(self, manifest: Mapping[str, Any], /) -> dict[str, Any]: ...


def convert(manifest: Mapping[str, Any], tasks: Mapping[str, _Converter]) -> dict[str, Any]:
    """The same manifest in schema 2, not checked; raises ArtifactError for an unknown task.

    Its task says which fields of the old form become what.
    """
    task = manifest.get("task")
    if not isinstance(task, str) or task not in tasks:
        raise ArtifactError(
            f"field task: expected one of {', '.join(tasks)} in a manifest of schema 1, "
            f"got {task!r:.80}"
        )
    try:
        own = tasks[task].from_schema_1(manifest)
        engines = {name: _engine(engine) for name, engine in manifest["engines"].items()}
        inputs = {"type": "image", **manifest["input"]}
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ArtifactError(f"a manifest of schema 1 without a usable field {error}") from error
    kept = {name: value for name, value in manifest.items() if name not in _REPLACED}
    return {**kept, "schema": 2, **own, "input": inputs, "engines": engines}


_REPLACED = ("task", "labels", "output", "tiling", "input", "engines")


def _engine(engine: Mapping[str, Any]) -> dict[str, Any]:
    quality = {name: engine[name] for name in _QUALITY if engine.get(name) is not None}
    kept = {name: value for name, value in engine.items() if name not in _QUALITY}
    return {**kept, "quality": quality}
