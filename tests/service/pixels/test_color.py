import numpy as np
import pytest
from PIL import Image, ImageCms

from service.pixels import color
from service.pixels.color import MAX_PROFILE_BYTES, to_srgb
from service.pixels.decode import decode, open_image
from service.pixels.preprocess import to_pixels
from service.pixels.spec import Input, KeepSize, Stretch
from tests import icc_profiles
from tests.drawing import encode, gradient, noise, pixels
from tests.icc_profiles import ADOBE_RGB, DISPLAY_P3, GREY, PRESS, SWAPPED
from tests.other_reader import Levels, read_by_vips

COLOR = Input(shape=(None, None, 3), color="rgb", resize=KeepSize())
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def decoded(data: bytes) -> Levels:
    image = open_image(data, max_bytes=10**7, max_pixels=10**6)
    return to_pixels(decode(image, COLOR)).astype(np.float64)


def with_profile(mode: str, profile: bytes) -> Image.Image:
    image = Image.new(mode, (4, 4))
    image.info["icc_profile"] = profile
    return image


@pytest.mark.parametrize("profile", [DISPLAY_P3, ADOBE_RGB, SWAPPED])
@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_colours_are_brought_to_srgb(image_format: str, profile: bytes) -> None:
    lossless = {"lossless": True} if image_format == "WEBP" else {}
    data = encode(gradient(), image_format, icc_profile=profile, **lossless)
    plain = encode(gradient(), image_format, **lossless)
    wanted = read_by_vips(data, srgb=True)
    assert np.abs(decoded(plain) - wanted).max() > 15
    assert np.abs(decoded(data) - wanted).max() <= 3


def test_palette_is_brought_to_srgb() -> None:
    image = gradient().quantize(16)
    data = encode(image, "PNG", icc_profile=SWAPPED)
    assert np.abs(decoded(data) - read_by_vips(data, srgb=True)).max() <= 3


def test_inks_are_brought_to_srgb() -> None:
    data = encode(gradient().convert("CMYK"), "TIFF", icc_profile=PRESS)
    wanted = read_by_vips(data, srgb=True)
    assert np.abs(decoded(encode(gradient().convert("CMYK"), "TIFF")) - wanted).max() > 15
    assert np.abs(decoded(data) - wanted).max() <= 4


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_is_brought_to_the_steps_of_srgb(mode: str) -> None:
    image = gradient().convert(mode)
    data = encode(image, "PNG", icc_profile=GREY)
    wanted = read_by_vips(data, srgb=True)
    assert np.abs(decoded(encode(image, "PNG")) - wanted).max() > 15
    assert np.abs(decoded(data) - wanted).max() <= 2


def test_deep_grey_is_brought_to_the_steps_of_srgb() -> None:
    levels = np.arange(256, dtype=np.uint16)[np.newaxis]
    deep = decoded(encode(Image.fromarray(levels * 257), "PNG", icc_profile=GREY))
    flat = decoded(encode(Image.fromarray(levels.astype(np.uint8)), "PNG", icc_profile=GREY))
    np.testing.assert_array_equal(deep, flat)


def test_alpha_is_not_a_colour() -> None:
    image = noise(24, 20, 4)
    data = encode(image, "PNG", icc_profile=SWAPPED)
    assert np.abs(decoded(data) - read_by_vips(data, srgb=True)).max() <= 3


def test_jpeg_that_is_scaled_while_it_is_decoded_keeps_its_profile() -> None:
    small = Input(shape=(16, 16, 3), color="rgb", resize=Stretch())
    big = gradient().resize((640, 480))
    data = encode(big, "JPEG", icc_profile=SWAPPED, quality=95)
    came = to_pixels(decode(open_image(data, 10**7, 10**6), small)).astype(int)
    plain = encode(Image.fromarray(decoded(data).astype(np.uint8)), "PNG")
    whole = to_pixels(decode(open_image(plain, 10**7, 10**6), small))
    assert np.abs(came - whole).max() < 12


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        ("RGB", SRGB),
        ("RGB", GREY),
        ("RGB", PRESS),
        ("L", DISPLAY_P3),
        ("CMYK", DISPLAY_P3),
        ("RGB", b"?"),
        ("RGB", DISPLAY_P3[:200]),
        ("RGB", DISPLAY_P3[:128] + bytes(len(DISPLAY_P3) - 128)),
        ("RGB", DISPLAY_P3 + bytes(MAX_PROFILE_BYTES)),
    ],
    ids=["sRGB", "grey", "inks", "colour", "light", "byte", "cut", "empty", "too large"],
)
def test_srgb_and_a_profile_that_does_not_fit_cost_nothing(mode: str, profile: bytes) -> None:
    assert to_srgb(with_profile(mode, profile)) is None


@pytest.mark.parametrize("profile", [b"?", DISPLAY_P3[:200], bytes(3000)])
def test_damaged_profile_is_ignored(profile: bytes) -> None:
    data = encode(gradient(), "PNG", icc_profile=profile)
    np.testing.assert_array_equal(decoded(data), pixels(gradient()))


def test_profile_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = to_srgb(with_profile("RGB", ADOBE_RGB))
    monkeypatch.setattr(ImageCms, "ImageCmsProfile", None)
    assert first is not None
    assert to_srgb(with_profile("RGBA", ADOBE_RGB)) is first


def test_few_profiles_are_kept() -> None:
    for gamma in range(20):
        to_srgb(with_profile("RGB", icc_profiles.of_gamma(1.5 + gamma / 40)))
    assert len(color._cached) <= 8
