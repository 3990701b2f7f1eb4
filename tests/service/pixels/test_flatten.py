import subprocess
import sys

import numpy as np
import pytest
from PIL import ExifTags, Image

from service.pixels import flatten as module
from service.pixels.flatten import flatten, opaque, separate
from service.pixels.preprocess import Pixels
from service.pixels.spec import Input, KeepSize
from tests.drawing import gradient, mean_difference, noise, pixels
from tests.icc_profiles import DISPLAY_P3
from tests.server import CHECKOUT

LARGE = (300, 700)  # several strips
MODES = {
    "1": gradient(*LARGE).convert("1"),
    "L": gradient(*LARGE).convert("L"),
    "LA": noise(*LARGE, 4).convert("LA"),
    "P": gradient(*LARGE).quantize(16),
    "RGB": noise(*LARGE),
    "RGBA": noise(*LARGE, 4),
    "CMYK": noise(*LARGE).convert("CMYK"),
    "YCbCr": noise(*LARGE).convert("YCbCr"),
    "I;16": Image.fromarray(np.arange(210_000, dtype=np.uint16).reshape(700, 300)),
    "transparent L": gradient(*LARGE).convert("L"),
    "transparent P": gradient(*LARGE).quantize(16),
    "transparent RGB": noise(*LARGE),
    "RGB with a profile": noise(*LARGE),
}
MODES["transparent L"].info["transparency"] = 77
MODES["transparent P"].info["transparency"] = bytes(range(0, 256, 16))
MODES["transparent RGB"].info["transparency"] = MODES["transparent RGB"].getpixel((0, 0))
MODES["RGB with a profile"].info["icc_profile"] = DISPLAY_P3


def test_opaque_image_is_not_copied() -> None:
    image = gradient()
    assert opaque(image) is image


def turned(image: Image.Image, orientation: int) -> Image.Image:
    image = image.copy()
    image.getexif()[ExifTags.Base.Orientation] = orientation
    return image


def flat(image: Image.Image, spec: Input) -> Pixels:
    return pixels(flatten(image, spec))


def separated(image: Image.Image) -> list[Pixels]:
    return [pixels(layer) for layer in separate(image) if layer is not None]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", MODES)
def test_strips_make_the_image_that_one_piece_makes(
    mode: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = turned(MODES[mode], orientation)
    specs = [
        Input(shape=(None, None, 1), color="grey", resize=KeepSize()),
        Input(shape=(None, None, 3), color="rgb", resize=KeepSize()),
    ]
    in_strips = [flat(image, spec) for spec in specs] + separated(image)
    monkeypatch.setattr(module, "_STRIP_PIXELS", 10**9)
    whole = [flat(image, spec) for spec in specs] + separated(image)
    for one, other in zip(in_strips, whole, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("mode", MODES)
def test_colours_and_alpha_are_separated(mode: str) -> None:
    image = MODES[mode]
    grey = mode in ("1", "L", "LA", "I;16", "transparent L")
    came = separated(image)
    assert separate(image)[0].mode == ("L" if grey else "RGB")
    if "profile" not in mode and mode != "I;16":
        wanted = image.convert("RGBA").convert("L" if grey else "RGB")
        np.testing.assert_array_equal(came[0], pixels(wanted))
    clear = mode in ("LA", "RGBA") or "transparent" in mode
    assert len(came) == 1 + clear
    if clear:
        np.testing.assert_array_equal(came[1], pixels(image.convert("RGBA").getchannel("A")))


def test_profile_counts_for_the_separated_colours() -> None:
    image = MODES["RGB with a profile"]
    spec = Input(shape=(None, None, 3), color="rgb", resize=KeepSize())
    np.testing.assert_array_equal(separated(image)[0], flat(image, spec))
    assert mean_difference(separated(image)[0], pixels(image)) > 3


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak of the memory")
def test_image_is_flattened_in_at_most_five_bytes_a_pixel() -> None:
    code = """
import os
from pathlib import Path
from PIL import Image
from service.pixels.flatten import flatten, separate
from service.pixels.spec import Input, KeepSize

def peak_bytes():
    return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

spec = Input(shape=(None, None, 3), color="rgb", resize=KeepSize())
for mode in ("1", "P", "LA", "RGB", "RGBA", "CMYK", "I;16"):
    for function in (lambda image: flatten(image, spec), separate):
        if os.fork() == 0:  # whose peak begins anew
            image = Image.new(mode, (1600, 1600))
            image.getexif()[274] = 6
            before = peak_bytes()
            kept = function(image)
            print((peak_bytes() - before) / 1600**2, flush=True)
            os._exit(0)
        os.wait()
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    figures = [float(line) for line in ran.stdout.split()]
    assert len(figures) == 14
    assert max(figures) < 5.5  # a strip of a large image adds less
