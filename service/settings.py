"""All settings, read once from the environment into one frozen object."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from service.errors import SettingsError
from service.machine import decode_memory_bytes, default_workers, memory_limit_bytes

PREFIX = "VITRINE_"

# Kubernetes sets these in every pod for a Service called vitrine or vitrine-something. Its `…_PORT`
# holds an address; one with a number was set by a person, and is an unknown setting.
_SERVICE_LINK = re.compile(
    r"VITRINE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)=.*"
    r"|VITRINE_(\w+_)?PORT=\w+://.*",
    re.DOTALL,
)
_MODEL = re.compile(r"[a-z0-9][a-z0-9-]*(/[0-9]+)?")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
# As a browser writes it: in lower case, without the scheme's own port.
_ORIGIN = re.compile(
    r"(?!http://.*:80$)(?!https://.*:443$)https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"
)
_DEFAULT_MODEL = re.compile(r"(?P<verb>[a-z][a-z0-9-]*)\s*=\s*(?P<name>[a-z0-9][a-z0-9-]*)")


class Settings(BaseModel):
    """The settings. Each is read from `VITRINE_` and the field's name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models_dir: Path = Path(__file__).resolve().parent.parent / "models"
    """Folder of model artifacts, `<name>/<version>/`; by default `models` beside `service`."""
    models: tuple[str, ...] = ()
    """Models to serve, each `name` or `name/version`, separated by commas; by default all."""
    default_models: dict[str, str] = Field(default_factory=dict)
    """Models that answer requests without a model: `classify=fashion-mnist,denoise=denoiser`."""
    plugins: tuple[str, ...] = ()
    """Python modules to import at the start, separated by commas; they may add tasks."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where models run. `gpu` without a GPU stops the start; `auto` uses a GPU if there is one."""
    workers: int = Field(
        default_factory=lambda known: default_workers(known.get("device", "cpu")), ge=1
    )
    """Worker processes; by default one per GPU, or one per CPU of the cgroup's limit."""
    queue_limit: int = Field(default=256, ge=1)
    """Images that may wait for one model in one worker; more are refused with 503."""
    max_batch_size: int | None = Field(default=None, ge=1)
    """Most images in one batch; by default the size that was fastest at the model's export."""
    max_image_bytes: int = Field(default=10_000_000, ge=1)
    """Most bytes of one encoded image."""
    max_image_pixels: int = Field(default=50_000_000, ge=1)
    """Most pixels of one image; checked before it is decoded."""
    decode_memory_bytes: int = Field(
        default_factory=lambda: decode_memory_bytes(memory_limit_bytes()), ge=1
    )
    """Bytes that request bodies and the images in them may take, in all workers together."""
    max_denoise_pixels: int = Field(default=4_000_000, ge=1)
    """Most pixels of one image to denoise."""
    max_images_per_request: int = Field(default=64, ge=1)
    """Most parts named `image` in one form."""
    max_request_bytes: int = Field(default=100_000_000, ge=1)
    """Most bytes of one request's body."""
    request_timeout_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    """Seconds from the first byte of a request until it is answered with 504."""
    keep_alive_s: float = Field(default=75.0, gt=0, allow_inf_nan=False)
    """Seconds until a connection on which nothing arrives is closed; not under BentoML."""
    drain_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Seconds after SIGTERM in which `/readyz` is 503 and requests are still answered."""
    hang_timeout_s: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    """Seconds without a sign of life after which a worker is killed and replaced; 0: never."""
    api_tokens_file: Path | None = None
    """File with the SHA-256 of each accepted bearer token, one per line; by default no token."""
    rate_limit_per_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Inference requests a second by token, over all workers; by default as many as come."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call this server, separated by commas, or `*`; by default none."""
    tls_cert_file: Path | None = None
    """PEM file of the server's certificate and its chain; with it, the launcher serves HTTPS."""
    tls_key_file: Path | None = Field(default=None, validate_default=True)
    """PEM file of the certificate's key, without a password."""
    tls_client_ca_file: Path | None = None
    """PEM file of the authorities that sign clients' certificates; with it, clients need one."""
    metrics_dir: Path | None = None
    """Folder in which the workers share metrics and networks; by default a temporary one."""
    metrics: bool = True
    """Whether `/metrics` is served."""
    log_requests: bool = False
    """Whether each request is logged, in one line."""
    log_format: Literal["text", "json"] = "text"
    """Format of the log lines on standard error."""

    @field_validator("models", mode="before")
    @classmethod
    def _parse_models(cls, value: object) -> object:
        return _parse_list(value, _MODEL, "name or name/version, separated by commas")

    @field_validator("plugins", mode="before")
    @classmethod
    def _parse_plugins(cls, value: object) -> object:
        return _parse_list(value, _MODULE, "names of Python modules, separated by commas")

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _parse_cors_origins(cls, value: object) -> object:
        if value in ("*", ("*",)):
            return ("*",)
        return _parse_list(value, _ORIGIN, "* or origins like https://shop.example, in lower case")

    @field_validator("rate_limit_per_s")
    @classmethod
    def _check_rate_has_tokens(cls, value: float | None, known: ValidationInfo) -> float | None:
        if value is not None and known.data.get("api_tokens_file") is None:
            raise ValueError("expected VITRINE_API_TOKENS_FILE, too: the limit is by token")
        return value

    @field_validator("tls_key_file")
    @classmethod
    def _check_tls_key(cls, key: Path | None, before: ValidationInfo) -> Path | None:
        if (key is None) != (before.data.get("tls_cert_file") is None):
            raise ValueError(f"expected it together with {PREFIX}TLS_CERT_FILE")
        return key

    @field_validator("tls_client_ca_file")
    @classmethod
    def _check_tls_client_ca(cls, client_ca: Path | None, before: ValidationInfo) -> Path | None:
        if client_ca is not None and before.data.get("tls_cert_file") is None:
            raise ValueError(f"expected it only together with {PREFIX}TLS_CERT_FILE")
        return client_ca

    @field_validator("default_models", mode="before")
    @classmethod
    def _parse_default_models(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        found = [_DEFAULT_MODEL.fullmatch(pair) for pair in _split(value)]
        models = {match["verb"]: match["name"] for match in found if match}
        if len(models) < len(found):  # a malformed pair, or a verb twice
            raise ValueError("expected verb=name,verb=name with each verb once")
        return models


def _split(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _parse_list(value: object, pattern: re.Pattern[str], expected: str) -> object:
    parts = _split(value) if isinstance(value, str) else value
    if isinstance(parts, tuple) and not all(pattern.fullmatch(str(part)) for part in parts):
        raise ValueError(f"expected {expected}")
    return parts


def asked_log_format(environment: Mapping[str, str] = os.environ) -> str:
    """The log format that errors of the other settings are written in."""
    asked = environment.get(f"{PREFIX}LOG_FORMAT")
    return "json" if asked == "json" else "text"


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
            f"{PREFIX}{str(detail['loc'][0]).upper()}: "
            f"{detail['msg'].removeprefix('Value error, ')}, got {detail['input']!r}"
            for detail in error.errors(include_url=False)
            if detail["type"] != "default_factory_not_called"  # of one that depends on another
        )
        raise SettingsError("; ".join(problems)) from error
