"""Where a request begins and ends: however its bytes are cut, it is answered right, or refused."""

import asyncio
from collections.abc import Iterator

import pytest

from service.server.app import App
from service.server.framing import MAX_HEAD_BYTES
from service.settings import Settings
from tests.server import CHECKOUT
from tests.wire import Wire, answers

MODEL = "fashion-mnist-mlp"
SAMPLE = (CHECKOUT / "models" / MODEL / "1" / "sample.png").read_bytes()
FAST = f"/v1/models/{MODEL}:predict"
SLOW = FAST.replace("-", "%2D")
"""The same route, spelled so that the fast path does not know it."""
LENGTH = f"Content-Length: {len(SAMPLE)}"
CHUNKED = "Transfer-Encoding: chunked"
CHUNKS = b"5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (SAMPLE[:5], len(SAMPLE) - 5, SAMPLE[5:])
NEXT = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__"
WEBSOCKET = (
    "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
)


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    app = App(Settings(workers=1, models=(MODEL,)))
    yield app
    app.close()


def head(*fields: str, method: str = "POST", target: str = "TARGET", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/{version}", "Host: x", *fields, "", ""]).encode()


# What is sent, and the statuses of all answers. `Connection: close` comes with the last one where
# that is an error of the framing.
READ = {
    "plain": (head(LENGTH) + SAMPLE + NEXT, [200, 200]),
    "upgrade to h2c": (head(H2C, LENGTH) + SAMPLE + NEXT, [200, 200]),
    "upgrade to h2c, chunked": (head(H2C, CHUNKED) + CHUNKS + NEXT, [200, 200]),
    "upgrade to a websocket": (head(LENGTH, WEBSOCKET) + SAMPLE + NEXT, [200, 200]),
    "upgrade, no body": (head(H2C, method="GET", target="/livez") + NEXT, [200, 200]),
    "upgrade, empty body": (head(H2C, "Content-Length: 0") + NEXT, [400, 200]),
    "upgrade, empty body, a space behind": (head(H2C, "Content-Length: 0 \t") + NEXT, [400, 200]),
    "upgrades in a row": ((head(H2C, LENGTH) + SAMPLE) * 2 + NEXT, [200, 200, 200]),
    "upgrade, a request in the body": (
        head(H2C, f"Content-Length: {len(SMUGGLED)}") + SMUGGLED + NEXT,
        [415, 200],
    ),
    "upgrade with another method": (
        head(H2C, LENGTH, method="PUT") + SAMPLE + NEXT,
        [405, 200],
    ),
    "upgrade without Connection": (head("Upgrade: h2c", LENGTH) + SAMPLE + NEXT, [200, 200]),
    "100-continue": (head("Expect: 100-continue", LENGTH) + SAMPLE + NEXT, [100, 200, 200]),
    "chunks": (head(CHUNKED) + CHUNKS + NEXT, [200, 200]),
    "chunk extensions": (
        head(CHUNKED) + CHUNKS.replace(b"5\r\n", b'5;a=b;c="d"\r\n', 1) + NEXT,
        [200, 200],
    ),
    "coding in capitals": (head(CHUNKED.replace("chunked", "CHUNKED")) + CHUNKS + NEXT, [200, 200]),
    "trailers": (
        head(CHUNKED) + CHUNKS[:-2] + b"Content-Type: text/plain\r\nX-Request-ID: t\r\n\r\n" + NEXT,
        [200, 200],
    ),
    "trailing upgrade": (
        head(CHUNKED) + CHUNKS[:-2] + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n" + NEXT,
        [200, 200],
    ),
    "absolute target": (head(LENGTH, target="http://xTARGET") + SAMPLE + NEXT, [200, 200]),
    "length with many zeros": (
        head(f"Content-Length: {'0' * 5000}{len(SAMPLE)}") + SAMPLE + NEXT,
        [200, 200],
    ),
    "length with many zeros, not read": (
        head(f"Content-Length: {'0' * 5000}{len(SAMPLE)}", target="/nope") + SAMPLE + NEXT,
        [404, 200],
    ),
    "empty Host": (head(LENGTH).replace(b"Host: x", b"Host:") + SAMPLE + NEXT, [200, 200]),
    "empty lines before": (b"\r\n\r\n" + head(LENGTH) + SAMPLE + b"\r\n" + NEXT, [200, 200]),
    "asterisk": (head(method="OPTIONS", target="*") + NEXT, [404, 200]),
    "no such path": (head(LENGTH, target="/nope") + SAMPLE + NEXT, [404, 200]),
    "not an image": (head("Content-Length: 3") + b"abc" + NEXT, [415, 200]),
    "body of a GET": (head(LENGTH, method="GET", target="/livez") + SAMPLE + NEXT, [200, 200]),
}
CLOSED = {
    "close": (head(LENGTH, "Connection: close") + SAMPLE + SMUGGLED, [200]),
    "close, upgrade": (
        head(H2C.replace(": Up", ": close, Up"), LENGTH) + SAMPLE + SMUGGLED,
        [200],
    ),
    "HTTP/1.0": (head(LENGTH, version="1.0") + SAMPLE + SMUGGLED, [200]),
    "HTTP/1.0, upgrade": (head(H2C, LENGTH, version="1.0") + SAMPLE + SMUGGLED, [200]),
    "CONNECT": (head(method="CONNECT", target="x:80") + SMUGGLED, [501]),
    "CONNECT to a path": (head(LENGTH, method="CONNECT") + SAMPLE + SMUGGLED, [501]),
    "coding and length": (head(CHUNKED, LENGTH) + CHUNKS + SMUGGLED, [400]),
    "length and coding": (head("Content-Length: 5", CHUNKED) + b"0\r\n\r\n" + SMUGGLED, [400]),
    "upgrade, coding and length": (head(H2C, CHUNKED, LENGTH) + CHUNKS + SMUGGLED, [400]),
    "lengths that differ": (head(LENGTH, "Content-Length: 0") + SMUGGLED, [400]),
    "lengths that agree": (head(LENGTH, LENGTH) + SAMPLE + SMUGGLED, [400]),
    "list of lengths": (head("Content-Length: 3, 3") + b"abc" + SMUGGLED, [400]),
    "length with a sign": (head("Content-Length: +3") + b"abc" + SMUGGLED, [400]),
    "length that overflows": (head("Content-Length: 18446744073709551617") + SMUGGLED, [400]),
    "another coding": (head("Transfer-Encoding: gzip") + SMUGGLED, [400]),
    "another coding before": (head("Transfer-Encoding: gzip, chunked") + CHUNKS, [400]),
    "another coding behind": (head("Transfer-Encoding: chunked, gzip") + CHUNKS, [400]),
    "another coding, upgrade": (head(H2C, "Transfer-Encoding: gzip, chunked") + CHUNKS, [400]),
    "coding twice": (head(CHUNKED, CHUNKED) + CHUNKS, [400]),
    "coding with a parameter": (head("Transfer-Encoding: chunked;q=1") + CHUNKS, [400]),
    "coding with HTTP/1.0": (head(CHUNKED, version="1.0") + CHUNKS + SMUGGLED, [400]),
    "space before a colon": (head("Content-Length : 3") + b"abc" + SMUGGLED, [400]),
    "space before a header": (head(" X: y", LENGTH) + SAMPLE + SMUGGLED, [400]),
    "folded header": (head("X: y\r\n z", LENGTH) + SAMPLE + SMUGGLED, [400]),
    "folded coding": (head("Transfer-Encoding:\r\n chunked") + CHUNKS + SMUGGLED, [400]),
    "bare LF": (head("X: y\nZ: z", LENGTH) + SAMPLE + SMUGGLED, [400]),
    "bare LF everywhere": (head(LENGTH).replace(b"\r", b"") + SAMPLE + SMUGGLED, [400]),
    "bare CR": (head("X: y\rZ: z", LENGTH) + SAMPLE + SMUGGLED, [400]),
    "NUL": (head("X: y\0", LENGTH) + SAMPLE + SMUGGLED, [400]),
    "chunk size with LF": (head(CHUNKED) + CHUNKS.replace(b"\r", b"") + SMUGGLED, [400]),
    "chunk size with a space": (head(CHUNKED) + CHUNKS.replace(b"5\r", b"5 \r", 1), [400]),
    "chunk size that overflows": (head(CHUNKED) + b"f" * 17 + b"\r\n" + SMUGGLED, [400]),
    "chunk that is longer": (head(CHUNKED) + b"2\r\nabc\r\n0\r\n\r\n" + SMUGGLED, [400]),
    "trailing length": (head(CHUNKED) + CHUNKS[:-2] + LENGTH.encode() + b"\r\n\r\n", [400]),
    "another version": (head(LENGTH, version="2.0") + SAMPLE + SMUGGLED, [400]),
    "no Host": (head(LENGTH).replace(b"Host: x\r\n", b"") + SAMPLE + SMUGGLED, [400]),
    "two Hosts": (head("host: x", LENGTH) + SAMPLE + SMUGGLED, [400]),
    "two Hosts with HTTP/1.0": (head("Host: y", LENGTH, version="1.0") + SAMPLE, [400]),
    "HTTP/1.0 without a Host": (
        head(LENGTH, version="1.0").replace(b"Host: x\r\n", b"") + SAMPLE + SMUGGLED,
        [200],
    ),
    "no version": (b"GET /livez\r\n\r\n" + SMUGGLED, [400]),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED, [400]),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", [400]),
    "target without a path": (head(LENGTH, target="http://x") + SAMPLE, [400]),
    "broken after a good one": (head(LENGTH) + SAMPLE + b"nonsense\r\n\r\n" + SMUGGLED, [200, 400]),
    "broken body after a good one": (
        head(LENGTH) + SAMPLE + head(CHUNKED) + b"nonsense\r\n" + SMUGGLED,
        [200, 400],
    ),
    "broken body that nobody reads": (
        head(CHUNKED, method="GET", target="/livez") + b"nonsense\r\n" + SMUGGLED,
        [200],
    ),
    "headers too long": (head("X: " + "y" * MAX_HEAD_BYTES, LENGTH) + SAMPLE + SMUGGLED, [431]),
    "too many headers": (head(*["X: y"] * 20_000, LENGTH) + SAMPLE + SMUGGLED, [431]),
    "target too long": (head(LENGTH, target="TARGET?x=" + "y" * MAX_HEAD_BYTES) + SAMPLE, [431]),
}
TABLE = {
    **{name: (*case, False) for name, case in READ.items()},
    **{name: (*case, True) for name, case in CLOSED.items()},
}


