"""The options that all recipes share."""

import argparse
import re
from pathlib import Path
from typing import Any

import pytest

from training.options import OUT, SMOKE_OUT, add_options, read_options


def parse(*arguments: str) -> Any:
    parser = argparse.ArgumentParser()
    add_options(parser)
    parser.add_argument("--network", default="cnn")
    return read_options("tiny", parser.parse_args(arguments))


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        ((), OUT),
        (("--smoke",), SMOKE_OUT),
        (("--out", "elsewhere"), Path("elsewhere")),
        (("--smoke", "--out", "elsewhere"), Path("elsewhere")),
    ],
)
def test_out_is_models_unless_told_or_a_smoke_run(arguments: tuple[str, ...], out: Path) -> None:
    assert parse(*arguments).out == out


def test_smoke_never_writes_where_real_models_are() -> None:
    assert OUT not in (SMOKE_OUT, *SMOKE_OUT.parents)


def test_options_are_what_was_asked() -> None:
    options = parse("--smoke", "--data", "here", "--seed", "5", "--epochs", "9")
    asked = (options.recipe, options.smoke, options.data, options.seed, options.epochs)
    assert asked == ("tiny", True, Path("here"), 5, 9)


def test_arguments_record_all_but_folders() -> None:
    # Folders of one machine mean nothing on another.
    recorded = parse("--data", "here", "--out", "there", "--seed", "5").arguments
    assert recorded == {"smoke": False, "seed": 5, "epochs": None, "network": "cnn"}


@pytest.mark.parametrize(
    "other", [("--seed", "2"), ("--epochs", "9"), ("--smoke",), ("--network", "mlp")]
)
def test_checkpoints_of_other_arguments_lie_elsewhere(other: tuple[str, ...]) -> None:
    assert parse(*other).checkpoints != parse().checkpoints


def test_checkpoints_of_the_same_arguments_lie_in_the_same_folder() -> None:
    assert parse("--seed", "2").checkpoints == parse("--seed", "2").checkpoints


def test_checkpoints_of_changed_data_lie_elsewhere() -> None:
    options = parse()
    before, after = (options.checkpoints_of(digit * 64) for digit in "ab")
    assert before != after
    assert before.parent == after.parent == options.checkpoints


def test_manifest_may_record_what_became_of_an_argument() -> None:
    options = parse()
    assert options.recording(network="mlp").arguments["network"] == "mlp"
    assert options.arguments["network"] == "cnn"


def test_checkpoints_are_one_folder_even_if_an_argument_holds_a_slash() -> None:
    root = parse().checkpoints.parent
    assert parse("--network", "a/../../b").checkpoints.parent == root


@pytest.mark.parametrize("seed", ["-1", "1.5", "many"])
def test_seed_that_is_no_whole_number_is_refused(
    seed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(f"--seed={seed}")
    assert "expected a whole number" in capsys.readouterr().err


def test_commit_is_recorded_or_said_to_be_unknown() -> None:
    assert re.fullmatch(r"unknown|[0-9a-f]{40}(-dirty)?", parse().commit)


def test_recipe_may_say_where_its_data_lie_unless_the_caller_does() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    default = Path("data/set")
    assert read_options("x", parser.parse_args([]), default).data == default
    named = read_options("x", parser.parse_args(["--data", "mine"]), default)
    assert named.data == Path("mine")
    assert named.checkpoints != read_options("x", parser.parse_args([]), default).checkpoints


def test_checkpoints_of_long_arguments_have_a_short_name() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    options = read_options("x", parser.parse_args(["--data", "folder/" * 100]))
    assert len(options.checkpoints.name) < 100
