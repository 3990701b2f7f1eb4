"""The manifest of an artifact: what training writes and the service reads, typed once."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    FiniteFloat,
    StringConstraints,
    ValidationError,
    model_validator,
)

from service.errors import ArtifactError
from service.part import Part
from service.pixels.spec import Input, KeepSize, Tiling

MANIFEST_FILE = "manifest.json"
SCHEMA = 1

# What decides on the size of a batch: what a call costs the service beside the engine's own time,
# and how small a gain is not worth waiting for.
CALL_MS = 0.1
ABOUT_AS_QUICK = 1.1

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=63)]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9]+$", max_length=9)]
Label = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=200)]
EngineName = Literal["litert", "litert-dynamic-int8", "litert-int8", "keras", "keras-half"]
Device = Literal["cpu", "gpu"]
BatchSize = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]*$", max_length=6)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Output(Part):
    """What the network gives: the shape of one item, without the batch."""

    shape: tuple[int | None, ...]
    dtype: Literal["float32"] = "float32"
    meaning: Literal["probabilities", "pixels"]


class Engine(Part):
    """One way to run the network, and what export measured of it on the validation split."""

    file: FileName | None = None
    """None for one that was measured and not kept."""
    max_abs_difference: FiniteFloat = Field(ge=0)
    """From the float network's output."""
    label_agreement: float | None = Field(default=None, ge=0, le=1)
    """The share of images to which it gives the float network's label."""
    accuracy: float | None = Field(default=None, ge=0, le=1)
    psnr_db: FiniteFloat | None = None
    milliseconds: dict[BatchSize, float] = Field(min_length=1)
    """Of one batch, by its size; none larger is served on a CPU, unless the settings say so."""

    @property
    def best_batch(self) -> int:
        """The smallest batch that is about as quick, an image, as any that was measured.

        Where computing together saves nothing, images answered one by one wait for less.
        """
        each = {int(size): (ms + CALL_MS) / int(size) for size, ms in self.milliseconds.items()}
        return min(size for size, ms in each.items() if ms <= ABOUT_AS_QUICK * min(each.values()))


class File(Part):
    """A file of the artifact, as it must be."""

    sha256: Sha256
    bytes: int = Field(ge=0)


class ExpectedLabel(Part):
    """The recorded answer of a classifier to its sample."""

    label: str
    index: int = Field(ge=0)
    probability: float = Field(ge=0, le=1)
    tolerance: float = Field(default=0.02, ge=0, le=1)


class ExpectedImage(Part):
    """The recorded answer of an image-to-image network; `tolerance` in levels of 0 to 255."""

    file: FileName
    tolerance: int = Field(default=2, ge=0, le=255)


class Sample(Part):
    """An image drawn by the project, and what the network answers to it."""

    file: FileName
    expected: ExpectedLabel | ExpectedImage


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
    """What a folder `models/<name>/<version>/` holds; without it the folder does not exist."""

    schema_: Literal[1] = Field(alias="schema")
    name: ModelName
    version: Version
    task: Literal["classification", "denoising"]
    labels: tuple[Label, ...]
    input: Input
    output: Output
    tiling: Tiling | None = None
    parameters: int = Field(gt=0)
    metrics: dict[str, FiniteFloat]
    engines: dict[EngineName, Engine] = Field(min_length=1)
    engine: dict[Device, EngineName] = Field(min_length=1)
    """The choice that export made by measurement: what is served on each kind of device."""
    files: dict[FileName, File]
    sample: Sample
    training: Training

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check_engine()
        if self.task == "classification":
            self._check_classification()
        else:
            self._check_denoising()
        return self

    def _check_engine(self) -> None:
        for device, name in self.engine.items():
            if name not in self.engines or self.engines[name].file is None:
                kept = [name for name, engine in self.engines.items() if engine.file]
                raise ValueError(
                    f"expected an engine for the {device} among those with a file, {kept}, "
                    f"got {name!r}"
                )
            if device == "gpu" and not name.startswith("keras"):
                raise ValueError(f"expected an engine on Keras for the gpu, got {name!r}")

    def _check_classification(self) -> None:
        expected = self.sample.expected
        if None in self.input.shape or len(set(self.labels)) < len(self.labels):
            raise ValueError("expected a fixed size of input, and labels that differ")
        if self.output.meaning != "probabilities" or self.output.shape != (len(self.labels),):
            raise ValueError(
                f"expected an output of probabilities for each of {len(self.labels)} labels, "
                f"got {self.output.meaning} of the shape {self.output.shape}"
            )
        if self.tiling is not None or not isinstance(expected, ExpectedLabel):
            raise ValueError("expected no tiling, and a label as the sample's answer")
        if expected.label not in self.labels[expected.index : expected.index + 1]:
            raise ValueError(
                f"expected the sample's label {expected.label!r} at index {expected.index}, "
                f"got the labels {self.labels}"
            )

    def _check_denoising(self) -> None:
        if self.tiling is None or not isinstance(self.sample.expected, ExpectedImage):
            raise ValueError("expected a tiling, and an image as the sample's answer")
        any_size = Input(shape=(None, None, 1), color="grey", resize=KeepSize())
        if self.input != any_size or self.labels:
            raise ValueError(
                "expected an input of grey pixels of any size that is kept, scaled to 0..1, and no "
                f"labels; got {self.input.shape} {self.input.color}, {len(self.labels)} labels"
            )
        if self.output != Output(shape=(None, None, 1), meaning="pixels"):
            raise ValueError(
                f"expected an output of grey pixels of any size, "
                f"got {self.output.meaning} of the shape {self.output.shape}"
            )


def read_manifest(folder: Path) -> Manifest:
    """Read `folder`'s manifest; raises ArtifactError, naming the fields that are wrong."""
    path = folder / MANIFEST_FILE
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ArtifactError(f"{path}: {_field_problems(error)}") from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `folder`'s manifest: the last step that makes an artifact."""
    text = manifest.model_dump_json(by_alias=True, indent=2)
    (folder / MANIFEST_FILE).write_text(text + "\n")


def _field_problems(error: ValidationError) -> str:
    problems: list[str] = []
    for detail in error.errors(include_url=False):
        field = ".".join(str(part) for part in detail["loc"]) or "the file"
        came: Any = detail["input"]
        given = "" if isinstance(came, dict) else f", got {came!r:.80}"
        problems.append(f"field {field}: {detail['msg']}{given}")
    return "; ".join(problems)
