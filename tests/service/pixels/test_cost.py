"""The table of what unpacking takes, against what it takes."""

import json
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
import tifffile
from PIL import Image

from service.pixels.cost import decode_bytes, unpack_bytes
from service.pixels.spec import Cover, Input, KeepSize
from tests.drawing import encode, gradient
from tests.server import CHECKOUT

# Row buffers, libraries that are loaded at the first use, Python's own objects.
BESIDE_PIXELS_BYTES = 2_000_000
SMALL = Input(shape=(32, 32, 3), color="rgb", resize=Cover())
OWN_SIZE = Input(shape=(None, None, 1), color="grey", resize=KeepSize())


@pytest.fixture(scope="module")
def measured() -> dict[str, tuple[int, int]]:
    command = [sys.executable, "-m", "tests.service.pixels.unpacking"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=True, timeout=120)
    return {name: (grown, told) for name, (grown, told) in json.loads(done.stdout).items()}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the measurement needs /proc")
def test_no_image_takes_more_than_the_table_says(measured: dict[str, tuple[int, int]]) -> None:
    beyond = {
        name: f"{grown / told:.2f} times"
        for name, (grown, told) in measured.items()
        if grown > told + BESIDE_PIXELS_BYTES
    }
    assert beyond == {}
    assert len(measured) > 50


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the measurement needs /proc")
def test_table_says_at_most_twice_what_an_image_takes(measured: dict[str, tuple[int, int]]) -> None:
    padded = {
        name: f"{grown / told:.2f} times"
        for name, (grown, told) in measured.items()
        if grown < told / 2
    }
    assert padded == {}


def opened(file: bytes) -> Image.Image:
    return Image.open(BytesIO(file))


def test_jpeg_that_is_scaled_down_costs_its_smaller_size() -> None:
    file = encode(gradient(1600, 1600), "JPEG")
    assert (
        decode_bytes(opened(file), SMALL) * 60 < decode_bytes(opened(file), OWN_SIZE) < 1600**2 * 10
    )


def test_small_tiff_in_a_huge_tile_costs_the_tile() -> None:
    buffer = BytesIO()
    pixels = np.zeros((64, 64), np.uint8)
    tifffile.imwrite(buffer, pixels, compression="zlib", tile=(4096, 4096))
    assert unpack_bytes(opened(buffer.getvalue())) > 4096**2
