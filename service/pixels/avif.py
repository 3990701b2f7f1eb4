"""How large the pictures inside an AVIF really are: libavif believes its boxes, then decodes.

A file may say 8x8 pixels and hold a picture of 268 megapixels, which is decoded, then scaled down.
The boxes are those of ISO/IEC 14496-12 and 23008-12, the sequence header is AV1's, section 5.5.
"""

from collections.abc import Iterator

_MAX_BLOCKS = 1000  # OBUs of one picture
_MAX_BOXES = 5000
_MAX_INDEX_BYTES = 1 << 16
_SEQUENCE_HEADER = 1
_SPARE_PIXELS = 1 << 20  # for the cells of a small grid, and thumbnails


class Bits:
    """Reads whole numbers of any length from the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        if len(data) > _MAX_INDEX_BYTES:
            raise ValueError("its index is too long")
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, length: int) -> int:
        """The next bits as a number; raises ValueError at the end."""
        self._left -= length
        if self._left < 0:
            raise ValueError("its boxes end early")
        return self._value >> self._left & (1 << length) - 1

    def flag(self) -> bool:
        """The next bit."""
        return self.read(1) == 1


def first_of_sequence(data: bytes) -> bytes:
    """An animation as the still picture that it also holds, which is its first frame."""
    return data[:8] + b"avif" + data[12:] if data[8:12] == b"avis" else data


def check_pictures(data: bytes, pixels: int) -> None:
    """Raise ValueError where the pictures are larger than an image of so many pixels needs."""
    sizes = [size for item in _pictures(data) for size in _frame_sizes(item)]
    if max(sizes, default=0) > pixels + _SPARE_PIXELS or sum(sizes) > 4 * pixels + _SPARE_PIXELS:
        raise ValueError(f"it says {pixels} pixels, its pictures have {sum(sizes)}")


def _boxes(data: bytes, start: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """The name, start and end of each box's contents."""
    for _ in range(_MAX_BOXES):
        if start + 8 > len(data):
            return
        size, name, head = (
            int.from_bytes(data[start : start + 4], "big"),
            data[start + 4 : start + 8],
            8,
        )
        if size == 1:
            size, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        end = start + size if size else len(data)
        if end < start + head:
            raise ValueError("a box of it is shorter than its head")
        yield name, start + head, end
        start = end
    raise ValueError(f"it has more than {_MAX_BOXES} boxes")


def _pictures(data: bytes) -> Iterator[bytes]:
    """The AV1 data of each picture: colours, alpha, cells of a grid, thumbnails."""
    meta = b"".join(data[start + 4 : end] for name, start, end in _boxes(data) if name == b"meta")
    parts = {name: meta[start:end] for name, start, end in _boxes(meta)}
    coded = set(_coded_items(parts.get(b"iinf", b"")))
    left = len(data)
    for item, inside, places in _locations(parts.get(b"iloc", b"")):
        if item in coded:
            source = parts.get(b"idat", b"") if inside else data
            extents = [(start, length or len(source)) for start, length in places]
            left -= sum(min(length, len(source)) for _, length in extents)
            if left < 0:
                raise ValueError("its pictures lie one in another")
            yield b"".join(source[start : start + length] for start, length in extents)


def _coded_items(iinf: bytes) -> Iterator[int]:
    for name, start, end in _boxes(iinf, 4 + (2 if iinf[:1] == b"\0" else 4)):
        wide = iinf[start : start + 1] >= b"\3"
        kind = start + 4 + (4 if wide else 2) + 2
        if name == b"infe" and iinf[kind : kind + 4] == b"av01":
            yield int.from_bytes(iinf[start + 4 : start + (8 if wide else 6)], "big")
        if end > len(iinf):
            raise ValueError("its boxes end early")


def _locations(iloc: bytes) -> Iterator[tuple[int, bool, list[tuple[int, int]]]]:
    """Each item's number, whether it lies in `idat`, and where: starts and lengths."""
    bits = Bits(iloc)
    version = bits.read(8)
    bits.read(24)
    offset, length, base, index = (8 * bits.read(4) for _ in range(4))
    for _ in range(bits.read(32 if version == 2 else 16)):
        item = bits.read(32 if version == 2 else 16)
        method = bits.read(16) & 15 if version else 0
        if method > 1:
            raise ValueError("an item of it lies in another item")
        bits.read(16)  # the file it lies in: this one
        first = bits.read(base)
        extents = []
        for _ in range(bits.read(16)):
            bits.read(index if version else 0)
            extents.append((first + bits.read(offset), bits.read(length)))
        yield item, method == 1, extents


def _frame_sizes(data: bytes) -> Iterator[int]:
    """The pixels of the largest frame that each sequence header allows."""
    at = 0
    for _ in range(_MAX_BLOCKS):
        if at >= len(data):
            return
        head = data[at]
        at += 2 if head & 4 else 1  # with the extension
        size = len(data) - at
        if head & 2:
            size = shift = 0
            for _ in range(8):
                byte = data[at] if at < len(data) else 0
                size |= (byte & 127) << shift
                at, shift = at + 1, shift + 7
                if byte < 128:
                    break
        if head >> 3 & 15 == _SEQUENCE_HEADER:
            yield _largest_frame(Bits(data[at : at + min(size, 1000)]))
        at += size
    raise ValueError(f"a picture of it has more than {_MAX_BLOCKS} blocks")


def _largest_frame(bits: Bits) -> int:
    bits.read(4)  # profile, still picture
    if bits.flag():  # the short header of a still picture
        bits.read(5)
    else:
        _skip_operating_points(bits)
    across, down = bits.read(4) + 1, bits.read(4) + 1
    return (bits.read(across) + 1) * (bits.read(down) + 1)


def _skip_operating_points(bits: Bits) -> None:
    delay = 0
    if bits.flag():  # timing
        bits.read(64)
        if bits.flag():
            zeros = 0
            while not bits.flag():
                zeros += 1
            bits.read(zeros)
        if bits.flag():  # decoder model
            delay = bits.read(5) + 1
            bits.read(42)
    display_delay = bits.flag()
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delay and bits.flag():
            bits.read(2 * delay + 1)
        if display_delay and bits.flag():
            bits.read(4)
