"""The settings that `python -m training compare` compares, and its command line.

Nothing here imports TensorFlow, so that `--help` answers at once.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from training.options import at_least_one

DESCRIPTION = """Change one knob of training at a time, on Fashion-MNIST, and see what it does.

Each value is trained once with every seed. What is kept is the accuracy on 5,000 validation images,
the same for all; the test images stay untouched, since a comparison is a choice. A run that has
finished is not repeated, so the same command goes on after an interruption."""

BASE_MARK = " (base)"


@dataclass(frozen=True)
class Setting:
    """How a network is trained. Each field is a knob; its default is what the others keep."""

    epochs: int = 10
    batch_size: int = 32
    dropout: float = 0.0
    """Share of the numbers after each hidden dense layer that are set to zero."""
    early_stopping: int | None = None
    """Epochs without a lower validation loss until training ends."""
    augmentation: str = "none"
    network: str = "cnn"


@dataclass(frozen=True)
class Comparison:
    """What the caller asked for."""

    base: Setting
    knobs: tuple[str, ...]
    images: int
    seeds: int
    out: Path
    data: Path | None


def settings_of(knob: str, base: Setting) -> list[Setting]:
    """The settings to compare: they differ from the base in this knob alone."""
    values = {
        "epochs": [
            max(1, base.epochs // 4),
            max(1, base.epochs // 2),
            base.epochs,
            2 * base.epochs,
        ],
        "batch_size": [16, 32, 128],
        "dropout": [0.0, 0.25, 0.5],
        "early_stopping": [None, 1, 3],
        "augmentation": ["none", "flips", "shifts", "flips and shifts"],
        "network": ["mlp", "dense", "cnn"],
    }[knob]
    # A dictionary keeps the order; at one epoch, some values are the same.
    return list(dict.fromkeys(replace(base, **{knob: value}) for value in values))


KNOBS = tuple(Setting.__dataclass_fields__)


def read_comparison(arguments: list[str]) -> Comparison:
    """Read the command line of `compare`."""
    parser = argparse.ArgumentParser("python -m training compare", description=DESCRIPTION)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--only", choices=[option_name(knob) for knob in KNOBS], help="one knob (default: all)"
    )
    parser.add_argument(
        "--images", type=at_least_one, default=3000, help="to train on (%(default)s)"
    )
    parser.add_argument(
        "--epochs",
        type=at_least_one,
        default=Setting.epochs,
        help="of every run; the knob tries a quarter, half and twice as many (%(default)s)",
    )
    parser.add_argument(
        "--seeds", type=at_least_one, default=3, help="runs of each value (%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("comparisons"), help="folder to write into (%(default)s)"
    )
    parser.add_argument("--data", type=Path, help="folder with the four files of Fashion-MNIST")
    parsed = parser.parse_args(arguments)
    return Comparison(
        base=Setting(epochs=parsed.epochs),
        knobs=tuple(knob for knob in KNOBS if parsed.only in (None, option_name(knob))),
        images=parsed.images,
        seeds=parsed.seeds,
        out=parsed.out,
        data=parsed.data,
    )


def option_name(knob: str) -> str:
    """A knob as it is named on the command line, and in files."""
    return knob.replace("_", "-")


def value_name(setting: Setting, knob: str, base: Setting) -> str:
    """A knob's value, as tables show it."""
    value = str(getattr(setting, knob) or "none")
    return value + BASE_MARK if setting == base else value
