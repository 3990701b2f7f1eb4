"""Where photos are: a folder with a folder for each class, or such for each split."""

import os
from collections.abc import Sequence
from pathlib import Path

from training.data import check_labels
from training.errors import DataError

# The names that a folder of a split goes by; without one for training, class folders are expected.
SPLITS = (("train", "training"), ("validation", "valid", "val"), ("test",))
SHAPE = (
    "expected a folder with one folder of images for each class, FOLDER/cat/1.jpg, or such in "
    "FOLDER/train and, if you like, FOLDER/validation and FOLDER/test"
)

Files = list[dict[str, list[Path]]]
"""By split, by class."""


def find_photos(folder: Path, most_of_each: int | None) -> Files:
    """The files of each class, for training, validation and test; raises DataError."""
    if not folder.is_dir():
        raise DataError(f"{folder.absolute()} is not a folder: {SHAPE}")
    splits = [_named(folder, names) for names in SPLITS]
    if splits[0] is None and any(splits):
        raise DataError(f"{folder.absolute()}: {SHAPE}; got no FOLDER/train")
    if splits[0] is None:
        splits = [folder, None, None]
    else:
        others = sorted(shown(path) for path in _entries(folder) if path not in splits)
        if others:
            print(f"Not used, beside {splits[0].name}: {', '.join(others)}")
    found: Files = [{} if split is None else _by_class(split, most_of_each) for split in splits]
    for split, by_class in zip(splits, found, strict=True):
        unknown = sorted(set(by_class) - set(found[0]))
        if unknown:
            raise DataError(f"{split}: expected the classes {sorted(found[0])}, got {unknown}, too")
    return found


def _entries(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]


def _named(folder: Path, names: Sequence[str]) -> Path | None:
    """The folder that goes by one of these names, however it is written."""
    found = [path for path in _entries(folder) if path.is_dir() and path.name.casefold() in names]
    if len(found) > 1:
        got = ", ".join(path.name for path in found)
        raise DataError(f"{folder.absolute()}: expected one of {', '.join(names)}, got {got}")
    return found[0] if found else None


def _by_class(folder: Path, most_of_each: int | None) -> dict[str, list[Path]]:
    entries = _entries(folder)
    folders = [path for path in entries if path.is_dir()]
    loose = sum(path.is_file() for path in entries)
    if len(folders) < 2:
        got = f"{len(folders)} folders and {loose} files" if entries else "nothing"
        raise DataError(f"{folder.absolute()}: {SHAPE}; got {got}")
    if loose:
        print(f"Not used, beside the folders of classes in {shown(folder)}: {loose} files")
    check_labels([path.name for path in folders], folder.absolute())
    for path in folders:
        if any(_named(path, names) for names in SPLITS):
            raise DataError(f"{folder.absolute()}: {SHAPE}; got splits within {shown(path)}")
    return {path.name: _files_below(path)[:most_of_each] for path in folders}


def _files_below(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def shown(path: Path) -> str:
    """A path that can be printed, whatever its bytes are."""
    return os.fsencode(path).decode(errors="backslashreplace")
