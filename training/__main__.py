"""Train a model: `python -m training` lists the recipes, `python -m training RECIPE` runs one.

`python -m training compare` changes one knob of training at a time, on Fashion-MNIST.
`python -m training upgrade models/NAME/VERSION …` brings artifacts to the newest manifest schema;
`python -m training sign models/NAME/VERSION … --key FILE` signs them, and `verify` checks that.
"""

import argparse
import contextlib
import importlib
import shutil
import sys
import tempfile
from pathlib import Path

from service.errors import StartError
from training import recipes
from training.declarations import read_declaration, read_help, recipe_files
from training.errors import TrainingError
from training.knobs import Comparison, read_comparison
from training.lock import locked
from training.options import Options, add_options, read_options
from training.quiet import native_messages_to


def main(arguments: list[str]) -> int:
    """Run one recipe, or list them all; returns the exit status."""
    files = recipe_files()
    if not arguments:
        width = max(map(len, files))
        print("Recipes (for details: python -m training RECIPE --help):")
        for name, file in files.items():
            summary = read_help(file).partition("\n")[0]
            print(f"  {name:<{width}}  {summary}")
        return 0
    name = arguments[0]
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    if name == "compare":
        return _compare(read_comparison(arguments[1:]))
    if name == "upgrade":
        return _upgrade([Path(folder) for folder in arguments[1:]])
    if name in ("sign", "verify"):
        return _sign_or_verify(name, arguments[1:])
    if name not in files:
        print(f"unknown recipe {name!r}; expected one of {', '.join(files)}", file=sys.stderr)
        return 2
    try:
        options = parse(name, files[name], arguments[1:])
        folder = run(options)
    except (TrainingError, FileExistsError, NotADirectoryError, PermissionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. The same command resumes from the last epoch.", file=sys.stderr)
        return 130
    print(f"Wrote {folder}\nServe it: VITRINE_MODELS_DIR={options.out} make serve")
    return 0


def _compare(asked: Comparison) -> int:
    try:
        asked.out.mkdir(parents=True, exist_ok=True)
        with locked(asked.out / "lock"), native_messages_to(asked.out / "log"):
            # It imports TensorFlow.
            from training.compare import compare

            table = compare(asked)
    except (TrainingError, FileExistsError, NotADirectoryError, PermissionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on after the last finished run.", file=sys.stderr)
        return 130
    print(f"{table.read_text()}\nWrote {table}, and a picture for each knob beside it")
    return 0


def _upgrade(folders: list[Path]) -> int:
    if not folders:
        print("expected folders of artifacts, such as models/fashion-mnist/1", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch, native_messages_to(Path(scratch) / "log"):
        # It imports TensorFlow.
        from training.upgrade import upgrade

        for folder in folders:
            try:
                upgrade(folder)
            except (StartError, TrainingError, OSError) as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
            print(f"Upgraded {folder}")
    return 0


def _sign_or_verify(name: str, arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(f"python -m training {name}")
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="models/NAME/VERSION",
        help="an artifact, or a folder of models, which stands for all in it",
    )
    side = "private" if name == "sign" else "public"
    parser.add_argument(
        "--key", required=True, type=Path, help=f"{side} key on an elliptic curve, in PEM"
    )
    if name == "verify":
        parser.add_argument(
            "--device",
            choices=("cpu", "gpu"),
            help="check only what serving on it takes: an image may leave out the rest",
        )
    options = parser.parse_args(arguments)
    # It imports NumPy and, of the extra `sign`, model_signing.
    from training import signing

    try:
        for folder in signing.artifact_folders(options.folders):
            if name == "sign":
                signing.sign(folder, options.key)
                print(f"Signed {folder}")
            else:
                signing.verify(folder, options.key, options.device)
                print(f"Verified {folder}")
    except (StartError, TrainingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def parse(name: str, file: Path, arguments: list[str]) -> Options:
    """Read a recipe's arguments, without importing the recipe."""
    declared = read_declaration(file)
    parser = argparse.ArgumentParser(f"python -m training {name}", description=read_help(file))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_options(parser, declared.options)
    return read_options(name, parser.parse_args(arguments), declared.data)


def run(options: Options) -> Path:
    """Import and run a recipe; the checkpoints are removed when it has succeeded."""
    checkpoints = options.checkpoints
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoints.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            locked(checkpoints.with_name(f"{checkpoints.name}.lock")),
            native_messages_to(checkpoints.with_name(f"{checkpoints.name}.log")),
        ):
            module = options.recipe.replace("-", "_")
            folder: Path = importlib.import_module(f"{recipes.__name__}.{module}").run(options)
            shutil.rmtree(checkpoints, ignore_errors=True)
            return folder
    finally:
        with contextlib.suppress(OSError):  # not empty: another run's, or one to resume
            checkpoints.parent.rmdir()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
