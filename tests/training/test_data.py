"""Data sets as arrays."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tqdm", reason="training needs the train extra")

from service.pixels.preprocess import preprocess
from service.pixels.spec import Cover, FashionMnist, Input, KeepSize, Scale
from training.data import (
    Split,
    hold_out,
    keras_cache,
    prepare,
    require,
    sha256_of,
)
from training.errors import DataError

COUNTS = {0: 40, 1: 20, 2: 8}
FRACTION = 0.25


def numbered() -> Any:
    """Classes of different sizes, in order; the only pixel of each image is its number."""
    labels = np.repeat(list(COUNTS), list(COUNTS.values())).astype(np.int64)
    return Split(np.arange(len(labels), dtype=np.float32).reshape(-1, 1, 1, 1), labels)


def numbers(split: Any) -> list[int]:
    return [int(number) for number in split.images.ravel()]


def test_hold_out_takes_the_same_share_of_every_class() -> None:
    rest, held = hold_out(numbered(), FRACTION, seed=1)
    for label, count in COUNTS.items():
        assert (held.labels == label).sum() == FRACTION * count
        assert (rest.labels == label).sum() == (1 - FRACTION) * count


def test_hold_out_takes_at_least_one_of_a_rare_class() -> None:
    _, held = hold_out(numbered(), 0.01, seed=1)
    assert sorted(held.labels) == [0, 1, 2]


def test_hold_out_parts_are_disjoint_and_together_everything() -> None:
    split = numbered()
    rest, held = hold_out(split, FRACTION, seed=1)
    assert sorted(numbers(rest) + numbers(held)) == numbers(split)


def test_hold_out_keeps_each_image_with_its_label() -> None:
    split = numbered()
    for part in hold_out(split, FRACTION, seed=1):
        assert (part.labels == split.labels[numbers(part)]).all()


def test_hold_out_is_the_same_for_the_same_seed() -> None:
    first, second = hold_out(numbered(), FRACTION, seed=1), hold_out(numbered(), FRACTION, seed=1)
    assert [numbers(part) for part in first] == [numbers(part) for part in second]


def test_hold_out_differs_by_seed() -> None:
    (_, first), (_, second) = (hold_out(numbered(), FRACTION, seed=seed) for seed in (1, 2))
    assert set(numbers(first)) != set(numbers(second))


def test_hold_out_mixes_the_classes() -> None:
    # A smoke run takes the first few: they must not be all of one class, as they are before.
    assert set(numbered().first(20).labels) == {0}
    for part in hold_out(numbered(), FRACTION, seed=1):
        assert len(set(part.first(10).labels)) > 1


def test_split_first_takes_the_first_images_and_labels() -> None:
    assert numbers(numbered().first(3)) == [0, 1, 2]
    assert len(numbered().first(3)) == len(numbered().first(3).labels) == 3


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (Input(shape=(28, 28, 1), color="grey", resize=FashionMnist()), (5, 28, 28)),
        (Input(shape=(28, 28, 1), color="grey", resize=FashionMnist()), (5, 40, 20)),
        (Input(shape=(16, 16, 3), color="rgb", resize=Cover()), (5, 24, 30, 3)),
        (
            Input(
                shape=(None, None, 1),
                color="grey",
                resize=KeepSize(),
                scale=Scale(mean=0.3, deviation=0.4),
            ),
            (5, 9, 11),
        ),
    ],
)
def test_prepare_is_what_the_service_does_to_each_image(
    spec: Input, shape: tuple[int, ...]
) -> None:
    images = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    prepared = prepare(images, spec)
    assert prepared.dtype == np.float32
    for image, ready in zip(images, prepared, strict=True):
        assert (ready == preprocess(Image.fromarray(image), spec)).all()


def test_keras_cache_is_below_keras_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert keras_cache("mnist.npz") == tmp_path / "datasets" / "mnist.npz"


def test_keras_cache_without_keras_home_is_below_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERAS_HOME", raising=False)
    assert keras_cache("mnist.npz") == Path.home() / ".keras" / "datasets" / "mnist.npz"


def test_require_returns_a_file_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "there.bin"
    path.touch()
    assert require(path, "Buy it.") == path


def test_require_says_where_a_missing_file_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as raised:
        require(Path("data/gone.bin"), "Buy it.")
    looked = tmp_path / "data" / "gone.bin"
    assert str(raised.value) == f"gone.bin is missing: looked for {looked}. Buy it."


def test_require_refuses_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder: expected a file"):
        require(tmp_path, "Buy it.")


def test_sha256_of_is_that_of_each_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    assert sha256_of([tmp_path / "a", tmp_path / "b"]) == {
        "a": hashlib.sha256(b"a").hexdigest(),
        "b": hashlib.sha256(b"b").hexdigest(),
    }
