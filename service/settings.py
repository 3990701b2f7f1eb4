"""All settings: one frozen object, read once from the environment; a mistake stops the start."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from service.errors import SettingsError
from service.machine import default_workers

PREFIX = "VITRINE_"

# What Kubernetes puts into every pod for a Service called vitrine or vitrine-something. A `…_PORT`
# holds an address there; a number is somebody's guess at a setting.
_SERVICE_LINK = re.compile(
    r"VITRINE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)=.*"
    r"|VITRINE_(\w+_)?PORT=\w+://.*",
    re.DOTALL,
)


class Settings(BaseModel):
    """The settings, named `VITRINE_` and the field's name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models_dir: Path = Path(__file__).resolve().parent.parent / "models"
    """Folder of artifacts, `<name>/<version>/`; by default `models` beside `service`."""
    models: tuple[str, ...] = ()
    """Names to serve, separated by commas; none means all."""
    plugins: tuple[str, ...] = ()
    """Modules to import at the start, separated by commas: they add kinds of model to TASKS."""
    default_models: Mapping[str, str] = Field(default_factory=dict)
    """The model that answers a form route where none is named: `classify=NAME,denoise=NAME`."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where networks run; `gpu` without a GPU stops the start, `auto` takes what there is."""
    workers: int = Field(
        default_factory=lambda known: default_workers(known.get("device", "cpu")), ge=1
    )
    """Processes that serve; by default one a GPU, else one a CPU of the cgroup's limit."""
    queue_limit: int = Field(default=256, ge=1)
    """Images that may wait for one model in one worker; more are refused with 503."""
    max_batch_size: int | None = Field(default=None, ge=1)
    """Images that one call of a network takes; by default the most that export measured."""
    max_image_bytes: int = Field(default=10_000_000, ge=1)
    """Encoded bytes of one image."""
    max_image_pixels: int = Field(default=50_000_000, ge=1)
    """Pixels of one image, known before it is unpacked."""
    max_denoise_pixels: int = Field(default=4_000_000, ge=1)
    """Pixels of one image for a denoiser, which computes them all."""
    max_images_per_request: int = Field(default=64, ge=1)
    """Parts named `image` in one form."""
    max_request_bytes: int = Field(default=100_000_000, ge=1)
    """Bytes of one request's body."""
    request_timeout_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    """Seconds from the first byte to the answer; after that 504."""
    drain_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Seconds after SIGTERM in which `/readyz` is 503 while requests are still taken."""
    api_tokens_file: Path | None = None
    """File with the SHA-256 of each bearer token that is taken, one a line; none lets all in."""
    metrics_dir: Path | None = None
    """Folder in which workers share their metrics; by default a temporary one of the server."""
    metrics: bool = True
    """Whether `/metrics` is there."""
    log_requests: bool = False
    """One log line a request."""
    log_format: Literal["text", "json"] = "text"
    """How log lines are written."""

    @field_validator("default_models", mode="before")
    @classmethod
    def _split_pairs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
        if any(not (verb.strip() and name.strip()) for verb, _, name in pairs):
            raise ValueError("expected verb=name,verb=name")
        return {verb.strip(): name.strip() for verb, _, name in pairs}

    @field_validator("models", "plugins", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings; raises SettingsError that names every unknown or unusable one."""
    fields = {PREFIX + field.upper(): field for field in Settings.model_fields}
    ours = {
        name: value
        for name, value in environment.items()
        if name.startswith(PREFIX) and not _SERVICE_LINK.fullmatch(f"{name}={value}")
    }
    unknown = sorted(ours.keys() - fields.keys())
    if unknown:
        raise SettingsError(
            f"unknown setting {', '.join(unknown)}: expected one of {', '.join(sorted(fields))}"
        )
    try:
        return Settings.model_validate({fields[name]: value for name, value in ours.items()})
    except ValidationError as error:
        problems = (
            f"{PREFIX}{str(detail['loc'][0]).upper()}: {detail['msg']}, got {detail['input']!r}"
            for detail in error.errors(include_url=False)
            if detail["type"] != "default_factory_not_called"  # of one that depends on another
        )
        raise SettingsError("; ".join(problems)) from error
