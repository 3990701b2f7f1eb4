"""The manifest of an artifact: what training writes and the service reads, typed once.

It does not know the tasks: `parse_manifest` gets them as an argument. Each task brings the types
of its own part and of its sample's answer.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import (
    Field,
    FiniteFloat,
    SerializeAsAny,
    StringConstraints,
    ValidationError,
    create_model,
    model_validator,
)

from service.artifacts.schema_1 import convert
from service.errors import ArtifactError
from service.part import Part
from service.pixels.spec import Input

MANIFEST_FILE = "manifest.json"
SCHEMA = 2

# They decide the batch size: what a call costs the service beside the engine's own time, and the
# gain below which a larger batch is not worth its wait.
CALL_MS = 0.1
ABOUT_AS_QUICK = 1.1

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=63)]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9]+$", max_length=9)]
Label = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=200)]
TensorName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$", max_length=63)]
EngineName = Literal["litert", "litert-dynamic-int8", "litert-int8", "keras", "keras-half"]
Device = Literal["cpu", "gpu"]
BatchSize = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]*$", max_length=6)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class TaskSpec(Part):
    """The part of a manifest that belongs to its kind of model; `type` says which kind."""

    type: str


class Tensor(Part):
    """An input or output of the network: the shape of one item, without the batch."""

    shape: tuple[Annotated[int, Field(gt=0)] | None, ...]
    dtype: Literal["float32"] = "float32"
    meaning: str
    """What the numbers stand for, in the words of the task: pixels, probabilities, logits, …"""


class Engine(Part):
    """One way to run the network, and what export measured of it on the validation split."""

    file: FileName | None = None
    """None for one that was measured and not kept."""
    max_abs_difference: FiniteFloat = Field(ge=0)
    """From the float network's output."""
    quality: dict[str, FiniteFloat] = Field(default_factory=dict)
    """How right its answers are, by the task's measures."""
    milliseconds: dict[BatchSize, float] = Field(min_length=1)
    """Of one batch, by its size; a CPU gets none larger unless VITRINE_MAX_BATCH_SIZE says so."""

    @property
    def best_batch(self) -> int:
        """The smallest batch whose time per image is within 10 % of the best that was measured.

        Where batching saves nothing, single images wait less.
        """
        each = {int(size): (ms + CALL_MS) / int(size) for size, ms in self.milliseconds.items()}
        return min(size for size, ms in each.items() if ms <= ABOUT_AS_QUICK * min(each.values()))


class File(Part):
    """A file of the artifact, as it must be."""

    sha256: Sha256
    bytes: int = Field(ge=0)


class Sample(Part):
    """An image drawn by the project, and what the network answers to it."""

    file: FileName
    expected: SerializeAsAny[Part]
    """The recorded answer, of the type that the task says."""


class Training(Part):
    """Where the weights come from."""

    recipe: str
    arguments: dict[str, str | int | float | bool | None]
    seed: int
    dataset: str
    dataset_sha256: dict[str, Sha256]
    base: str | None = None
    """The model whose weights it started from."""
    base_sha256: Sha256 | None = None
    """Of those weights."""
    commit: str
    libraries: dict[str, str]
    seconds: float = Field(ge=0)


