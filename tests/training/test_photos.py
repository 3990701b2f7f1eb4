"""Folders of photos as people have them: which class, which split, and what is wrong with them."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tqdm", reason="training needs tqdm")

from service.pixels.spec import Cover, Input
from training.errors import DataError
from training.folders import find_photos
from training.photos import Photos, read_photos

SPEC = Input(shape=(8, 8, 3), color="rgb", resize=Cover())
BRIGHTNESS = {"dark": 40, "light": 210}


def draw(folder: Path, count: int, brightness: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (20 + number, 16), (brightness,) * 3).save(folder / f"{number}.jpg")


def draw_classes(folder: Path, count: int = 10) -> None:
    for name, brightness in BRIGHTNESS.items():
        draw(folder / name, count, brightness)


def read(folder: Path, seed: int = 1) -> Photos:
    return read_photos(folder, find_photos(folder, None), SPEC, folder.parent / "scratch", seed)


def splits(photos: Photos) -> list[int]:
    return [len(photos.training), len(photos.validation), len(photos.test)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def test_folder_is_the_class(folder: Path) -> None:
    draw_classes(folder)
    photos = read(folder)
    assert photos.classes == ("dark", "light")
    for label, brightness in enumerate(BRIGHTNESS.values()):
        means = photos.pixels[photos.labels == label].mean(axis=(1, 2, 3))
        np.testing.assert_allclose(means, brightness, atol=2)


def test_pixels_are_those_that_the_service_makes(folder: Path) -> None:
    draw_classes(folder)
    photos = read(folder)
    assert photos.pixels.dtype == np.uint8
    assert photos.pixels.shape == (20, 8, 8, 3)


def test_splits_without_a_folder_are_held_out_of_every_class(folder: Path) -> None:
    draw_classes(folder, 20)
    photos = read(folder)
    assert splits(photos) == [28, 6, 6]
    together = np.concatenate([photos.training, photos.validation, photos.test])
    assert sorted(together) == list(range(40))
    for split in (photos.training, photos.validation, photos.test):
        assert np.bincount(photos.labels[split]).tolist() == [len(split) // 2] * 2


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ({"train": 20}, [28, 6, 6]),
        ({"train": 20, "validation": 5}, [34, 6, 10]),
        ({"training": 20, "valid": 5}, [34, 6, 10]),
        ({"train": 20, "test": 4}, [34, 6, 8]),
        ({"Train": 20, "VALIDATION": 5}, [34, 6, 10]),
        ({"train": 20, "val": 5, "test": 4}, [40, 10, 8]),
    ],
)
def test_folders_of_splits_are_taken(
    folder: Path, folders: dict[str, int], expected: list[int]
) -> None:
    for name, count in folders.items():
        draw_classes(folder / name, count)
    assert splits(read(folder)) == expected


def test_two_photos_of_a_class_are_enough(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_classes(folder, 2)
    photos = read(folder)
    assert sorted(photos.labels[photos.training]) == [0, 1]
    assert len(photos.test) == 2
    np.testing.assert_array_equal(photos.validation, photos.training)
    assert "Too few photos for a validation split" in capsys.readouterr().out


def test_some_of_each_class_and_split_may_be_read(folder: Path) -> None:
    draw_classes(folder / "train", 9)
    draw_classes(folder / "test", 5)
    files = find_photos(folder, most_of_each=3)
    photos = read_photos(folder, files, SPEC, folder.parent / "scratch", 1)
    assert splits(photos) == [4, 2, 6]


def test_same_seed_holds_out_the_same(folder: Path) -> None:
    draw_classes(folder, 20)
    first, second, other = read(folder, 1), read(folder, 1), read(folder, 2)
    np.testing.assert_array_equal(first.test, second.test)
    assert not np.array_equal(first.test, other.test)


def test_files_that_are_no_images_are_listed_and_skipped(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_classes(folder)
    (folder / "dark" / "notes.txt").write_text("hello")
    (folder / "light" / "broken.jpg").write_bytes((folder / "light" / "0.jpg").read_bytes()[:300])
    photos = read(folder)
    assert len(photos.labels) == 20
    printed = capsys.readouterr().out
    assert "notes.txt: expected an image" in printed
    assert "broken.jpg: expected a whole image" in printed


def test_checksum_tells_one_folder_from_another(folder: Path) -> None:
    draw_classes(folder)
    before = read(folder).sha256
    assert read(folder).sha256 == before
    (folder / "dark" / "0.jpg").rename(folder / "dark" / "z.jpg")
    assert read(folder).sha256 != before


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(folder)
    return str(caught.value)


def test_folder_that_is_not_there_is_refused(folder: Path) -> None:
    message = refusal(folder / "nowhere")
    assert f"{folder / 'nowhere'} is not a folder: expected a folder with one folder" in message


def test_empty_folder_is_refused(folder: Path) -> None:
    assert refusal(folder).endswith("; got nothing")


def test_folder_of_loose_files_is_refused(folder: Path) -> None:
    draw(folder, 3, 100)
    assert "FOLDER/cat/1.jpg" in refusal(folder)
    assert refusal(folder).endswith("; got 0 folders and 3 files")


def test_one_class_is_refused(folder: Path) -> None:
    draw(folder / "dark", 3, 40)
    assert refusal(folder).endswith("; got 1 folders and 0 files")


def test_class_with_one_readable_photo_is_refused_with_its_name(folder: Path) -> None:
    draw_classes(folder)
    draw(folder / "grey", 1, 128)
    (folder / "grey" / "broken.jpg").write_bytes(b"nothing")
    message = refusal(folder)
    assert "expected at least 2 readable images for training per class" in message
    assert "got {'grey': 1}" in message


def test_class_to_test_that_is_not_trained_on_is_refused(folder: Path) -> None:
    draw_classes(folder / "train")
    draw_classes(folder / "validation")
    draw(folder / "validation" / "grey", 2, 128)
    assert "expected only the classes ['dark', 'light'], got also ['grey']" in refusal(folder)


@pytest.mark.parametrize("name", ["validation", "test"])
def test_photos_to_test_with_and_none_to_train_on_are_refused(folder: Path, name: str) -> None:
    draw_classes(folder / name)
    assert refusal(folder).endswith("; got no FOLDER/train")


def test_two_folders_for_one_split_are_refused(folder: Path) -> None:
    draw_classes(folder / "train")
    draw_classes(folder / "training")
    assert "expected one of train, training, got train, training" in refusal(folder)


@pytest.mark.parametrize("broken", [False, True])
def test_class_without_photos_to_test_with_is_refused_before_anything_is_trained(
    folder: Path, broken: bool
) -> None:
    draw_classes(folder / "train")
    draw_classes(folder / "validation")
    for path in (folder / "validation" / "dark").iterdir():
        if broken:
            path.write_bytes(b"nothing")
        else:
            path.unlink()
    message = refusal(folder)
    assert "expected at least 1 readable images for testing per class, got {'dark': 0}" in message


@pytest.mark.parametrize("name", ["a\nb", "x" * 201, "bell\x07"])
def test_folder_whose_name_is_no_label_is_refused(folder: Path, name: str) -> None:
    draw_classes(folder)
    draw(folder / name, 3, 128)
    assert "expected printable names of up to 200 characters" in refusal(folder)


def test_file_with_a_name_in_another_encoding_is_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_classes(folder)
    image = (folder / "dark" / "0.jpg").read_bytes()
    Path(os.fsdecode(os.fsencode(folder / "dark") + b"/caf\xe9.jpg")).write_bytes(image)
    Path(os.fsdecode(os.fsencode(folder / "dark") + b"/no\xe9.jpg")).write_bytes(b"nothing")
    photos = read(folder)
    assert len(photos.labels) == 21
    assert "no\\xe9.jpg: expected an image" in capsys.readouterr().out


def printed_by(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines about what is left out of a folder of two classes with ten photos each."""
    assert len(read(folder).labels) == 20
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("name", [".copies", "__MACOSX", ".Trash-1000", "@eaDir"])
def test_system_folders_are_ignored_in_one_line(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_classes(folder)
    draw(folder / name, 5, 40)
    draw(folder / "dark" / name, 5, 40)
    draw(folder / name / "dark", 5, 40)
    assert printed_by(folder, capsys) == [
        "Ignored hidden and system files: "
        + ", ".join(sorted([str(folder / name), str(folder / "dark" / name)]))
    ]


@pytest.mark.parametrize("name", [".DS_Store", "._0.jpg", "Thumbs.db", "desktop.ini"])
def test_system_files_are_ignored_in_one_line(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_classes(folder)
    (folder / "light" / name).write_bytes(b"of no use here")
    assert printed_by(folder, capsys) == [
        f"Ignored hidden and system files: {folder / 'light' / name}"
    ]


def test_line_about_many_system_files_is_short(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_classes(folder)
    for number in range(9):
        (folder / "light" / f"._{number}.jpg").touch()
    (line,) = printed_by(folder, capsys)
    assert line.endswith("._4.jpg and 4 more")


def test_linked_folders_are_entered(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = folder.parent / "elsewhere"
    draw_classes(elsewhere, 8)
    draw(elsewhere / "more", 2, 40)
    folder.rmdir()
    (folder.parent / "real").mkdir()
    folder.symlink_to("real")
    (folder / "light").symlink_to(elsewhere / "light")
    (folder / "dark").mkdir()
    (folder / "dark" / "old").symlink_to(elsewhere / "dark")
    (folder / "dark" / "new").symlink_to(elsewhere / "more")
    photos = read(folder)
    assert np.bincount(photos.labels).tolist() == [10, 8]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("target", [".", "..", "../..", "../dark"])
def test_links_in_a_circle_or_to_another_class_are_skipped_with_a_line(
    target: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_classes(folder)
    (folder / "light" / "again").symlink_to(target)
    same = (folder / "light" / target).resolve()
    assert printed_by(folder, capsys) == [
        f"Skipped {folder / 'light' / 'again'}: the same folder as {same}"
    ]


def test_what_is_neither_file_nor_folder_is_skipped_with_a_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_classes(folder)
    (folder / "dark" / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "light" / "loop").symlink_to("loop")
    (folder / "owl").symlink_to("nowhere")
    os.mkfifo(folder / "light" / "pipe.jpg")
    assert set(printed_by(folder, capsys)) == {
        f"Skipped {folder / 'dark' / 'gone.jpg'}: a link that leads nowhere",
        f"Skipped {folder / 'light' / 'loop'}: a link that leads nowhere",
        f"Skipped {folder / 'owl'}: a link that leads nowhere",
        f"Skipped {folder / 'light' / 'pipe.jpg'}: neither a file nor a folder",
    }


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_class_names_that_differ_in_normalisation_only_are_merged(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(folder / COMPOSED, 4, 40)
    draw(folder / DECOMPOSED, 3, 40)
    draw(folder / "light", 5, 210)
    photos = read(folder)
    assert photos.classes == (COMPOSED, "light")
    assert np.bincount(photos.labels).tolist() == [7, 5]
    assert capsys.readouterr().out == (
        f"Merged 2 folders into the class {COMPOSED}: their names differ only in Unicode "
        r"normalisation ('cafe\u0301', 'caf\xe9')"
        "\n"
    )


def test_class_names_of_splits_may_differ_in_normalisation(folder: Path) -> None:
    for split, name in (("train", COMPOSED), ("test", DECOMPOSED)):
        draw(folder / split / name, 4, 40)
        draw(folder / split / "light", 4, 210)
    photos = read(folder)
    assert photos.classes == (COMPOSED, "light")
    assert len(photos.test) == 8


def test_folder_one_level_too_high_is_refused(folder: Path) -> None:
    draw_classes(folder / "mine" / "train")
    draw_classes(folder / "yours" / "train")
    assert f"got splits within {folder / 'mine'}" in refusal(folder)


def test_what_lies_beside_the_splits_is_told_of(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_classes(folder / "train")
    draw_classes(folder / "more")
    read(folder)
    assert f"Not used, beside train: {folder / 'more'}" in capsys.readouterr().out


def test_files_beside_the_folders_of_classes_are_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_classes(folder)
    draw(folder, 2, 100)
    read(folder)
    assert f"beside the folders of classes in {folder}: 2 files" in capsys.readouterr().out