def cuts(whole: bytes, step: int) -> Iterator[list[bytes]]:
    """A request in one piece, byte by byte, and in two pieces, cut after every `step` bytes."""
    yield [whole]
    if len(whole) < 5000:
        yield [whole[at : at + 1] for at in range(len(whole))]
        yield from ([whole[:at], whole[at:]] for at in range(1, len(whole), step))
    else:
        yield [whole[at : at + 4999] for at in range(0, len(whole), 4999)]


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("target", [FAST, SLOW], ids=["fast", "ASGI"])
@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE)
def test_request_is_answered_alike_however_it_is_cut(
    app: App, target: str, case: tuple[bytes, list[int], bool], step: int
) -> None:
    sent, statuses, ends = case

    async def main() -> None:
        wire = Wire(app)
        whole = sent.replace(b"TARGET", target.encode())
        for pieces in cuts(whole, step):
            transport = await wire.ask(pieces)
            came = answers(transport.written)
            assert [answer.status for answer in came] == statuses, (pieces[:2], came)
            assert transport.has_ended == ends, pieces[:2]
            assert transport.too_late == b""
            assert (came[-1].headers.get(b"connection") == b"close") == ends
            transport.close()
            if came[-1].status >= 400:
                assert list(came[-1].json) == ["error"]

    asyncio.run(main())