class Manifest(Part):
    """What a folder `models/<name>/<version>/` holds; without it the folder is no artifact."""

    schema_: Literal[2] = Field(alias="schema")
    name: ModelName
    version: Version
    task: SerializeAsAny[TaskSpec]
    input: Input
    """All of the preprocessing."""
    inputs: dict[TensorName, Tensor] = Field(min_length=1)
    outputs: dict[TensorName, Tensor] = Field(min_length=1)
    parameters: int = Field(gt=0)
    metrics: dict[str, FiniteFloat]
    """Measured on the test split."""
    latency_objective_s: float | None = Field(default=None, gt=0)
    """99 % of the requests are to be answered within; None where it depends on the input."""
    engines: dict[EngineName, Engine] = Field(min_length=1)
    engine: dict[Device, EngineName] = Field(min_length=1)
    """The choice that export made by measurement: what is served on each kind of device."""
    files: dict[FileName, File]
    sample: Sample
    training: Training

    @model_validator(mode="after")
    def _has_engines(self) -> Self:
        for device, name in self.engine.items():
            if name not in self.engines or self.engines[name].file is None:
                kept = [name for name, engine in self.engines.items() if engine.file]
                raise ValueError(
                    f"expected an engine for the {device} among those with a file, {kept}, "
                    f"got {name!r}"
                )
            if device == "gpu" and not name.startswith("keras"):
                raise ValueError(f"expected a Keras engine for the gpu, got {name!r}")
        return self

    def sample_files(self) -> set[str]:
        """The files that the sample and its recorded answer lie in."""
        answer = getattr(self.sample.expected, "file", None)
        return {self.sample.file} | ({str(answer)} if answer else set())


class TaskType(Protocol):
    """What a manifest asks of a kind of model."""

    name: str
    spec_type: type[TaskSpec]
    expected_type: type[Part]

    def check(self, manifest: Manifest, /) -> None:
        """Raise ValueError where the manifest's parts contradict each other."""
        ...

    def from_schema_1(self, manifest: Mapping[str, Any], /) -> dict[str, Any]:
        """The fields `task`, `inputs` and `outputs` of a manifest of schema 1."""
        ...


Tasks = Mapping[str, TaskType]


def parse_manifest(fields: Mapping[str, Any], tasks: Tasks) -> Manifest:
    """Check a manifest's fields, of schema 1 or 2; raises ValueError or ArtifactError."""
    if fields.get("schema") == 1:
        fields = convert(fields, tasks)
    part = fields.get("task")
    kind = part.get("type") if isinstance(part, Mapping) else part
    if not isinstance(kind, str) or kind not in tasks:
        raise ArtifactError(
            f"field task.type: expected one of {', '.join(tasks)}, got {kind!r:.80}; "
            "VITRINE_PLUGINS names modules that add others"
        )
    manifest = _manifest_type(tasks[kind].spec_type, tasks[kind].expected_type).model_validate(
        fields
    )
    tasks[kind].check(manifest)
    return manifest


@cache
def _manifest_type(spec: type[TaskSpec], expected: type[Part]) -> type[Manifest]:
    """Manifest with the types that a task brings, so that errors name the field."""
    sample = create_model("Sample", __base__=Sample, expected=(expected, ...))
    return create_model("Manifest", __base__=Manifest, task=(spec, ...), sample=(sample, ...))


def read_manifest(folder: Path, tasks: Tasks) -> Manifest:
    """Read `folder`'s manifest; raises ArtifactError, naming the fields that are wrong."""
    path = folder / MANIFEST_FILE
    try:
        fields = json.loads(path.read_bytes())
        if not isinstance(fields, dict):
            raise ArtifactError(f"expected an object, got {fields!r:.80}")
        return parse_manifest(fields, tasks)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ArtifactError(f"{path}: {_field_problems(error)}") from error
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{path}: expected JSON: {error}") from error
    except RecursionError as error:
        raise ArtifactError(f"{path}: expected a manifest, got JSON that is too deep") from error
    except (ValueError, ArtifactError) as error:
        raise ArtifactError(f"{path}: {error}") from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `folder`'s manifest: the last step that makes an artifact."""
    text = manifest.model_dump_json(by_alias=True, indent=2)
    (folder / MANIFEST_FILE).write_text(text + "\n")


def _field_problems(error: ValidationError) -> str:
    problems: list[str] = []
    for detail in error.errors(include_url=False):
        field = ".".join(str(part) for part in detail["loc"])
        where = f"field {field}: " if field else ""  # of the manifest as a whole
        came: Any = detail["input"]
        given = "" if isinstance(came, dict) else f", got {came!r:.80}"
        problems.append(f"{where}{detail['msg']}{given}")
    return "; ".join(problems)
