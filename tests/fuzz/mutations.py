"""Damage to files and requests: bits, lengths, pieces, words; always the same for one seed."""

import re
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Literal

MAX_BYTES = 65_536
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_WORDS = (
    b"\0", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"--", b'"', b";", b":", b"=", b"%00", b"-1", b"0",
    b"9" * 20, b"\xff" * 8, b"\xef\xbb\xbf", b"../", b"NaN", b"null", b"[" * 1000, b"\xed\xa0\x80",
    b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"IDAT", b"IEND", b"acTL", b"eXIf", b"VP8 ", b"VP8X",
    b"ANIM", b"ALPH", b"\xff\xda", b"\xff\xc2", b"\xff\xe1", b"\xff\xd9", b"II*\0", b"MM\0*",
    b"GIF89a", b"NETSCAPE2.0", b"BM", b"ftypavif", b"mdat", b"iloc",
    b"multipart/form-data; boundary=x",
    b'Content-Disposition: form-data; name="image"', b"Transfer-Encoding: chunked",
    b"Content-Length: 5", b"Content-Encoding: gzip", b"Connection: Upgrade",
    b"Expect: 100-continue", b"0\r\n\r\n",
    b"POST /v1/models/fashion-mnist-mlp:predict HTTP/1.1\r\n",
    b"charset=utf-16",
)  # fmt: skip

_LENGTH = re.compile(rb"Content-Length: (\d+)")

Mutation = Callable[[bytearray, Random], None]


def mutated(seed: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """The seed with one to eight changes, some of them with pieces of the others."""
    data = bytearray(seed)
    choices: list[Mutation] = [*_CHANGES, partial(_splice, others)]
    for _ in range(1 + min(7, int(random.expovariate(0.7)))):
        random.choice(choices)(data, random)
        if not data:
            data += b"\0"
    del data[MAX_BYTES:]
    if random.random() < 0.7:  # else the damage would go no deeper than to a check of it
        _set_checksums(data)
        _set_length(data)
    return bytes(data)


def _set_checksums(data: bytearray) -> None:
    """Make the checksum of each chunk of a PNG right."""
    at = 8
    while data.startswith(b"\x89PNG") and at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 <= len(data):
            data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4


def _set_length(data: bytearray) -> None:
    """Make the length of a request's body right."""
    end = data.find(b"\r\n\r\n")
    found = _LENGTH.search(data, 0, max(0, end))
    if found is not None:
        data[found.start(1) : found.end(1)] = str(len(data) - end - 4).encode()


def _place(data: bytearray, random: Random) -> int:
    """Half of the damage goes to the beginning, where headers are."""
    end = len(data) if random.random() < 0.5 else min(len(data), 128)
    return random.randrange(end)


def _piece(data: bytes | bytearray, random: Random) -> bytes:
    start = random.randrange(len(data))
    return bytes(data[start : start + int(random.expovariate(1 / 30)) + 1])


def _flip_bit(data: bytearray, random: Random) -> None:
    data[_place(data, random)] ^= 1 << random.randrange(8)


def _set_byte(data: bytearray, random: Random) -> None:
    data[_place(data, random)] = random.randrange(256)


def _set_number(data: bytearray, random: Random) -> None:
    """A length or an offset becomes one at the edge of what fits, or differs by a little."""
    size = random.choice((1, 2, 4))
    order: Literal["little", "big"] = random.choice(("little", "big"))
    at = _place(data, random)
    before = int.from_bytes(data[at : at + size], order)
    value = random.choice((random.choice(_NUMBERS), before + random.randint(-16, 16)))
    data[at : at + size] = (value % 256**size).to_bytes(size, order)


def _set_digits(data: bytearray, random: Random) -> None:
    """The same in text."""
    digits = [at for at, byte in enumerate(data[:4096]) if byte in b"0123456789"]
    if digits:
        at = random.choice(digits)
        data[at : at + 1] = str(random.choice(_NUMBERS)).encode()


def _truncate(data: bytearray, random: Random) -> None:
    del data[random.randrange(len(data)) :]


def _delete(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    del data[at : at + int(random.expovariate(1 / 20)) + 1]


def _repeat(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    data[at:at] = _piece(data, random) * random.choice((1, 1, 2, 50))


def _swap(data: bytearray, random: Random) -> None:
    one, other = _place(data, random), _place(data, random)
    size = int(random.expovariate(1 / 10)) + 1
    data[one : one + size], data[other : other + size] = (
        data[other : other + size], data[one : one + size],
    )  # fmt: skip


def _insert_word(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    data[at:at] = random.choice(_WORDS)


def _overwrite_word(data: bytearray, random: Random) -> None:
    at, word = _place(data, random), random.choice(_WORDS)
    data[at : at + len(word)] = word


def _splice(others: Sequence[bytes], data: bytearray, random: Random) -> None:
    """Go on with another file from here, or take a piece of it."""
    other, at = random.choice(others), _place(data, random)
    if not other:
        return
    if random.random() < 0.3:
        data[at:] = other[min(at, len(other) - 1) :]
    else:
        data[at:at] = _piece(other, random)


_CHANGES: tuple[Mutation, ...] = (
    _flip_bit, _flip_bit, _set_byte, _set_number, _set_number, _set_digits, _truncate, _delete,
    _repeat, _swap, _insert_word, _overwrite_word,
)  # fmt: skip
