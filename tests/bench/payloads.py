"""What is posted: one small drawing as PNG, as form, and as the tensors that two peers take."""

import json
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from tests.drawing import dress, encode, gradient

TARGET_BYTES = 410
BOUNDARY = "vitrine-benchmark"


@dataclass(frozen=True)
class Payload:
    """A POST: where to, with which headers and body."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def drawing() -> Image.Image:
    """A garment with as much grain as makes its PNG 410 bytes, those of a typical test image."""
    grain = np.random.default_rng(0)
    order = grain.permutation(28 * 28)
    levels = grain.integers(0, 256, 28 * 28)
    smooth = np.asarray(dress())
    for count in range(28 * 28):
        pixels = smooth.copy()
        pixels.flat[order[:count]] = levels[:count]
        pixels[[0, 0, -1, -1], [0, -1, 0, -1]] = 0  # dark corners: the data set's own form
        image = Image.fromarray(pixels)
        if len(encode(image, "PNG")) >= TARGET_BYTES:
            return image
    raise AssertionError(f"expected a drawing of {TARGET_BYTES} bytes")


def raw(path: str) -> Payload:
    """The image itself."""
    return Payload(path, encode(drawing(), "PNG"), {"Content-Type": "image/png"})


def photo(path: str, width: int, height: int) -> Payload:
    """A JPEG with the detail of a photo, some 0.3 bytes a pixel."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    detail = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    image = Image.blend(gradient().resize((width, height)), detail, 0.5)
    return Payload(path, encode(image, "JPEG", quality=90), {"Content-Type": "image/jpeg"})


def form(path: str, part: str = "image", file: Payload | None = None) -> Payload:
    """A multipart form with an image as a file; the drawing, if none is given."""
    image = file or raw(path)
    head = (
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; "
        f'name="{part}"; filename="image"\r\n'
        f"Content-Type: {image.headers['Content-Type']}\r\n\r\n"
    )
    body = head.encode() + image.body + f"\r\n--{BOUNDARY}--\r\n".encode()
    return Payload(path, body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})


def v2_json(path: str) -> Payload:
    """The decoded image as a JSON tensor of the Open Inference Protocol (version 2)."""
    tensor = {
        "name": "image",
        "shape": [1, 28, 28, 1],
        "datatype": "FP32",
        "data": [round(float(level), 4) for level in _floats().flat],
    }
    body = json.dumps({"inputs": [tensor]}).encode()
    return Payload(path, body, {"Content-Type": "application/json"})


def v2_binary(path: str) -> Payload:
    """The decoded image as raw float32, without any header: the smallest that Triton takes."""
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": "0",
    }
    return Payload(path, _floats().tobytes(), headers)


def _floats() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(drawing(), dtype=np.float32) / np.float32(255)
