"""Manifests of schema 1, which knew two tasks and one output, as schema 2."""

from collections.abc import Mapping
from typing import Any, Protocol

from service.errors import ArtifactError

_QUALITY = ("label_agreement", "accuracy", "psnr_db")
_REPLACED = ("task", "labels", "output", "tiling", "input", "engines")


class _Converter(Protocol):
    def from_schema_1(self, manifest: Mapping[str, Any], /) -> dict[str, Any]: ...


def convert(manifest: Mapping[str, Any], tasks: Mapping[str, _Converter]) -> dict[str, Any]:
    """The same manifest in schema 2, not checked; raises ArtifactError for an unknown task.

    Its task says which fields of the old form become what. Also raises ArtifactError for a field
    without which there is nothing to convert.
    """
    task = manifest.get("task")
    if not isinstance(task, str) or task not in tasks:
        raise ArtifactError(
            f"field task: expected one of {', '.join(tasks)} in a manifest of schema 1, "
            f"got {task!r:.80}"
        )
    _check_convertible(manifest)
    try:
        own = tasks[task].from_schema_1(manifest)
    except KeyError as error:
        raise ArtifactError(f"field {error.args[0]}: missing in a manifest of schema 1") from error
    engines = {name: _engine(engine) for name, engine in manifest["engines"].items()}
    inputs = {"type": "image", **manifest["input"]}
    kept = {name: value for name, value in manifest.items() if name not in _REPLACED}
    return {**kept, "schema": 2, **own, "input": inputs, "engines": engines}


def _check_convertible(manifest: Mapping[str, Any]) -> None:
    objects = {field: manifest.get(field) for field in ("input", "output", "engines")}
    if isinstance(objects["engines"], dict):
        objects |= {f"engines.{name}": engine for name, engine in objects["engines"].items()}
    for field, value in objects.items():
        if not isinstance(value, dict):
            raise ArtifactError(f"field {field}: expected an object, got {value!r:.80}")
    parameters = manifest.get("parameters")
    if not isinstance(parameters, int):
        raise ArtifactError(f"field parameters: expected a whole number, got {parameters!r:.80}")


def _engine(engine: Mapping[str, Any]) -> dict[str, Any]:
    quality = {name: engine[name] for name in _QUALITY if engine.get(name) is not None}
    kept = {name: value for name, value in engine.items() if name not in _QUALITY}
    return {**kept, "quality": quality}
