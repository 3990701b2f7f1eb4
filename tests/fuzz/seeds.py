"""What the mutations start from, all drawn here: images, forms, requests, manifests."""

import gzip
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image, ImageCms

from tests.drawing import encode, gradient
from tests.image_files import FILES, STORED, stored
from tests.server import CHECKOUT
from tests.service.server.test_framing import CLOSED, READ
from tests.tiff_files import CMYK, GREY, GREY_ON_WHITE, PALETTE, RGB, YCBCR, Layout, Samples, tiff

SAMPLE = (CHECKOUT / "models" / "fashion-mnist" / "1" / "sample.png").read_bytes()
PREDICT = "/v1/models/fashion-mnist-mlp:predict"
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F")
_FORMATS: Mapping[str, tuple[Mapping[str, object], ...]] = {
    "PNG": ({}, {"optimize": True}, {"dpi": (72, 72)}),
    "JPEG": ({}, {"progressive": True}, {"quality": 5, "subsampling": 0}),
    "WEBP": ({}, {"lossless": True}),
    "BMP": ({},),
    "GIF": ({}, {"interlace": 0}),
    "AVIF": ({}, {"quality": 100}),
    "TIFF": tuple(
        {"compression": name}
        for name in (None, "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "group3",
                     "group4", "tiff_ccitt", "lzma", "zstd")
    ),
}  # fmt: skip


def images() -> list[bytes]:
    """Every format in every mode and compression that can be written."""
    return [*FILES.values(), *_saved(), *_tiffs(), *_special()]


def _saved() -> Iterator[bytes]:
    for image_format, choices in _FORMATS.items():
        for mode in _MODES:
            image = (
                gradient().convert("L").convert(mode)
                if mode == "I;16"
                else gradient().convert(mode)
            )
            for options in choices:
                try:
                    yield encode(image, image_format, **options)
                except (OSError, KeyError, ValueError):
                    continue  # this format does not have this mode


def _tiffs() -> Iterator[bytes]:
    layouts = [Layout(bits=bits) for bits in (1, 2, 4, 8, 10, 12, 14, 16, 24, 32)]
    for more in ("planar", "tiled", "deflate", "predictor", "reversed_bits", "big"):
        layouts += [Layout(bits=bits, order=">", **{more: True}) for bits in (8, 16)]
    for layout in layouts:
        for photometric, channels in ((GREY, 1), (GREY_ON_WHITE, 1), (RGB, 3), (RGB, 4), (CMYK, 4)):
            yield tiff(_samples(channels, layout.bits), photometric, layout)
    yield tiff(_samples(3, 8), YCBCR, Layout())
    yield tiff(_samples(1, 8), PALETTE, Layout(), colormap=_samples(3, 16)[:16, :16].reshape(-1))


def _samples(channels: int, bits: int) -> Samples:
    values: Samples = (np.arange(20 * 24 * channels) % 2 ** min(bits, 16)).astype(np.uint16)
    return values.reshape(20, 24, channels)


def _special() -> Iterator[bytes]:
    """Profiles, orientations, transparency, several frames."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    frames = [gradient().rotate(90 * turn) for turn in range(3)]
    for image_format in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF"):
        yield encode(gradient(), image_format, icc_profile=profile)
        yield encode(gradient(), image_format, icc_profile=b"no profile")
    for image_format in ("GIF", "PNG", "WEBP", "TIFF"):
        yield encode(gradient(), image_format, save_all=True, append_images=frames)
    yield encode(gradient().convert("L"), "PNG", transparency=7)
    yield encode(gradient().quantize(16), "PNG", transparency=bytes(range(16)))
    yield encode(gradient().quantize(16), "GIF", transparency=3)
    for orientation in STORED:
        yield stored(gradient(), "JPEG", orientation)
    yield encode(Image.new("RGB", (700, 500)), "PNG")  # decoded in a thread
    yield encode(gradient(600, 400), "JPEG")


def forms() -> list[bytes]:
    """Content-Type, Content-Encoding and body, each of the first two in a line of its own."""
    kind = b"multipart/form-data; boundary=xyz"
    image = (b'Content-Disposition: form-data; name="image"', SAMPLE)
    field = (b'Content-Disposition: form-data; name="top_k"; filename="a;b"', b"3")
    typed = (image[0] + b"\r\nContent-Type: text/plain; charset=utf-8", b'"x"')
    bodies = [_form(image), _form(image, field), _form(field, typed, image), _form(*[image] * 3)]
    found = [b"\n".join((kind, b"", body)) for body in bodies]
    found += [b"\n".join((kind, b"gzip", gzip.compress(body, mtime=0))) for body in bodies]
    found += [b"\n".join((kind, b"deflate", zlib.compress(body))) for body in bodies]
    return found


def _form(*parts: tuple[bytes, bytes]) -> bytes:
    packed = b"".join(b"--xyz\r\n%b\r\n\r\n%b\r\n" % part for part in parts)
    return packed + b"--xyz--\r\n"


def requests() -> list[bytes]:
    """What arrives on a connection."""
    tabled = [whole for whole, _ in (*READ.values(), *CLOSED.values()) if len(whole) < 20_000]
    found = [whole.replace(b"TARGET", PREDICT.encode()) for whole in tabled]
    for content in forms():
        kind, coding, body = content.split(b"\n", 2)
        for path in (b"/classify", PREDICT.encode()):
            head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: %b\r\n" % (path, kind)
            if coding:
                head += b"Content-Encoding: %b\r\n" % coding
            found.append(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    paths = (
        "/",
        "/docs.json",
        "/metrics",
        "/v1/models",
        PREDICT,
        f"{PREDICT}?top_k=2&top_k=1",
        "/%2e%2e/x",
    )
    for target in paths:
        for method in ("GET", "HEAD", "POST", "OPTIONS"):
            found.append(
                f"{method} {target} HTTP/1.1\r\nHost: x\r\nX-Request-ID: a\r\nOrigin: http://y\r\n"
                "X-Request-Timeout-Ms: 5000\r\nAuthorization: Bearer x\r\n\r\n".encode()
            )
    return found


def manifests() -> list[bytes]:
    """The manifests of the shipped models."""
    return [path.read_bytes() for path in sorted(CHECKOUT.glob("models/*/*/manifest.json"))]
