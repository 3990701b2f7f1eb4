"""The parts of a multipart body (RFC 2046, section 5.1; RFC 7578), read while it arrives.

Each byte is looked at once, by a search in C: no input makes reading slow.
"""

import math
import re
from collections.abc import AsyncIterator
from typing import NamedTuple

from python_multipart.multipart import parse_options_header

from service.errors import BadInput, UnsupportedImage

MAX_BOUNDARY_BYTES = 256
MAX_HEAD_BYTES = 8192
"""Of the headers of one part, and of what may stand before the first part."""
MAX_PADDING_BYTES = 256
_CUT = "expected a whole form, got one that ends before its closing boundary"
_FOLD = re.compile(rb"\r\n[ \t]+")


class Head(NamedTuple):
    """What the headers of a part say."""

    name: str
    charset: str
    """In lower case; empty where none is named."""


class PartReader:
    """Reads a body part by part: `next_part`, then `data`."""

    def __init__(self, pieces: AsyncIterator[bytes], content_type: bytes) -> None:
        """Raises BadInput for a Content-Type without a usable boundary."""
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not 1 <= len(boundary) <= MAX_BOUNDARY_BYTES:
            raise BadInput(
                f"expected a Content-Type with a boundary of 1 to {MAX_BOUNDARY_BYTES} bytes, "
                f"got {len(boundary)} bytes"
            )
        self._pieces = pieces
        self._delimiter = b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")  # so that the first delimiter is like all others
        self._is_first = True

    async def next_part(self) -> Head | None:
        """The head of the next part, or None after the last.

        Raises BadInput or UnsupportedImage. The data of the part before have to be read.
        """
        if self._is_first:
            self._is_first = False
            none = "expected a form that begins with its boundary, got none"
            await self._until(self._delimiter, MAX_HEAD_BYTES, none, cut=none)
        while len(self._buffer) < 2:
            await self._more(_CUT)
        if self._buffer.startswith(b"--"):
            async for _ in self._pieces:  # what follows the last part means nothing
                pass
            return None
        if self._buffer.startswith(b"\n"):
            raise BadInput("expected lines of a form that end in CR LF, got LF alone")
        no_boundary = "expected no line that begins with the boundary inside a part, got one"
        if (await self._until(b"\r\n", MAX_PADDING_BYTES, no_boundary)).strip(b" \t"):
            raise BadInput(no_boundary)
        long = f"expected at most {MAX_HEAD_BYTES} bytes of headers in a part, got more"
        return _parse(await self._until(b"\r\n\r\n", MAX_HEAD_BYTES, long))

    async def data(self, max_bytes: float = math.inf, too_long: str = "") -> bytes:
        """The bytes of the part, undecoded; raises BadInput where they are cut or too long."""
        return await self._until(self._delimiter, max_bytes, too_long)

    async def _until(self, end: bytes, max_bytes: float, too_long: str, cut: str = _CUT) -> bytes:
        """The bytes before `end`, which is dropped."""
        searched = 0
        while (found := self._buffer.find(end, searched)) < 0:
            searched = max(0, len(self._buffer) - len(end) + 1)
            if searched > max_bytes:
                raise BadInput(too_long)
            await self._more(cut)
        if found > max_bytes:
            raise BadInput(too_long)
        with memoryview(self._buffer) as view:
            taken = bytes(view[:found])
        del self._buffer[: found + len(end)]
        return taken

    async def _more(self, cut: str) -> None:
        try:
            self._buffer += await anext(self._pieces)
        except StopAsyncIteration as error:
            raise BadInput(cut) from error


def _parse(head: bytes) -> Head:
    headers: dict[bytes, bytes] = {}
    for line in _FOLD.sub(b" ", head).split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon:
            raise BadInput(f"expected the headers of a part as name: value, got {line!r:.80}")
        headers[name.strip().lower()] = value.strip()
    named = parse_options_header(headers.get(b"content-disposition"))[1].get(b"name")
    if named is None:
        raise BadInput('expected Content-Disposition: form-data; name="…" in each part, got none')
    transfer = headers.get(b"content-transfer-encoding", b"binary").decode("latin-1")
    if transfer.lower() not in ("7bit", "8bit", "binary"):
        raise UnsupportedImage(
            f"expected parts as they are, got Content-Transfer-Encoding {transfer!r:.80}"
        )
    charset = parse_options_header(headers.get(b"content-type"))[1].get(b"charset", b"")
    return Head(named.decode(errors="replace"), charset.decode("latin-1").lower())
