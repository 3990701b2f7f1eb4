"""Train a model: `python -m training` lists the recipes, `python -m training RECIPE` runs one."""

import argparse
import ast
import importlib
import os
import pkgutil
import shutil
import sys
from pathlib import Path

from training import recipes
from training.errors import TrainingError
from training.options import Options, add_options, read_options


def descriptions() -> dict[str, str]:
    """Recipe name -> the first line of its docstring, read without running the recipe."""
    folder = Path(recipes.__path__[0])
    found: dict[str, str] = {}
    for module in pkgutil.iter_modules(recipes.__path__):
        source = (folder / f"{module.name}.py").read_text()
        docstring = ast.get_docstring(ast.parse(source)) or ""
        found[module.name.replace("_", "-")] = docstring.partition("\n")[0]
    return found


def main(arguments: list[str]) -> int:
    """Run one recipe, or list them all; returns the exit status."""
    found = descriptions()
    if not arguments:
        width = max(map(len, found))
        print("Recipes (python -m training RECIPE --help tells more):")
        for name, description in found.items():
            print(f"  {name:<{width}}  {description}")
        return 0
    name = arguments[0]
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    if name not in found:
        print(f"no recipe {name!r}: expected one of {', '.join(found)}", file=sys.stderr)
        return 2
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up chatter
    recipe = importlib.import_module(f"{recipes.__name__}.{name.replace('-', '_')}")
    parser = argparse.ArgumentParser(f"python -m training {name}", description=recipe.__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_options(parser)
    if hasattr(recipe, "add_options"):
        recipe.add_options(parser)
    data = getattr(recipe, "DATA", None)
    options: Options = read_options(name, parser.parse_args(arguments[1:]), data)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        folder = recipe.run(options)
    except (TrainingError, FileExistsError, NotADirectoryError, PermissionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on where this run stopped", file=sys.stderr)
        return 130
    shutil.rmtree(options.checkpoints, ignore_errors=True)
    print(f"Wrote {folder}\nServe it: VITRINE_MODELS_DIR={options.out} make serve")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
