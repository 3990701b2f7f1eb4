"""The bytes on a connection: however they are cut, the answers are the same, and in order."""

import hashlib
import json
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from tests.drawing import encode, noise
from tests.server import CHECKOUT, Server, serve

MODEL = "fashion-mnist"
PREDICT = f"/v1/models/{MODEL}:predict"
SAMPLE = (CHECKOUT / "models" / MODEL / "1" / "sample.png").read_bytes()
PATIENCE_S = 20

Answer = tuple[int, dict[bytes, bytes], Any]


TOKEN = {"Authorization": "Bearer open-sesame"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("connection")
    tokens = folder / "tokens"
    tokens.write_text(hashlib.sha256(b"open-sesame").hexdigest())
    settings = {"models": f"{MODEL},denoiser", "workers": 1, "api_tokens_file": tokens}
    with serve(folder, **settings) as server:
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
    fields |= TOKEN | dict(headers or {})
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


def chunked(body: bytes, trailer: str) -> bytes:
    """A request whose length is known at its end, with a header after the body."""
    headers = {"Transfer-Encoding": "chunked", "Trailer": trailer.partition(":")[0]}
    head = request(b"", headers).replace(b"Content-Length: 0\r\n", b"")
    return head + b"%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(body), body, trailer.encode())


FORM = httpx.Request("POST", "http://x", files={"image": ("a.png", SAMPLE)})
FORM_TYPE = {"Content-Type": FORM.headers["content-type"]}

ODD = {
    "plain": request(),
    "no image": request(b"no image"),
    "empty": request(b""),
    "another type": request(headers={"Content-Type": "text/plain"}),
    "top_k": request(path=f"{PREDICT}?top_k=2"),
    "bad top_k": request(path=f"{PREDICT}?top_k=0"),
    "unknown parameter": request(path=f"{PREDICT}?top=1"),
    "empty query": request(path=f"{PREDICT}?"),
    "fragment": request(path=f"{PREDICT}?top_k=1#top"),
    "fragment alone": request(path=f"{PREDICT}#top"),
    "escapes": request(path=PREDICT.replace("-", "%2D")),
    "version": request(path=PREDICT.replace(":", "/versions/1:")),
    "no such version": request(path=PREDICT.replace(":", "/versions/9:")),
    "long query": request(path=f"{PREDICT}?top_k=2&x={'1' * 9000}"),
    "long url": request(path=f"{PREDICT}?top_k={'1' * 70000}"),
    "close": request(headers={"Connection": "close"}),
    "1.0": request(version="1.0"),
    "1.0, kept": request(version="1.0", headers={"Connection": "keep-alive"}),
    "deadline": request(headers={"X-Request-Timeout-Ms": "1e3"}),
    "upgrade": request(headers={"Connection": "Upgrade", "Upgrade": "h2c"}),
    "chunked": chunked(SAMPLE, "X-Check: 1"),
    "trailing type": chunked(SAMPLE, "Content-Type: text/plain"),
    "trailing id": chunked(SAMPLE, "X-Request-ID: trailing"),
    "trailing close": chunked(SAMPLE, "Connection: close"),
    "form": request(FORM.read(), FORM_TYPE),
    "classify": request(FORM.read(), FORM_TYPE, path="/classify"),
    "classify, no image": request(b"no form", FORM_TYPE, path="/classify"),
    "classify, raw": request(path="/classify"),
    "classify, query": request(FORM.read(), FORM_TYPE, path="/classify?top_k=1"),
    "denoise": request(FORM.read(), FORM_TYPE, path="/denoise"),
    "get": request().replace(b"POST", b"GET", 1),
    "no such model": request(path=PREDICT.replace(MODEL, "nope")),
    "no token": request(headers={"Authorization": ""}),
    "another token": request(headers={"Authorization": "Bearer other"}),
    "no token, no such route": request(headers={"Authorization": ""}, path="/nope"),
}


@pytest.mark.parametrize("whole", ODD.values(), ids=ODD)
def test_request_in_two_pieces_gets_the_same_answer(server: Server, whole: bytes) -> None:
    body = whole.index(b"\r\n\r\n") + 4
    answers = [
        everything(server, pieces)
        for pieces in ([whole], [whole[:body], whole[body:]], [whole[:20], whole[20:]])
        if all(pieces)
    ]
    assert len({(status, closed, text) for status, closed, text in answers}) == 1, answers


def everything(server: Server, pieces: Sequence[bytes]) -> tuple[bytes, bool, bytes]:
    """The status line and the body of an answer, and whether the connection ends after it."""
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port), timeout=PATIENCE_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
            # The answer on another connection shows that this worker has read the piece.
            httpx.get(f"{server.url}/livez")
        with connection.makefile("rb") as stream:
            status, length, closes, own_id = stream.readline(), 0, False, False
            while line := stream.readline().strip().lower():
                name, _, value = line.partition(b": ")
                length = int(value) if name == b"content-length" else length
                closes = closes or line == b"connection: close"
                own_id = own_id or line == b"x-request-id: trailing"
            assert not own_id
            return status, closes, stream.read(length)


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


