"""The figures of denoised photos, on drawn ones."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.bench import photos
from tests.drawing import gradient


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        (tmp_path / f"class {number}").mkdir()
        gradient().resize((96, 64 + number)).save(tmp_path / f"class {number}" / "photo.jpg")
    return tmp_path


def test_psnr_is_the_one_computed_by_hand() -> None:
    clean = np.full((4, 4, 3), 100, np.uint8)
    assert photos.psnr_db(clean, clean + np.uint8(51)) == pytest.approx(13.979, abs=0.001)


def test_photos_are_spread_over_the_folder_and_enough_of_them(folder: Path) -> None:
    assert [file.parent.name for file in photos.some(folder, 2)] == ["class 0", "class 1"]
    with pytest.raises(SystemExit, match=r"^error: expected at least 4 \.jpg under .*, got 3$"):
        photos.some(folder, 4)


def test_table_has_both_ways_of_denoising_the_same_noise(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["photos", "--data", str(folder), "--count", "3"])
    photos.main()
    head, _, *rows, cost = capsys.readouterr().out.strip().splitlines()
    assert head == "| sigma | noisy | channel by channel | as served |"
    for sigma, row in zip(photos.SIGMAS, rows, strict=True):
        first, *decibels = (cell.strip() for cell in row.strip("|").split("|"))
        noisy, by_channel, served = map(float, decibels)
        assert float(first) == sigma
        assert noisy == pytest.approx(-20 * np.log10(sigma), abs=2)  # clipping takes some away
        assert noisy < by_channel != served > noisy
    assert cost.startswith("| CPU s a megapixel |")
