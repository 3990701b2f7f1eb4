"""`python -m tests.service.pixels.unpacking`: the memory that unpacking each kind of image takes.

Prints an object with, for each kind, the bytes by which the process grew and those of the table. It
needs Linux's /proc; each image is unpacked in a process of its own, forked from one that holds it.
"""

import ctypes
import json
import os
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from service.pixels.cost import unpack_bytes
from tests.drawing import encode

SIDE = 1280
DRAFTS = (1, 2, 8)
RESETS_THE_PEAK = "5"  # in /proc/self/clear_refs
_SCAN = b"\xff\xda"


def kinds() -> Iterator[tuple[str, bytes, int]]:
    """A name, the file, and by how much it is scaled down."""
    colour = Image.fromarray(_picture(3))
    alpha = Image.fromarray(_picture(4))
    grey = colour.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    palette, cmyk = colour.quantize(256), colour.convert("CMYK")
    modes = {
        "1": grey.convert("1"), "L": grey, "LA": alpha.convert("LA"), "P": palette, "RGB": colour,
        "RGBA": alpha, "I;16": deep, "CMYK": cmyk,
    }  # fmt: skip
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield f"PNG {mode}", encode(modes[mode], "PNG", compress_level=1), 1
    for mode in ("L", "RGB", "CMYK"):
        for factor in DRAFTS:
            yield f"JPEG {mode} 1/{factor}", encode(modes[mode], "JPEG"), factor
            for sampling, name in ((0, "4:4:4"), (2, "4:2:0")):
                file = encode(modes[mode], "JPEG", progressive=True, subsampling=sampling)
                yield f"progressive JPEG {mode} {name} 1/{factor}", file, factor
    yield "JPEG RGB in three scans", three_scans(colour), 1
    yield "JPEG RGB in three scans 1/8", three_scans(colour), 8
    for mode in ("RGB", "RGBA"):
        yield f"WEBP {mode}", encode(modes[mode], "WEBP", quality=50, method=0), 1
        lossless: dict[str, Any] = {"lossless": True, "quality": 0, "method": 0}
        yield f"lossless WEBP {mode}", encode(modes[mode], "WEBP", **lossless), 1
        yield f"AVIF {mode}", encode(modes[mode], "AVIF", quality=50, speed=10), 1
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield f"BMP {mode}", encode(modes[mode], "BMP"), 1
    yield "run-length BMP", run_lengths(palette), 1
    yield "GIF", encode(palette, "GIF"), 1
    for mode, image in modes.items():
        yield f"TIFF {mode}", encode(image, "TIFF"), 1
    for mode in ("1", "RGB", "I;16", "CMYK"):
        image = modes[mode]
        yield f"compressed TIFF {mode}", encode(image, "TIFF", compression="tiff_lzw"), 1
        strip = encode(image, "TIFF", compression="tiff_lzw", strip_size=1 << 30)
        yield f"TIFF {mode} in one strip", strip, 1
    yield "turned TIFF", encode(colour, "TIFF", tiffinfo={274: 6}), 1


def three_scans(image: Image.Image) -> bytes:
    """A baseline JPEG whose channels come one after the other, each in a scan of its own."""
    channels = [encode(channel, "JPEG") for channel in image.split()]
    first = channels[0]
    file, at = first[:2], 2
    while first[at : at + 2] != _SCAN:
        size = 2 + int.from_bytes(first[at + 2 : at + 4], "big")
        segment = first[at : at + size]
        if segment[1] == 0xC0:  # the frame: three channels of full size, one table for all
            three = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
            segment = b"\xff\xc0\x00\x11" + segment[4:9] + b"\x03" + three
        file += segment
        at += size
    for number, channel in enumerate(channels, 1):
        scan = channel.index(_SCAN)
        file += _SCAN + bytes([0, 8, 1, number]) + channel[scan + 6 : -2]
    return file + b"\xff\xd9"


def run_lengths(image: Image.Image) -> bytes:
    """A BMP of that size in run-length encoding: every row has one colour."""
    plain = encode(image, "BMP")
    start = int.from_bytes(plain[10:14], "little")
    runs = [min(255, image.width - at) for at in range(0, image.width, 255)]
    row = b"".join(bytes([run, 7]) for run in runs) + b"\0\0"
    return plain[:30] + b"\1" + plain[31:start] + row * image.height + b"\0\1"


def _picture(channels: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Blocks with a little noise: drawn fast, and not too easy to compress."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (SIDE // 8, SIDE // 8, channels), dtype=np.uint8)
    picture = blocks.repeat(8, axis=0).repeat(8, axis=1)
    noise: np.ndarray[Any, np.dtype[np.uint8]] = random.integers(0, 4, picture.shape, np.uint8)
    return picture ^ noise


def measure(file: bytes, factor: int) -> list[int]:
    """The bytes by which the process grows while it opens and unpacks, and the table's."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).malloc_trim(0)  # or the image would go where drawn ones were
        Path("/proc/self/clear_refs").write_text(RESETS_THE_PEAK)
        before = _bytes("VmRSS")
        image = Image.open(BytesIO(file))
        told = unpack_bytes(image, factor)
        if factor > 1:
            image.draft(None, (-(-SIDE // factor), -(-SIDE // factor)))
        image.load()
        os.write(writer, json.dumps([_bytes("VmHWM") - before, told]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        found: list[int] = json.load(answer)
    return found


def _bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    Image.preinit()
    Image.init()
    sys.stdout.write(json.dumps({name: measure(file, factor) for name, file, factor in kinds()}))