def test_query_counts(connection: socket.socket) -> None:
    status, _, answer = ask(connection, request(path=f"{PREDICT}?top_k=2"))
    assert status == 200
    assert len(answer["predictions"][0]["top"]) == 2


def test_form_in_one_piece_is_answered(server: Server) -> None:
    files = [("image", ("a.png", SAMPLE)), ("image", ("b.png", b"no image"))]
    predictions = httpx.post(f"{server.url}{PREDICT}", files=files, headers=TOKEN).json()[
        "predictions"
    ]
    assert predictions[0]["label"] == "Trouser"
    assert list(predictions[1]) == ["error"]


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
    answer = httpx.post(f"{server.url}{PREDICT}", content=SAMPLE, headers=TOKEN)
    assert answer.status_code == 200
    assert "Traceback" not in server.log.read_text()


def test_caller_without_a_token_is_told_so_and_may_ask_again(connection: socket.socket) -> None:
    status, headers, answer = ask(connection, request(headers={"Authorization": ""}))
    assert status == 401
    assert headers[b"www-authenticate"] == b'Bearer realm="vitrine"'
    assert list(answer) == ["error"]
    assert ask(connection, request())[0] == 200


DENOISE = "/v1/models/denoiser:predict"
LARGE = encode(noise(1000, 1000, 1), "PNG")


@pytest.mark.parametrize("cut", [0, 2000])
def test_deadline_that_passes_is_504(server: Server, cut: int) -> None:
    whole = request(LARGE, {"X-Request-Timeout-Ms": "1"}, path=DENOISE)
    status, _, body = everything(server, [whole[:cut], whole[cut:]] if cut else [whole])
    assert status.split()[1] == b"504"
    assert b"no answer within 0.001 s" in body


def test_answer_that_is_still_being_read_when_the_server_ends_arrives_whole(
    tmp_path: Path,
) -> None:
    image = encode(noise(600, 600, 1, seed=1), "JPEG", quality=1)
    with (
        serve(tmp_path, models="denoiser", workers=1) as server,
        socket.socket() as slow,
    ):
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        slow.settimeout(PATIENCE_S)
        url = httpx.URL(server.url)
        slow.connect((url.host, url.port))
        slow.sendall(request(image, path=DENOISE))
        with slow.makefile("rb") as stream:
            assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
            server.process.send_signal(signal.SIGTERM)
            length = 0
            while line := stream.readline().strip():
                name, _, value = line.partition(b": ")
                length = int(value) if name == b"content-length" else length
            assert len(stream.read(length)) == length > 100_000
            assert stream.read() == b""
        assert server.process.wait(PATIENCE_S) == 0
