"""The command line: what it lists, and what it says when something is missing."""

import shutil
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import pytest

pytest.importorskip("tqdm", reason="training needs the train extra")

from tests.training.drawn import write_signs
from training.__main__ import main, parse
from training.lock import locked

RECIPES = Path(__file__).parents[2] / "training" / "recipes"
FILES = [path for path in sorted(RECIPES.glob("*.py")) if path.stem != "__init__"]


def test_listing_names_every_recipe_file_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [path.stem.replace("_", "-") for path in FILES]


def test_listing_describes_a_recipe_by_its_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    _, *lines = capsys.readouterr().out.splitlines()
    for path, line in zip(FILES, lines, strict=True):
        summary = line.partition("  ")[2].partition("  ")[2].strip()
        assert path.read_text().startswith(f'"""{summary}\n')
        assert summary.endswith(".")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["no-such-recipe"],
        *([path.stem.replace("_", "-"), "--help"] for path in FILES),
        ["fashion-mnist", "--no-such-option"],
        ["transfer", "--size", "31"],
        ["compare", "--help"],
        ["compare", "--only", "weather"],
    ],
    ids=" ".join,
)
def test_help_and_mistakes_are_answered_without_importing_keras_or_tensorflow(
    arguments: list[str],
) -> None:
    # A new process: this one has imported them. None of them can be imported there.
    program = (
        "import sys\n"
        "for name in ('keras', 'tensorflow', 'matplotlib', 'numpy', 'absl'):\n"
        "    sys.modules[name] = None\n"
        "from training.__main__ import main\n"
        f"sys.exit(main({arguments}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        cwd=RECIPES.parents[1],
    )
    assert (ran.returncode, "Traceback" in ran.stderr) == (
        (0, False) if not arguments or "--help" in arguments else (2, False)
    )


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_tells_how_to_call_it(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag]) == 0
    assert "python -m training RECIPE" in capsys.readouterr().out


def test_unknown_recipe_is_refused_with_those_that_exist(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fashion-mist"]) == 2
    said = capsys.readouterr().err
    assert "'fashion-mist'" in said
    assert all(path.stem.replace("_", "-") in said for path in FILES)


@pytest.mark.parametrize(
    ("recipe", "file", "how_to_get_it"),
    [
        ("fashion-mnist", "train-images-idx3-ubyte.gz", "zalandoresearch/fashion-mnist"),
        ("hand-signs", "train_signs.h5", "pass its folder with --data"),
        ("denoiser", "mnist.npz", "pass its folder with --data"),
    ],
)
def test_missing_data_says_which_file_where_and_how_to_get_it(
    *,
    recipe: str,
    file: str,
    how_to_get_it: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("tensorflow", reason="recipes need TensorFlow")
    monkeypatch.chdir(tmp_path)
    assert main([recipe, "--smoke", "--data", "empty"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {file} is missing")
    assert str(tmp_path / "empty" / file) in said
    assert how_to_get_it in said
    assert not Path(".checkpoints").exists()


def test_missing_data_without_a_network_says_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorflow", reason="recipes need TensorFlow")
    import keras

    def no_network() -> None:
        raise URLError("no network")

    # Keras's download is the one thing here that must not run for real.
    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", no_network)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["fashion-mnist", "--smoke"]) == 1
    said = capsys.readouterr().err
    assert "t10k-labels-idx1-ubyte.gz" in said
    assert str(tmp_path / "datasets" / "fashion-mnist") in said
    assert "no network" in said
    assert "--data" in said


def test_missing_test_split_is_found_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorflow", reason="recipes need TensorFlow")
    pytest.importorskip("h5py", reason="hand-signs needs h5py")
    write_signs(tmp_path)
    (tmp_path / "test_signs.h5").unlink()
    monkeypatch.chdir(tmp_path)
    assert main(["hand-signs", "--smoke", "--epochs", "1", "--data", "."]) == 1
    assert "test_signs.h5 is missing" in capsys.readouterr().err
    assert not Path(".checkpoints").exists()


def test_data_file_without_its_keys_is_refused_with_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorflow", reason="recipes need TensorFlow")
    h5py = pytest.importorskip("h5py", reason="hand-signs needs h5py")
    with h5py.File(tmp_path / "train_signs.h5", "w") as file:
        file["pictures"] = [0]
    shutil.copy(tmp_path / "train_signs.h5", tmp_path / "test_signs.h5")
    monkeypatch.chdir(tmp_path)
    assert main(["hand-signs", "--smoke", "--data", "."]) == 1
    said = capsys.readouterr().err
    assert "train_signs.h5" in said
    assert "train_set_x" in said
    assert "pictures" in said


def test_broken_data_file_is_refused_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorflow", reason="recipes need TensorFlow")
    write_signs(tmp_path)
    (tmp_path / "train_signs.h5").write_bytes(b"junk")
    monkeypatch.chdir(tmp_path)
    assert main(["hand-signs", "--smoke", "--data", "."]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "train_signs.h5 cannot be read" in said


@pytest.mark.parametrize("epochs", ["0", "-1", "many"])
def test_epochs_below_one_are_refused(epochs: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["hand-signs", f"--epochs={epochs}"])
    assert "expected a whole number of at least 1" in capsys.readouterr().err


def test_out_that_is_a_file_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").write_text("a file")
    assert main(["hand-signs", "--smoke", "--data", ".", "--out", "out"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert not Path(".checkpoints").exists()


def test_label_outside_the_classes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorflow", reason="recipes need TensorFlow")
    h5py = pytest.importorskip("h5py", reason="hand-signs needs h5py")
    write_signs(tmp_path)
    with h5py.File(tmp_path / "train_signs.h5", "a") as file:
        file["train_set_y"][0] = 6
    monkeypatch.chdir(tmp_path)
    assert main(["hand-signs", "--smoke", "--data", "."]) == 1
    assert "expected labels 0 to 5" in capsys.readouterr().err


def test_recipe_help_shows_its_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["fashion-mnist", "--help"])
    said = capsys.readouterr().out
    assert "--network {cnn,dense,mlp}" in said
    assert "--smoke" in said


def test_second_run_with_the_same_arguments_stops_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--seed", "7", "--data", "."]
    checkpoints = parse("hand-signs", RECIPES / "hand_signs.py", arguments).checkpoints
    checkpoints.parent.mkdir()
    with locked(checkpoints.with_name(f"{checkpoints.name}.lock")):
        assert main(["hand-signs", *arguments, "--out", "out"]) == 1
    message = "error: another run with the same arguments is in progress (process "
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)
