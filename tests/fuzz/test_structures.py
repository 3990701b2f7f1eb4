"""Inputs that are well formed, in every shape: what comes out is what was put in."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from service.protocols.content_coding import decode
from service.protocols.multipart import PartReader
from service.server.app import App
from service.settings import Settings
from tests.wire import Wire, answers

quick = settings(max_examples=100, derandomize=True, deadline=None, database=None)

BOUNDARIES = some.text("abc-'()+_,./:=?0", min_size=1, max_size=70).filter(
    lambda text: text[-1] != " "
)
NEARLY_BOUNDARIES = some.sampled_from([b"\r", b"\n", b"\r\n", b"-", b"--", b"\r\n--", b"a", b"b"])
DATA = some.one_of(
    some.binary(max_size=300), some.lists(NEARLY_BOUNDARIES, max_size=40).map(b"".join)
)
NAMES = some.text(some.characters(codec="utf-8", exclude_characters='"\\\r\n'), max_size=20)
CUTS = some.lists(some.integers(0, 2000), max_size=8)


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(place, len(whole)) for place in places), len(whole)]
    return [whole[start:end] for start, end in pairwise(edges)]


async def come(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def parts_of(pieces: list[bytes], boundary: str) -> list[tuple[str, bytes]]:
    reader = PartReader(come(pieces), f'multipart/form-data; boundary="{boundary}"'.encode())
    found = []
    while (head := await reader.next_part()) is not None:
        found.append((head.name, await reader.data()))
    return found


@quick
@given(BOUNDARIES, some.lists(some.tuples(NAMES, DATA), max_size=5), CUTS)
def test_every_form_is_read_as_it_was_written(
    boundary: str, parts: list[tuple[str, bytes]], cuts: list[int]
) -> None:
    delimiter = b"--" + boundary.encode()
    if any(b"\r\n" + delimiter in b"\r\n" + data + b"\r\n" for _, data in parts):
        return  # a writer would choose another boundary
    form = b""
    for name, data in parts:
        disposition = f'Content-Disposition: form-data; name="{name}"; filename="a"'.encode()
        form += b"%b\r\n%b\r\n\r\n%b\r\n" % (delimiter, disposition, data)
    form += delimiter + b"--\r\n"
    assert asyncio.run(parts_of(cut(form, cuts), boundary)) == parts


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


PACKERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate),
]  # fmt: skip


async def decoded(pieces: list[bytes], coding: str) -> bytes:
    return b"".join([piece async for piece in decode(come(pieces), coding)])


@quick
@given(some.sampled_from(PACKERS), DATA, some.integers(1, 2000), CUTS)
def test_every_body_is_decoded_as_it_was_packed(
    packer: tuple[str, Callable[[bytes], bytes]], data: bytes, times: int, cuts: list[int]
) -> None:
    coding, pack = packer
    assert asyncio.run(decoded(cut(pack(data * times), cuts), coding)) == data * times


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    app = App(Settings(workers=1, models=("fashion-mnist-mlp",)))
    yield Wire(app)
    app.close()


BODIES = some.binary(max_size=200)
HEADERS = some.dictionaries(
    some.from_regex(r"X-[A-Za-z0-9!#$%&'*+.^_`|~-]{1,10}", fullmatch=True),
    some.text(some.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20),
    max_size=4,
)
PATHS = some.sampled_from(["/classify", "/v1/models/fashion-mnist-mlp:predict", "/livez", "/no"])
REQUESTS = some.tuples(PATHS, HEADERS, BODIES, some.booleans())


def request(path: str, headers: dict[str, str], body: bytes, chunked: bool) -> bytes:
    fields = {"Host": "x", **headers}
    if chunked:
        fields["Transfer-Encoding"] = "chunked"
        half = len(body) // 2
        chunks = [chunk for chunk in (body[:half], body[half:]) if chunk]
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    else:
        fields["Content-Length"] = str(len(body))
    head = "\r\n".join([f"POST {path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items()), "", ""])
    return head.encode() + body


@quick
@given(requests=some.lists(REQUESTS, min_size=1, max_size=4), cuts=CUTS)
def test_requests_are_answered_in_order_however_they_are_cut(
    wire: Wire, requests: list[tuple[str, dict[str, str], bytes, bool]], cuts: list[int]
) -> None:
    statuses = {"/livez": 405, "/no": 404, "/classify": 415}
    sent = b"".join(request(*each) for each in requests)
    found = answers(asyncio.run(wire.ask(cut(sent, cuts))).written)
    expected = [statuses.get(path, 415 if body else 400) for path, _, body, _ in requests]
    assert [answer.status for answer in found] == expected[: len(found)]
    # An early answer to a body of undeclared length ends the connection, and says so.
    assert len(found) == len(expected) or found[-1].headers[b"connection"] == b"close"
