"""Find photos: a folder with one folder per class, or such a folder for each split."""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from training.data import check_labels
from training.errors import DataError

# The names of a folder for each split. Without a folder for training, class folders are expected.
SPLITS = (("train", "training"), ("validation", "valid", "val"), ("test",))
SHAPE = (
    "expected a folder with one folder of images for each class, FOLDER/cat/1.jpg, or such folders "
    "in FOLDER/train and optionally in FOLDER/validation and FOLDER/test"
)
# What operating systems and archivers leave behind, beside names that begin with a dot.
SYSTEM_NAMES = {"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "@eadir"}
MAX_NAMED = 5

Files = list[dict[str, list[Path]]]
"""By split, by class."""


def find_photos(folder: Path, most_of_each: int | None) -> Files:
    """The files of each class, for training, validation and test; raises DataError.

    Prints what is left out or merged, and why.
    """
    if not folder.is_dir():
        raise DataError(f"{folder.absolute()} is not a folder: {SHAPE}")
    search = _Search()
    splits = [_named(search.entries(folder), names, folder) for names in SPLITS]
    if splits[0] is None and any(splits):
        raise DataError(f"{folder.absolute()}: {SHAPE}; got no FOLDER/train")
    if splits[0] is None:
        splits = [folder, None, None]
    else:
        others = [shown(path) for path in search.entries(folder) if path not in splits]
        if others:
            print(f"Not used, beside {splits[0].name}: {', '.join(others)}")
    found = [{} if split is None else _by_class(split, most_of_each, search) for split in splits]
    search.report()
    for split, by_class in zip(splits, found, strict=True):
        unknown = sorted(set(by_class) - set(found[0]))
        if unknown:
            raise DataError(
                f"{split}: expected only the classes {sorted(found[0])}, got also {unknown}"
            )
    return found


@dataclass
class _Search:
    """Lists folders and notes what is left out, to report it once."""

    system: set[Path] = field(default_factory=set)
    skipped: dict[Path, str] = field(default_factory=dict)
    """Path -> why."""

    def entries(self, folder: Path) -> list[Path]:
        """What is in a folder, without hidden and system files, in order."""
        visible = []
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or path.name.casefold() in SYSTEM_NAMES:
                self.system.add(path)
            elif path.is_dir() or path.is_file():
                visible.append(path)
            elif path.is_symlink():
                self.skipped[path] = "a link that leads nowhere"
            else:
                self.skipped[path] = "neither a file nor a folder"
        return visible

    def files_below(self, folder: Path, seen: dict[str, Path]) -> Iterator[Path]:
        """All files in a folder and its subfolders; links are followed, each folder is read once.

        `seen` maps the real path of each folder read so far to the path that led there.
        """
        real = os.path.realpath(folder)
        if real in seen:
            self.skipped[folder] = f"the same folder as {shown(seen[real])}"
            return
        seen[real] = folder
        for path in self.entries(folder):
            if path.is_dir():
                yield from self.files_below(path, seen)
            else:
                yield path

    def report(self) -> None:
        """Print what was left out."""
        for path, reason in self.skipped.items():
            print(f"Skipped {shown(path)}: {reason}")
        if self.system:
            names = [shown(path) for path in sorted(self.system)]
            rest = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            print(f"Ignored hidden and system files: {', '.join(names[:MAX_NAMED])}{rest}")


def _named(entries: Sequence[Path], names: Sequence[str], folder: Path) -> Path | None:
    """The folder with one of these names, ignoring case; raises DataError for two."""
    found = [path for path in entries if path.is_dir() and path.name.casefold() in names]
    if len(found) > 1:
        got = ", ".join(path.name for path in found)
        raise DataError(f"{folder.absolute()}: expected one of {', '.join(names)}, got {got}")
    return found[0] if found else None


def _by_class(folder: Path, most_of_each: int | None, search: _Search) -> dict[str, list[Path]]:
    entries = search.entries(folder)
    folders = [path for path in entries if path.is_dir()]
    loose = len(entries) - len(folders)
    by_label = _by_label(folders)
    if len(by_label) < 2:
        got = f"{len(by_label)} folders and {loose} files" if entries else "nothing"
        raise DataError(f"{folder.absolute()}: {SHAPE}; got {got}")
    if loose:
        print(f"Not used, beside the folders of classes in {shown(folder)}: {loose} files")
    check_labels(list(by_label), folder.absolute())
    for path in folders:
        inner = search.entries(path)
        if any(_named(inner, names, path) for names in SPLITS):
            raise DataError(f"{folder.absolute()}: {SHAPE}; got splits within {shown(path)}")
    real = folder.resolve()
    seen = {str(path): path for path in (real, *real.parents)}  # a link to one of them is a cycle
    return {
        label: [file for path in paths for file in search.files_below(path, seen)][:most_of_each]
        for label, paths in by_label.items()
    }


def _by_label(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Folders by class name; names that look the same are the same class.

    macOS decomposes accents in file names (Unicode's NFD), other systems mostly do not (NFC).
    """
    by_label: dict[str, list[Path]] = {}
    for path in folders:
        by_label.setdefault(unicodedata.normalize("NFC", path.name), []).append(path)
    for label, paths in by_label.items():
        if len(paths) > 1:
            print(
                f"Merged {len(paths)} folders into the class {label}: their names differ only in "
                f"Unicode normalisation ({', '.join(ascii(path.name) for path in paths)})"
            )
    return dict(sorted(by_label.items()))


def shown(path: Path) -> str:
    """A path as printable text, whatever its bytes are."""
    return os.fsencode(path).decode(errors="backslashreplace")
