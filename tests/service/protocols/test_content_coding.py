import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator

import httpx
import pytest

from service.errors import BadInput, TooLarge, UnsupportedCoding
from service.protocols.content_coding import MAX_MEMBERS, check_coding, decode
from tests.asgi import body_part, request
from tests.drawing import encode, noise
from tests.service.protocols.test_native import PNG, SAMPLE, upload

BODY = encode(noise(200, 200), "BMP") * 3
LIMIT_BYTES = 1_000_000
PREDICT = "/v1/models/fashion-mnist:predict"


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


CODED = {
    "gzip": ("gzip", gzip.compress(BODY)),
    "x-gzip": ("x-gzip", gzip.compress(BODY)),
    "capitals": (" GZip ", gzip.compress(BODY)),
    "deflate": ("deflate", zlib.compress(BODY)),
    "raw deflate": ("deflate", raw_deflate(BODY)),
    "stored deflate": ("deflate", zlib.compress(BODY, 0)),
    "members": ("gzip", gzip.compress(BODY[:70_000]) + gzip.compress(BODY[70_000:])),
    "identity": ("identity", BODY),
}


def decoded(coding: str, *pieces: bytes) -> bytes:
    async def come() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def read() -> bytes:
        return b"".join([piece async for piece in decode(come(), check_coding(coding))])

    return asyncio.run(read())


def read_body(coding: str, *pieces: bytes, limit: int = LIMIT_BYTES) -> bytes:
    parts = [body_part(piece, more=True) for piece in pieces]
    asked = request(*parts, body_part(b""), headers={"Content-Encoding": coding})
    return asyncio.run(asked.body(limit))


@pytest.mark.parametrize(("coding", "sent"), CODED.values(), ids=CODED)
def test_body_is_decoded(coding: str, sent: bytes) -> None:
    assert read_body(coding, sent) == BODY
    assert read_body(coding, *(sent[at : at + 7001] for at in range(0, len(sent), 7001))) == BODY


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_body_is_the_same_however_it_is_cut(coding: str) -> None:
    sent = gzip.compress(b"abc") * 2 if coding == "gzip" else zlib.compress(b"abcabc")
    for at in range(len(sent)):
        assert decoded(coding, sent[:at], sent[at:]) == b"abcabc"
    assert decoded(coding, *(bytes([each]) for each in sent)) == b"abcabc"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate"])
def test_cut_body_says_so(coding: str) -> None:
    name, sent = CODED[coding]
    for end in (0, 1, 20, len(sent) // 2, len(sent) - 1):
        with pytest.raises(BadInput, match=f"a whole body in {name}, got one that ends too early"):
            read_body(name, sent[:end])


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_body_in_no_such_coding_says_so(coding: str) -> None:
    with pytest.raises(BadInput, match=f"expected a body in {coding}, got a damaged one"):
        read_body(coding, b"\x88no such thing")


def test_bad_checksum_says_so() -> None:
    sent = gzip.compress(BODY)
    with pytest.raises(BadInput, match="a damaged one"):
        read_body("gzip", sent[:-8] + bytes(8))


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(BadInput, match="a damaged one"):
        read_body("gzip", gzip.compress(BODY) + b"garbage")
    with pytest.raises(BadInput, match="expected one body in deflate, got bytes after its end"):
        read_body("deflate", zlib.compress(BODY) + b"garbage")


def test_members_of_gzip_are_limited() -> None:
    member = gzip.compress(b"")
    assert read_body("gzip", member * MAX_MEMBERS) == b""
    with pytest.raises(BadInput, match="got bytes after its end"):
        read_body("gzip", member * (MAX_MEMBERS + 1))


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_limit_is_the_one_of_a_body_that_is_not_compressed(coding: str) -> None:
    pack = gzip.compress if coding == "gzip" else zlib.compress
    assert read_body(coding, pack(bytes(LIMIT_BYTES))) == bytes(LIMIT_BYTES)
    with pytest.raises(TooLarge, match="at most 1000000 bytes"):
        read_body(coding, pack(bytes(LIMIT_BYTES + 1)))
    with pytest.raises(TooLarge, match="at most 10 bytes"):
        read_body(coding, pack(b""), bytes(100), limit=10)


def test_bomb_is_not_unpacked_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(10_000_000)) for _ in range(20)) + packer.flush()
    given = 0

    async def read() -> None:
        nonlocal given
        headers = {"Content-Encoding": "deflate"}
        async for piece in request(body_part(bomb), headers=headers).stream(LIMIT_BYTES):
            given += len(piece)

    with pytest.raises(TooLarge):
        asyncio.run(read())
    assert given <= LIMIT_BYTES


def test_event_loop_gets_its_turn_while_a_body_is_unpacked() -> None:
    async def read() -> int:
        turns = 0
        sent = body_part(zlib.compress(bytes(20_000_000)))
        asked = request(sent, headers={"Content-Encoding": "deflate"})
        reading = asyncio.create_task(asked.body(50_000_000))
        while not reading.done():
            turns += 1
            await asyncio.sleep(0)
        return turns

    assert asyncio.run(read()) > 10


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "gzip, identity", ""])
def test_other_codings_are_refused_by_name(coding: str) -> None:
    with pytest.raises(UnsupportedCoding, match=f"got '{coding}'"):
        read_body(coding, b"")


def test_codings_of_two_headers_are_one_list() -> None:
    asked = request(body_part(b""), headers={"Content-Encoding": "gzip"})
    asked.raw_headers.insert(0, (b"content-encoding", b"br"))
    with pytest.raises(UnsupportedCoding, match="'br, gzip'"):
        asyncio.run(asked.body(LIMIT_BYTES))


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_image_and_form_may_be_compressed(client: httpx.Client, coding: str) -> None:
    pack = gzip.compress if coding == "gzip" else zlib.compress
    encoding = {"Content-Encoding": coding}
    image = client.post(PREDICT, content=pack(SAMPLE), headers=PNG | encoding)
    assert image.json()["predictions"][0]["label"] == "Trouser"
    form = httpx.Request("POST", "http://x", files=upload(SAMPLE))
    headers = {"Content-Type": form.headers["content-type"]} | encoding
    answer = client.post("/classify", content=pack(form.read()), headers=headers)
    assert answer.json()["label"] == "Trouser"


@pytest.mark.parametrize("size", [65535, 65536, 65537, 65790, 131072, 131300, 200_000])
def test_what_zlib_holds_back_comes_too(size: int) -> None:
    assert read_body("deflate", raw_deflate(bytes(size))) == bytes(size)
