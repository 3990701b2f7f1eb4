"""PNG files of every kind, written by hand, and their chunks."""

import struct
import zlib

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.uint32]

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
DEPTHS = {
    GREY: (1, 2, 4, 8, 16),
    RGB: (8, 16),
    PALETTE: (1, 2, 4, 8),
    GREY_ALPHA: (8, 16),
    RGBA: (8, 16),
}
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Adam7: the first column and row of each pass, and its steps.
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


def chunk(name: bytes, body: bytes = b"", *, damaged: bool = False) -> bytes:
    """One chunk; a damaged one has a wrong checksum."""
    checksum = zlib.crc32(name + body) ^ damaged
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)


def png(
    samples: Samples,
    color: int,
    bits: int,
    *,
    interlaced: bool = False,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """Samples (height, width, channels) -> a PNG with these chunks before and after its pixels."""
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlaced)
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    rows = [_rows(samples[y::down, x::right], bits) for x, y, right, down in passes]
    pixels = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return _SIGNATURE + chunk(b"IHDR", header) + before + pixels + after + chunk(b"IEND")


def _rows(samples: Samples, bits: int) -> bytes:
    if not samples.size:
        return b""
    rows = samples.reshape(len(samples), -1)
    if bits == 16:
        packed = rows.astype(">u2").view(np.uint8).reshape(len(rows), -1)
    else:
        ones = (rows[..., np.newaxis] >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8)
        packed = np.packbits(ones.reshape(len(rows), -1), axis=1)
    return np.pad(packed, ((0, 0), (1, 0))).tobytes()  # filter 0 before each row
