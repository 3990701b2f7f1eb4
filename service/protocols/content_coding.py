"""Bodies that are sent compressed (Content-Encoding), decoded while they arrive.

RFC 9110, section 8.4.1, and RFC 1952: `gzip` may have several members; `deflate` is sent with and
without zlib's header.
"""

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterator

from service.errors import BadInput, UnsupportedCoding

CODINGS = ("gzip", "deflate", "identity")
MAX_MEMBERS = 100
_PIECE_BYTES = 65536
# zlib copies what it has not read yet, so it gets little at once.
_INPUT_BYTES = 4096
_PIECES_IN_A_ROW = 16
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


def check_coding(content_encoding: str) -> str:
    """The coding of a body, in lower case; raises UnsupportedCoding for another than CODINGS."""
    coding = content_encoding.strip().lower().replace("x-gzip", "gzip")
    if coding not in CODINGS:
        raise UnsupportedCoding(
            f"expected Content-Encoding {', '.join(CODINGS)}, got {content_encoding!r:.80}", CODINGS
        )
    return coding


async def decode(pieces: AsyncIterator[bytes], coding: str) -> AsyncGenerator[bytes, None]:
    """The decoded body in pieces of bounded size; raises BadInput for a damaged or cut one.

    However much comes out of a piece, the event loop gets its turn in between.
    """
    decoder = _Decoder(coding)
    given = 0
    async for piece in pieces:
        for start in range(0, len(piece), _INPUT_BYTES):
            waiting = piece[start : start + _INPUT_BYTES]
            has_more = True
            while has_more:
                decoded, waiting = decoder.decode(waiting)
                yield decoded
                given += 1
                if given % _PIECES_IN_A_ROW == 0:
                    await asyncio.sleep(0)
                is_full = len(decoded) == _PIECE_BYTES  # zlib may hold back the rest
                has_more = bool(waiting) or (is_full and not decoder.is_whole)
    if not decoder.is_whole:
        raise BadInput(f"expected a whole body in {coding}, got one that ends too early")


class _Decoder:
    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._stream = zlib.decompressobj(_GZIP) if coding == "gzip" else None
        self._members = 1

    @property
    def is_whole(self) -> bool:
        return self._stream is not None and self._stream.eof

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """Some of the decoded bytes, and the rest of the data."""
        if self._stream is None:
            has_header = data[0] & 0x8F == zlib.DEFLATED
            self._stream = zlib.decompressobj(_ZLIB if has_header else _RAW)
        elif self._stream.eof:
            self._members += 1
            if self._coding != "gzip" or self._members > MAX_MEMBERS:
                raise BadInput(f"expected one body in {self._coding}, got bytes after its end")
            self._stream = zlib.decompressobj(_GZIP)
        try:
            decoded = self._stream.decompress(data, _PIECE_BYTES)
        except zlib.error as error:
            raise BadInput(f"expected a body in {self._coding}, got a damaged one") from error
        return decoded, self._stream.unused_data or self._stream.unconsumed_tail
