"""What may arrive on a connection, over sockets: at both servers, and what they log of it."""

import socket
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from service.server.linger import LINGER_S
from tests.server import Server, serve
from tests.service.server.test_framing import (
    CHUNKED,
    CHUNKS,
    H2C,
    LENGTH,
    SAMPLE,
    SMUGGLED,
    WEBSOCKET,
    head,
)
from tests.wire import Answer, answers

PREDICT = "/v1/models/fashion-mnist-mlp:predict"
LAST = head("Connection: close", method="GET", target="/livez")
PATIENCE_S = 20
READ_PAUSE_S = 0.05
"""Time in which a server reads a piece before the next one comes."""

FRAMED = {
    "plain": (head(LENGTH) + SAMPLE + LAST, [200, 200]),
    "chunks": (head(CHUNKED) + CHUNKS + LAST, [200, 200]),
    "not an image": (head("Content-Length: 3") + b"abc" + LAST, [415, 200]),
    "no such path": (head(LENGTH, target="/nope") + SAMPLE + LAST, [404, 200]),
    "close": (head(LENGTH, "Connection: close") + SAMPLE + SMUGGLED, [200]),
    "coding and length": (head(CHUNKED, LENGTH) + CHUNKS + SMUGGLED, [400]),
    "lengths that agree": (head(LENGTH, LENGTH) + SAMPLE + SMUGGLED, [400]),
    "folded header": (head("X: y\r\n z", LENGTH) + SAMPLE + SMUGGLED, [400]),
    "bare LF": (head("X: y\nZ: z", LENGTH) + SAMPLE + SMUGGLED, [400]),
    "length with many zeros": (head(f"Content-Length: {'0' * 5000}3") + b"abc" + LAST, [415, 200]),
    "no Host": (head(LENGTH).replace(b"Host: x\r\n", b"") + SAMPLE + SMUGGLED, [400]),
    "two Hosts": (head("Host: y", LENGTH) + SAMPLE + SMUGGLED, [400]),
    "another version": (head(LENGTH, version="0.9") + SAMPLE + SMUGGLED, [400]),
    "another coding before": (head("Transfer-Encoding: gzip, chunked") + CHUNKS + SMUGGLED, [400]),
    "coding with HTTP/1.0": (head(CHUNKED, version="1.0") + CHUNKS + SMUGGLED, [400]),
    "another coding": (head("Transfer-Encoding: gzip") + SMUGGLED, [400]),
    "broken chunk": (head(CHUNKED) + b"nonsense\r\n" + SMUGGLED, [400]),
}
UPGRADES = {
    "h2c": (head(H2C, LENGTH) + SAMPLE, [200, 200]),
    "h2c, chunked": (head(H2C, CHUNKED) + CHUNKS, [200, 200]),
    "h2c, a request in the body": (
        head(H2C, f"Content-Length: {len(SMUGGLED)}") + SMUGGLED,
        [415, 200],
    ),
    "websocket": (head(WEBSOCKET, LENGTH) + SAMPLE, [200, 200]),
    "CONNECT": (head(method="CONNECT", target="/") + SMUGGLED, [501]),
}


def exchange(
    server: Server, pieces: Sequence[bytes], patience_s: float = PATIENCE_S
) -> list[Answer]:
    """All answers on a connection, which the server has to end."""
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port), timeout=patience_s) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(READ_PAUSE_S)
        came = b""
        while piece := connection.recv(100_000):
            came += piece
    return answers(came)


def pieces_of(sent: bytes) -> list[list[bytes]]:
    """A request whole, and its head first."""
    sent = sent.replace(b"TARGET", PREDICT.encode())
    body = sent.index(b"\r\n\r\n") + 4 if b"\r\n\r\n" in sent else 20
    return [[sent], [sent[:body], sent[body:]]]


@pytest.mark.parametrize("asked", ["server", "bentoml_server"])
@pytest.mark.parametrize(("sent", "statuses"), FRAMED.values(), ids=FRAMED)
def test_both_servers_agree_where_a_request_ends(
    request: pytest.FixtureRequest, asked: str, sent: bytes, statuses: list[int]
) -> None:
    server: Server = request.getfixturevalue(asked)
    for pieces in pieces_of(sent):
        came = exchange(server, pieces)
        assert [answer.status for answer in came] == statuses
        assert came[-1].headers[b"connection"] == b"close"


@pytest.mark.parametrize(("sent", "statuses"), UPGRADES.values(), ids=UPGRADES)
def test_wish_for_an_upgrade_is_ignored(server: Server, sent: bytes, statuses: list[int]) -> None:
    for pieces in pieces_of(sent + LAST):
        assert [answer.status for answer in exchange(server, pieces)] == statuses


@pytest.mark.parametrize("sent", [sent for sent, _ in UPGRADES.values()], ids=UPGRADES)
def test_wish_for_an_upgrade_ends_the_connection_under_bentoml(
    bentoml_server: Server, sent: bytes
) -> None:
    for pieces in pieces_of(sent + SMUGGLED):
        (only,) = exchange(bentoml_server, pieces)
        # Where uvicorn finds a library for WebSockets, it is that which denies one, and a POST.
        assert only.status in ((400, 404, 501) if WEBSOCKET.encode() in sent else (501,))


@pytest.mark.parametrize("asked", ["server", "bentoml_server"])
def test_client_cannot_write_lines_into_the_log(request: pytest.FixtureRequest, asked: str) -> None:
    server: Server = request.getfixturevalue(asked)
    for sent, _ in (*FRAMED.values(), *UPGRADES.values()):
        exchange(server, pieces_of(sent + LAST)[0])
    assert [line for line in server.log_lines() if line["level"] != "info"] == []
    assert "Traceback" not in server.log.read_text()


def test_client_may_send_for_some_time_after_an_early_answer(server: Server) -> None:
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port), timeout=PATIENCE_S) as connection:
        connection.sendall(head("Content-Length: 12000000", target=PREDICT))
        connection.sendall(bytes(12_000_000))
        came = b""
        while piece := connection.recv(100_000):
            came += piece
        (only,) = answers(came)
        assert (only.status, only.headers[b"connection"]) == (413, b"close")
    assert LINGER_S < PATIENCE_S


def test_keep_alive_is_a_setting(tmp_path: Path) -> None:
    settings = {"models": "fashion-mnist-mlp", "workers": 1, "keep_alive_s": 0.5}
    with serve(tmp_path, **settings) as server:
        # uvicorn would wait for 5 s.
        (only,) = exchange(server, [head(method="GET", target="/livez")], patience_s=4)
        assert (only.status, only.headers.get(b"connection")) == (200, None)
