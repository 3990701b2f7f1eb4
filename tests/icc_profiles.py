"""Small ICC profiles, written by hand after ICC.1:2001-04."""

import struct
from collections.abc import Mapping

import numpy as np

# Primaries of Display P3 and Adobe RGB, adapted to D50: the columns X, Y, Z of red, green, blue.
_DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
_ADOBE_RGB = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
_D50 = (0.9642, 1.0, 0.8249)


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(*values)


def _gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256)) + b"\0\0"


def _profile(kind: bytes, space: bytes, connection: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    header = struct.pack(">I4s4s4s4s4s", 0, b"\0" * 4, b"\2\x10\0\0", kind, space, connection)
    header = header.ljust(36, b"\0") + b"acsp" + bytes(28) + _fixed(*_D50)
    whole = header.ljust(128, b"\0") + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


def _color(primaries: tuple[tuple[float, float, float], ...], gamma: float) -> bytes:
    curve = _gamma(gamma)
    tags = {
        name: _xyz(xyz) for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)
    }
    tags |= {b"wtpt": _xyz(_D50), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def of_gamma(gamma: float) -> bytes:
    """Display P3's primaries with other steps."""
    return _color(_DISPLAY_P3, gamma)


DISPLAY_P3 = _color(_DISPLAY_P3, 2.2)
ADOBE_RGB = _color(_ADOBE_RGB, 2.2)
SWAPPED = _color(_DISPLAY_P3[::-1], 2.2)
GREY = _profile(b"mntr", b"GRAY", b"XYZ ", {b"wtpt": _xyz(_D50), b"kTRC": _gamma(1.2)})


def _press() -> bytes:
    """Inks of a press: 16 corners in CIE Lab, each 8 bits, and linear curves."""
    corners = [
        (
            255 * (1 - black) * (1 - 0.2 * cyan - 0.3 * magenta),
            128 + 40 * (magenta - cyan),
            128 - 60 * cyan + 70 * yellow,
        )
        for cyan in (0, 1)
        for magenta in (0, 1)
        for yellow in (0, 1)
        for black in (0, 1)
    ]
    linear = bytes(range(256))
    table = np.clip(np.array(corners), 0, 255).astype(np.uint8).tobytes()
    head = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    return _profile(
        b"prtr",
        b"CMYK",
        b"Lab ",
        {b"wtpt": _xyz(_D50), b"A2B0": head + linear * 4 + table + linear * 3},
    )


PRESS = _press()
