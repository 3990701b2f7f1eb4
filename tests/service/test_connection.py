"""The bytes on a connection: however they are cut, the answers are the same, and in order."""

import json
import socket
from collections.abc import Iterator, Mapping
from typing import IO, Any

import httpx
import pytest

from tests.server import CHECKOUT, Server, serve

MODEL = "fashion-mnist"
PREDICT = f"/v1/models/{MODEL}:predict"
SAMPLE = (CHECKOUT / "models" / MODEL / "1" / "sample.png").read_bytes()
PATIENCE_S = 20

Answer = tuple[int, dict[bytes, bytes], Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("connection"), models=MODEL, workers=1) as server:
        yield server


@pytest.fixture
def connection(server: Server) -> Iterator[socket.socket]:
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port), timeout=PATIENCE_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


def request(
    body: bytes = SAMPLE,
    headers: Mapping[str, str] | None = None,
    path: str = PREDICT,
    version: str = "1.1",
) -> bytes:
    fields = {"Host": "x", "Content-Type": "image/png", "Content-Length": str(len(body))}
    fields |= headers or {}
    lines = [f"POST {path} HTTP/{version}", *(f"{k}: {v}" for k, v in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def read(stream: IO[bytes]) -> Answer:
    """The next answer: status, headers, JSON."""
    status = int(stream.readline().split()[1])
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.partition(b": ")
        headers[name] = value
    return status, headers, json.loads(stream.read(int(headers[b"content-length"])))


def ask(connection: socket.socket, *pieces: bytes) -> Answer:
    with connection.makefile("rb") as stream:
        for piece in pieces:
            connection.sendall(piece)
        return read(stream)


def is_closed(connection: socket.socket) -> bool:
    return connection.recv(1) == b""


def test_request_in_one_piece_is_answered(connection: socket.socket) -> None:
    status, headers, answer = ask(connection, request(headers={"X-Request-ID": "one-piece"}))
    assert status == 200
    assert answer["predictions"][0]["label"] == "Trouser"
    assert headers[b"x-request-id"] == b"one-piece"
    assert headers[b"content-type"] == b"application/json"
    assert b"date" in headers


@pytest.mark.parametrize("cut", [1, 20, 100, 150, 400])
def test_request_in_two_pieces_gets_the_same_answer(connection: socket.socket, cut: int) -> None:
    whole = ask(connection, request())
    connection.sendall(request()[:cut])
    # The other connection's answer shows that the first piece has been read.
    with socket.create_connection(connection.getpeername(), timeout=PATIENCE_S) as other:
        ask(other, request())
    assert ask(connection, request()[cut:])[::2] == whole[::2]


def test_requests_on_one_connection_are_answered_one_after_another(
    connection: socket.socket,
) -> None:
    assert [ask(connection, request())[0] for _ in range(3)] == [200, 200, 200]


def test_requests_sent_at_once_are_answered_in_order(connection: socket.socket) -> None:
    bodies = (SAMPLE, b"no image", SAMPLE, b"", SAMPLE)
    connection.sendall(b"".join(request(body) for body in bodies))
    with connection.makefile("rb") as stream:
        statuses = [read(stream)[0] for _ in bodies]
    assert statuses == [200, 415, 200, 400, 200]


@pytest.mark.parametrize(
    ("version", "headers"), [("1.0", {}), ("1.1", {"Connection": "close"}), ("1.0", {"X": "y"})]
)
def test_connection_ends_after_the_answer_where_the_client_wants_that(
    connection: socket.socket, version: str, headers: dict[str, str]
) -> None:
    status, came, _ = ask(connection, request(headers=headers, version=version))
    assert (status, came[b"connection"]) == (200, b"close")
    assert is_closed(connection)


@pytest.mark.parametrize(
    ("query", "status"), [("?top_k=2", 200), ("?top_k=0", 400), ("?top=1", 400), ("?", 200)]
)
def test_query_counts(connection: socket.socket, query: str, status: int) -> None:
    came, _, answer = ask(connection, request(path=PREDICT + query))
    assert came == status
    if query == "?top_k=2":
        assert len(answer["predictions"][0]["top"]) == 2


def test_form_in_one_piece_is_answered(server: Server) -> None:
    files = [("image", ("a.png", SAMPLE)), ("image", ("b.png", b"no image"))]
    predictions = httpx.post(f"{server.url}{PREDICT}", files=files).json()["predictions"]
    assert predictions[0]["label"] == "Trouser"
    assert list(predictions[1]) == ["error"]


def test_path_may_be_written_with_escapes(connection: socket.socket) -> None:
    assert ask(connection, request(path=PREDICT.replace("-", "%2D")))[0] == 200


def test_client_that_asks_whether_to_go_on_is_told_so(connection: socket.socket) -> None:
    head, _, body = request(headers={"Expect": "100-continue"}).partition(b"\r\n\r\n")
    connection.sendall(head + b"\r\n\r\n")
    with connection.makefile("rb") as stream:
        assert stream.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert stream.readline() == b"\r\n"
        connection.sendall(body)
        assert read(stream)[0] == 200


def test_deadline_of_the_client_holds(connection: socket.socket) -> None:
    assert ask(connection, request(headers={"X-Request-Timeout-Ms": "0"}))[0] == 400
    assert ask(connection, request(headers={"X-Request-Timeout-Ms": "20000"}))[0] == 200


def test_client_that_leaves_with_its_request_unanswered_harms_nobody(
    server: Server, connection: socket.socket
) -> None:
    connection.sendall(request() * 20)
    connection.close()
    assert httpx.post(f"{server.url}{PREDICT}", content=SAMPLE).status_code == 200
    assert "Traceback" not in server.log.read_text()
