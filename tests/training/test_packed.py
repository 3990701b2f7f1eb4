"""Packed image sets: what is in, and what is wrong with one."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tqdm", reason="training needs tqdm")

from service.pixels.spec import Cover, Input
from training.errors import DataError
from training.packed import read_packed

SPEC = Input(shape=(16, 16, 3), color="rgb", resize=Cover())


def arrays(count: int = 6) -> dict[str, Any]:
    """Images of the brightness 40 * i, in three formats."""
    encoded = []
    for number in range(count):
        buffer = BytesIO()
        image = Image.new("RGB", (32, 24), (40 * number,) * 3)
        image.save(buffer, ("WEBP", "PNG", "JPEG")[number % 3])
        encoded.append(buffer.getvalue())
    lengths = [len(data) for data in encoded]
    return {
        "blob": np.frombuffer(b"".join(encoded), np.uint8),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]),
        "labels": np.arange(count, dtype=np.int16) % 2,
        "validation": np.arange(count) >= count - 2,
        "classes": np.array(["night", "day"]),
    }


def test_images_are_unpacked_in_the_order_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", **arrays())
    packed = read_packed(tmp_path / "set.npz")
    assert packed.classes == ("night", "day")
    assert packed.validation.tolist() == [False] * 4 + [True] * 2
    pixels = packed.pixels(np.array([4, 0, 3]), SPEC)
    assert pixels.shape == (3, 16, 16, 3)
    np.testing.assert_allclose(pixels.mean(axis=(1, 2, 3)), [160, 0, 120], atol=3)


def refusal(path: Path, content: dict[str, Any]) -> str:
    np.savez(path, **content)
    with pytest.raises(DataError) as caught:
        read_packed(path).pixels(np.array([0]), SPEC)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([0, 1, 0, 1, 0, 2])}, "expected labels 0 to 1"),
        ({"labels": np.array([0, 1])}, "expected 3 offsets"),
        ({"blob": np.zeros(3, np.uint8)}, "into 3 bytes"),
        ({"blob": np.zeros(100_000, np.uint8)}, "cannot be read"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    assert message in refusal(tmp_path / "set.npz", arrays() | change)


def test_array_that_lacks_is_named(tmp_path: Path) -> None:
    content = arrays()
    del content["classes"]
    assert "got none named ['classes']" in refusal(tmp_path / "set.npz", content)


def test_file_that_lacks_is_named_with_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Pass a packed image set with --data"):
        read_packed(tmp_path / "set.npz")


def test_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read"):
        read_packed(tmp_path / "set.npz")
