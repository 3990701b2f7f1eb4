"""The command line of recipes: the options that all share, and those that several share.

Nothing here imports TensorFlow, so that `--help` answers at once.
"""

import argparse
import hashlib
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

SMOKE_OUT = Path(".smoke/models")
OUT = Path("models")
CHECKPOINTS = Path(".checkpoints")

CODE = ("training", "service")  # a change here can change an artifact

IMAGENET = "imagenet"
MIN_SIDE, MAX_SIDE = 32, 4096  # pixels: VGG16 halves a side five times; a manifest's limit
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")  # Keras's names


@dataclass(frozen=True)
class Options:
    """What the caller asked for; the manifest records `arguments`."""

    recipe: str
    smoke: bool
    out: Path
    data: Path | None
    seed: int
    epochs: int | None
    arguments: dict[str, Any]
    """Strings, numbers, booleans and None."""
    commit: str

    @property
    def checkpoints(self) -> Path:
        """The folder for the state of a run with exactly these arguments."""
        key = repr((sorted(self.arguments.items()), self.data))
        return CHECKPOINTS / f"{self.recipe}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"

    def checkpoints_of(self, data_sha256: str) -> Path:
        """A folder within `checkpoints` for this content of the data set."""
        return self.checkpoints / data_sha256[:16]

    def recording(self, **arguments: Any) -> "Options":
        """A copy that records these arguments, for example the value that a default became."""
        return replace(self, arguments=self.arguments | arguments)


def add_options(
    parser: argparse.ArgumentParser, own: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Add the options that all recipes share, and a recipe's own."""
    parser.add_argument(
        "--smoke", action="store_true", help="a few hundred images, a minute or a few, a poor model"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help=f"folder of models to write into (default {OUT}, with --smoke {SMOKE_OUT})",
    )
    parser.add_argument("--data", type=Path, help="folder (or file) of the data set")
    parser.add_argument("--seed", type=whole_number, default=1, help="default 1")
    parser.add_argument(
        "--epochs",
        type=at_least_one,
        help="at most this many in each stage (default: the recipe's)",
    )
    for option, how in (own or {}).items():
        parser.add_argument(option, **how)


def whole_number(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def at_least_one(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def side(text: str) -> int:
    """Pixels of a square input of VGG16."""
    pixels = at_least_one(text)
    if not MIN_SIDE <= pixels <= MAX_SIDE:
        raise argparse.ArgumentTypeError(f"expected {MIN_SIDE} to {MAX_SIDE} pixels, got {text!r}")
    return pixels


def model_name(text: str) -> str:
    """A name that can be part of a URL: lower-case letters, digits and hyphens."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", text):
        raise argparse.ArgumentTypeError(
            f"expected up to 63 lower-case letters, digits and hyphens, got {text!r}"
        )
    return text


PRECISION_OPTION = {
    "--precision": {"choices": PRECISIONS, "help": "default: the fastest on this machine"}
}
TRANSFER_OPTIONS = {
    "--base": {
        "default": IMAGENET,
        "help": f"{IMAGENET}, or the folder of a model like models/vgg16-base/1 (%(default)s)",
    },
    "--size": {"type": side, "default": 224, "help": "pixels of a side (%(default)s)"},
    **PRECISION_OPTION,
}


def read_options(
    recipe: str, parsed: argparse.Namespace, default_data: Path | None = None
) -> Options:
    """Turn parsed arguments into Options; folders (`out`, `data`) are not recorded."""
    recorded = {key: value for key, value in vars(parsed).items() if key not in ("out", "data")}
    return Options(
        recipe=recipe,
        smoke=parsed.smoke,
        out=parsed.out or (SMOKE_OUT if parsed.smoke else OUT),
        data=parsed.data or default_data,
        seed=parsed.seed,
        epochs=parsed.epochs,
        arguments=recorded,
        commit=code_commit(),
    )


def code_commit() -> str:
    """The commit of the running code, with `-dirty` if files were changed since."""
    commit = _git("rev-parse", "HEAD")
    return f"{commit}-dirty" if _git("status", "--porcelain", *CODE) else commit or "unknown"


def _git(*arguments: str) -> str:
    checkout = Path(__file__).resolve().parent.parent
    try:
        ran = subprocess.run(
            ["git", *arguments], cwd=checkout, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:  # git is not installed
        return ""
    return ran.stdout.strip()
