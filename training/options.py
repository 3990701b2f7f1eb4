"""The options that every recipe takes."""

import argparse
from dataclasses import dataclass
from pathlib import Path

SMOKE_OUT = Path(".smoke/models")
OUT = Path("models")
CHECKPOINTS = Path(".checkpoints")

Argument = str | int | float | bool | None


@dataclass(frozen=True)
class Options:
    """What the caller asked of a recipe; `arguments` is all of it, as the manifest records it."""

    recipe: str
    smoke: bool
    out: Path
    data: Path | None
    seed: int
    epochs: int | None
    arguments: dict[str, Argument]

    def checkpoints(self) -> Path:
        """Where an interrupted run of exactly these arguments left its state."""
        parts = [f"{key}={value}" for key, value in sorted(self.arguments.items())]
        parts.append(f"data={self.data}")
        return CHECKPOINTS / "-".join([self.recipe, *parts]).replace("/", "_")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all recipes share."""
    parser.add_argument(
        "--smoke", action="store_true", help="a few hundred images, under a minute, a poor model"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help=f"folder of models to write into (default {OUT}, with --smoke {SMOKE_OUT})",
    )
    parser.add_argument("--data", type=Path, help="folder of the data set")
    parser.add_argument("--seed", type=int, default=1, help="default 1")
    parser.add_argument(
        "--epochs", type=at_least_one, help="at most this many (default: the recipe's)"
    )


def at_least_one(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def read_options(recipe: str, parsed: argparse.Namespace) -> Options:
    """Turn parsed arguments into Options; folders are left out of what is recorded."""
    recorded = {key: value for key, value in vars(parsed).items() if key not in ("out", "data")}
    return Options(
        recipe=recipe,
        smoke=parsed.smoke,
        out=parsed.out or (SMOKE_OUT if parsed.smoke else OUT),
        data=parsed.data,
        seed=parsed.seed,
        epochs=parsed.epochs,
        arguments=recorded,
    )
