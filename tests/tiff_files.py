"""TIFF files in every layout, written by hand: no library writes all that others read."""

import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.uint32]

GREY_ON_WHITE, GREY, RGB, PALETTE, CMYK, YCBCR, LAB, ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
_DEFLATE = 8
_HORIZONTAL = 2


@dataclass(frozen=True)
class Layout:
    """How the samples of a TIFF are stored."""

    bits: int = 8
    order: str = "<"
    planar: bool = False
    tiled: bool = False
    deflate: bool = False
    predictor: bool = False
    reversed_bits: bool = False
    big: bool = False


def tiff(
    samples: Samples,
    photometric: int,
    layout: Layout,
    *,
    extra: tuple[int, ...] = (),
    sample_format: int = 1,
    colormap: Samples | None = None,
) -> bytes:
    """Samples (height, width, channels), each of `layout.bits` bits -> a TIFF file."""
    height, width, channels = samples.shape
    side = (16, 16) if layout.tiled else (7, width)  # strips of 7 rows
    planes = np.split(samples, channels, axis=2) if layout.planar else [samples]
    blocks = [
        _packed(_block(plane, row, column, side, layout), layout)
        for plane in planes
        for row in range(0, height, side[0])
        for column in range(0, width, side[1])
    ]
    tags: dict[int, tuple[int, tuple[int, ...]]] = {
        256: (4, (width,)),
        257: (4, (height,)),
        258: (3, (layout.bits,) * channels),
        259: (3, (_DEFLATE if layout.deflate else 1,)),
        262: (3, (photometric,)),
        266: (3, (2 if layout.reversed_bits else 1,)),
        277: (3, (channels,)),
        284: (3, (2 if layout.planar else 1,)),
        339: (3, (sample_format,) * channels),
    }
    if layout.predictor:
        tags[317] = 3, (_HORIZONTAL,)
    if extra:
        tags[338] = 3, extra
    if colormap is not None:
        tags[320] = 3, tuple(colormap.ravel().tolist())
    if photometric == YCBCR:
        tags[530] = 3, (1, 1)
    if layout.tiled:
        tags |= {322: (4, (side[1],)), 323: (4, (side[0],))}
    else:
        tags[278] = 4, (side[0],)
    return _file(tags, blocks, layout)


def _block(plane: Samples, row: int, column: int, side: tuple[int, int], layout: Layout) -> Samples:
    block = plane[row : row + side[0], column : column + side[1]]
    if layout.tiled:
        missing = side[0] - block.shape[0], side[1] - block.shape[1]
        block = np.pad(block, ((0, missing[0]), (0, missing[1]), (0, 0)))
    return block


def _packed(block: Samples, layout: Layout) -> bytes:
    if layout.predictor:
        before = np.pad(block, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        block = (block.astype(np.int32) - before) & (1 << layout.bits) - 1  # type: ignore[assignment]
    rows = block.reshape(len(block), -1)
    if layout.bits in (8, 16, 32):
        data = rows.astype(f"{layout.order}u{layout.bits // 8}").tobytes()
    else:
        places = np.arange(layout.bits - 1, -1, -1)
        ones = (rows[..., np.newaxis] >> places & 1).astype(np.uint8)
        data = np.packbits(ones.reshape(len(rows), -1), axis=1).tobytes()
    if layout.deflate:
        data = zlib.compress(data)
    if layout.reversed_bits:
        bits = np.unpackbits(np.frombuffer(data, np.uint8))
        data = np.packbits(bits.reshape(-1, 8)[:, ::-1]).tobytes()
    return data


def _file(
    tags: dict[int, tuple[int, tuple[int, ...]]], blocks: list[bytes], layout: Layout
) -> bytes:
    """The blocks of pixels first, then the values of the tags, then the directory."""
    order, big = layout.order, layout.big
    body = bytearray(16)
    offsets = []
    for block in blocks:
        offsets.append(len(body))
        body += block + bytes(len(block) % 2)
    where, lengths = (324, 325) if layout.tiled else (273, 279)
    tags |= {where: (4, tuple(offsets)), lengths: (4, tuple(map(len, blocks)))}
    field, count, number = (8, "Q", "Q") if big else (4, "I", "H")
    entries = b""
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > field:
            body += bytes(-len(body) % 8)
            packed, place = struct.pack(f"{order}{count}", len(body)), packed
            body += place
        entries += struct.pack(f"{order}HH{count}", tag, kind, len(values))
        entries += packed.ljust(field, b"\0")
    body += bytes(-len(body) % 8)
    directory = len(body)
    body += struct.pack(f"{order}{number}", len(tags)) + entries + bytes(field)
    mark = b"II" if order == "<" else b"MM"
    head = (
        struct.pack(f"{order}HHHQ", 43, 8, 0, directory)
        if big
        else (struct.pack(f"{order}HI", 42, directory))
    )
    body[: len(mark + head)] = mark + head
    return bytes(body)
