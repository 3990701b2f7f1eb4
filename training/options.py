"""The options that every recipe takes."""

import argparse
import hashlib
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

SMOKE_OUT = Path(".smoke/models")
OUT = Path("models")
CHECKPOINTS = Path(".checkpoints")

CODE = ("training", "service")  # what makes an artifact what it is


@dataclass(frozen=True)
class Options:
    """What the caller asked of a recipe; `arguments` is all of it that the manifest records."""

    recipe: str
    smoke: bool
    out: Path
    data: Path | None
    seed: int
    epochs: int | None
    arguments: dict[str, Any]
    """Strings, numbers, truth values and None."""
    commit: str

    @property
    def checkpoints(self) -> Path:
        """Where an interrupted run of exactly these arguments left its state."""
        whole = repr((sorted(self.arguments.items()), self.data))
        return CHECKPOINTS / f"{self.recipe}-{hashlib.sha256(whole.encode()).hexdigest()[:16]}"

    def checkpoints_of(self, data_sha256: str) -> Path:
        """The same, of this very data: what has changed since is another run's."""
        return self.checkpoints / data_sha256[:16]

    def recording(self, **arguments: Any) -> "Options":
        """The same, with what became of some arguments for the manifest."""
        return replace(self, arguments=self.arguments | arguments)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all recipes share."""
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


def read_options(
    recipe: str, parsed: argparse.Namespace, default_data: Path | None = None
) -> Options:
    """Turn parsed arguments into Options; `out` and `data` are left out of what is recorded."""
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
    """The commit of the code that runs, marked if it was changed since; taken before training."""
    commit = _git("rev-parse", "HEAD")
    return f"{commit}-dirty" if _git("status", "--porcelain", *CODE) else commit or "unknown"


def _git(*arguments: str) -> str:
    checkout = Path(__file__).resolve().parent.parent
    try:
        ran = subprocess.run(
            ["git", *arguments], cwd=checkout, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:  # no git here
        return ""
    return ran.stdout.strip()
