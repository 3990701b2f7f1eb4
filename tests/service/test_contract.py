"""The HTTP contract: one table of requests and answers, run against both servers."""

import gzip
import json
import pickle
import re
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.drawing import encode, gradient, image_of
from tests.exposition import Series, parsed, value
from tests.server import CHECKOUT, Server, environment
from tests.service.protocols.test_native import DENOISE, DIGIT, PNG, PREDICT, SAMPLE, upload
from tests.service.telemetry.test_quiet import odd_tiff

PICKLE = "application/vnd.bentoml+pickle"
SERVERS = ["server", "bentoml_server"]

VERSION = "/v1/models/fashion-mnist/versions/1"
CLASSIFIED = ["model", "version", "label", "index", "probability", "top"]
PREDICTED = ["model", "version", "predictions"]
DESCRIBED = [
    "name", "version", "versions", "ready", "model_version_status", "task", "labels", "default",
    "inputs", "outputs", "input", "parameters", "metrics", "engine", "device", "sha256",
]  # fmt: skip
IMAGE = "an answer that is an image"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@dataclass(frozen=True)
class Row:
    """A request, and what is answered."""

    method: str
    path: str
    status: int
    keys: str | list[str] = "error"
    """Of the JSON object, in order; IMAGE for a PNG, "" for what is neither."""
    error: str = ""
    """A pattern that the error matches."""
    sent: Mapping[str, Any] = field(default_factory=dict)
    """The body and its headers, as httpx takes them."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Some of the answer's."""

    def __str__(self) -> str:
        kind = self.sent.get("headers", {}).get("Content-Type", "form" if self.sent else "")
        return f"{self.method} {self.path} {kind} {self.status} {self.error}".strip()


def form(image: bytes = SAMPLE, **fields: Any) -> dict[str, Any]:
    return {"files": upload(image), "data": fields}


def raw(body: bytes = SAMPLE, kind: str = "image/png") -> dict[str, Any]:
    return {"content": body, "headers": {"Content-Type": kind}}


def images(*bodies: bytes) -> dict[str, Any]:
    return {"files": [("image", (f"{number}.png", body)) for number, body in enumerate(bodies)]}


def coded(body: bytes, coding: str = "gzip") -> dict[str, Any]:
    return {"content": body, "headers": PNG | {"Content-Encoding": coding}}


CUT_FORM = raw(
    b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + SAMPLE,
    "multipart/form-data; boundary=x",
)
LARGE = SAMPLE + bytes(1_000_000)
JSON = b'{"image": "aGVsbG8="}'
WRONG_BODIES = [
    (JSON, "application/json"),
    (JSON, PICKLE),
    (b"\x80\x04N.", PICKLE),
    (b"image=a", "application/x-www-form-urlencoded"),
    (b"hello", "text/plain"),
    (SAMPLE, "video/mp4"),
]
TABLE = [
    # Answers.
    Row("POST", "/classify", 200, CLASSIFIED, sent=form()),
    Row("POST", "/classify", 200, CLASSIFIED, sent=form(model="hand-signs", top_k="1")),
    Row("POST", "/classify", 200, CLASSIFIED, sent=form(encode(gradient(), "WEBP"))),
    Row("POST", "/classify", 200, CLASSIFIED, sent={"files": {"image": (None, SAMPLE)}}),
    Row("POST", "/denoise", 200, IMAGE, sent=form(DIGIT)),
    Row("POST", "/denoise", 200, IMAGE, sent=form(DIGIT, model="denoiser")),
    Row("POST", PREDICT, 200, PREDICTED, sent=raw()),
    Row("POST", PREDICT, 200, PREDICTED, sent=raw(kind="application/octet-stream")),
    Row("POST", PREDICT, 200, PREDICTED, sent={"content": SAMPLE}),
    Row("POST", PREDICT, 200, PREDICTED, sent=coded(gzip.compress(SAMPLE))),
    Row("POST", PREDICT, 200, PREDICTED, sent=coded(zlib.compress(SAMPLE), "deflate")),
    Row("POST", PREDICT, 200, PREDICTED, sent=images(SAMPLE, b"no image", SAMPLE)),
    Row("POST", f"{PREDICT}?top_k=2", 200, PREDICTED, sent=raw()),
    Row("POST", f"{VERSION}:predict", 200, PREDICTED, sent=raw()),
    Row("POST", DENOISE, 200, IMAGE, sent=raw(DIGIT)),
    Row("POST", DENOISE, 200, IMAGE, sent=images(DIGIT)),
    Row("GET", "/v1/models", 200, ["models"]),
    Row("GET", "/v1/models/fashion-mnist", 200, DESCRIBED),
    Row("GET", VERSION, 200, DESCRIBED),
    Row("GET", "/v1/models/denoiser", 200, DESCRIBED),
    Row("GET", "/livez", 200, ["status"]),
    Row("GET", "/healthz", 200, ["status"]),
    Row("GET", "/readyz", 200, ["status"]),
    Row("GET", "/metrics", 200, "", headers={"content-type": "text/plain"}),
    Row("GET", "/", 200, "", headers={"content-type": "text/html"}),
    Row("GET", "/docs", 200, "", headers={"content-type": "text/html"}),
    Row("GET", "/docs.json", 200, ["openapi", "info", "paths", "components"]),
    Row("GET", "/schema.json", 200, ["name", "type", "routes", "description", "paths"]),
    Row("GET", "/static_content/swagger-ui.css", 200, "", headers={"content-type": "text/css"}),
    *(
        Row("HEAD", path, 200, "")
        for path in ("/", "/livez", "/readyz", "/metrics", "/v1/models", VERSION, "/docs.json")
    ),
    # What cannot be used: 400.
    Row("POST", "/classify", 400, error="got 0 bytes", sent=form(b"")),
    Row("POST", "/classify", 400, error="top_k", sent=form(top_k="0")),
    Row("POST", "/classify", 400, error="'colour'", sent=form(colour="red")),
    Row("POST", "/denoise", 400, error="'top_k'", sent=form(DIGIT, top_k="1")),
    Row("POST", "/classify", 400, error="for classification", sent=form(model="denoiser")),
    Row("POST", "/denoise", 400, error="for denoising", sent=form(DIGIT, model="hand-signs")),
    Row("POST", "/classify?top_k=1", 400, error="query parameter", sent=form()),
    Row("POST", "/classify", 400, error="ends before its closing", sent=CUT_FORM),
    Row("POST", PREDICT, 400, error="whole body in gzip", sent=coded(gzip.compress(SAMPLE)[:-1])),
    Row("POST", PREDICT, 400, error="body in gzip, got a damaged", sent=coded(SAMPLE)),
    Row("POST", "/classify", 400, error="boundary", sent=raw(kind="multipart/form-data")),
    Row("POST", "/classify", 400, sent=raw(b"junk", "multipart/form-data; boundary=x")),
    Row("POST", PREDICT, 400, error="got 0 bytes", sent=raw(b"")),
    Row("POST", PREDICT, 400, error="broken|truncated|cut", sent=raw(SAMPLE[:-40])),
    Row("POST", f"{PREDICT}?topk=1", 400, error="'topk'; expected one of top_k", sent=raw()),
    Row("POST", f"{PREDICT}?top_k=1&top_k=2", 400, error="once", sent=raw()),
    Row("POST", f"{DENOISE}?top_k=1", 400, error="'top_k'; denoising takes none", sent=raw(DIGIT)),
    Row(
        "POST",
        PREDICT,
        400,
        error="X-Request-Timeout-Ms",
        sent={"content": SAMPLE, "headers": PNG | {"X-Request-Timeout-Ms": "soon"}},
    ),
    # What is not there: 404.
    Row("POST", "/classify", 404, error="'nope'.*fashion-mnist", sent=form(model="nope")),
    Row("POST", "/v1/models/nope:predict", 404, error="'nope'", sent=raw()),
    Row("POST", "/v1/models/fashion-mnist/versions/9:predict", 404, error="'9'", sent=raw()),
    Row("GET", "/v1/models/nope", 404, error="'nope'.*fashion-mnist"),
    Row("GET", "/v1/models/fashion-mnist/versions/9", 404, error="version '9'; expected one of 1"),
    *(
        Row(method, path, 404, error="no route.*/classify.*/v1/models")
        for method in ("GET", "POST")
        for path in ("/nope", "/v1", "/v1/models/", "/classify/", "/livez/x", f"{PREDICT}/x")
    ),
    # A name never becomes a path.
    Row("POST", "/classify", 404, error="'../fashion-mnist'", sent=form(model="../fashion-mnist")),
    *(
        Row(method, f"/v1/models/{name}{action}", 404, error="no route|unknown model")
        for name in ("%2e%2e", "..%2f..%2fetc%2fpasswd", "fashion-mnist%2f..%2fdenoiser", "%00")
        for method, action in (("GET", ""), ("POST", ":predict"))
    ),
    Row("GET", "/static_content/nope.js", 404, error="no file 'nope.js'"),
    # BentoML's own routes.
    *(
        Row(method, path, 404, error="no route")
        for method, path in [
            ("GET", "/ui"),
            ("GET", "/assets/index.js"),
            ("POST", "/classify/submit"),
            ("GET", "/classify/status"),
            ("POST", "/classify/retry"),
            ("POST", "/api/classify"),
        ]
    ),
    # Another method: 405.
    *(
        Row(method, path, 405, error="expected POST", headers={"allow": "POST"})
        for method, path in [("GET", "/classify"), ("PUT", "/denoise"), ("GET", PREDICT)]
    ),
    *(
        Row(method, path, 405, error="expected GET", headers={"allow": "GET, HEAD"})
        for method in ("POST", "DELETE")
        for path in ("/", "/livez", "/metrics", "/v1/models", VERSION, "/schema.json")
    ),
    # Too much: 413.
    Row("POST", "/classify", 413, error="1000000 bytes", sent=form(LARGE)),
    Row("POST", PREDICT, 413, error="1000000 bytes", sent=raw(LARGE)),
    Row("POST", PREDICT, 413, error="at most 8, got 9", sent=images(*[SAMPLE] * 9)),
    Row("POST", PREDICT, 413, error="1000000 bytes", sent=coded(gzip.compress(bytes(1_000_001)))),
    Row("POST", "/classify", 413, error="at most 1, got 2", sent=images(SAMPLE, SAMPLE)),
    Row("POST", DENOISE, 413, error="at most 1, got 2", sent=images(DIGIT, DIGIT)),
    # Another type: 415.
    *(
        Row("POST", path, 415, error=f"Content-Type.*{re.escape(kind)}", sent=raw(body, kind))
        for path in ("/classify", "/denoise", PREDICT)
        for body, kind in WRONG_BODIES
    ),
    Row("POST", "/classify", 415, error="Content-Type", sent=raw()),
    Row("POST", "/classify", 415, error="image", sent=form(b"no image")),
    Row("POST", "/classify", 415, error="image", sent={"files": {"image": (None, "hello")}}),
    Row(
        "POST",
        PREDICT,
        415,
        error="Content-Encoding.*'br'",
        headers={"accept-encoding": "gzip, deflate, identity"},
        sent=coded(SAMPLE, "br"),
    ),
    Row("POST", PREDICT, 415, error="image", sent=raw(b"%PDF-1.7")),
]


@pytest.fixture(scope="module", params=SERVERS)
def asked(request: pytest.FixtureRequest) -> Server:
    """Each of the two servers."""
    server: Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="module")
def client(asked: Server) -> Iterator[httpx.Client]:
    """A client whose connection is kept, whatever was answered before."""
    with asked.client() as client:
        yield client


def ids() -> list[str]:
    """A name for each row, with a number where two would be the same."""
    return [f"{number} {row}" for number, row in enumerate(TABLE)]


@pytest.mark.parametrize("row", TABLE, ids=ids())
def test_request_is_answered_as_the_contract_says(client: httpx.Client, row: Row) -> None:
    headers = {"X-Request-ID": "mine"} | row.sent.get("headers", {})
    answer = client.request(row.method, row.path, **{**row.sent, "headers": headers})
    assert answer.status_code == row.status, answer.text
    assert answer.headers.get_list("x-request-id") == ["mine"]
    if row.status != 413:  # before a long body that nobody reads the connection ends
        assert answer.headers.get("connection") != "close"
    assert answer.headers["x-content-type-options"] == "nosniff"
    kept = "max-age=3600" if "/static_content/swagger" in row.path else "no-store"
    assert answer.headers.get_list("cache-control") == [kept]
    assert "server" not in answer.headers
    for name, begin in row.headers.items():
        assert answer.headers[name].startswith(begin)
    if row.keys == IMAGE:
        assert answer.headers["content-type"] == "image/png"
        assert image_of(answer.content).size == image_of(DIGIT).size
    elif row.keys:
        assert answer.headers["content-type"] == "application/json"
        assert list(answer.json()) == ([row.keys] if isinstance(row.keys, str) else row.keys)
    if row.method == "HEAD":
        assert answer.content == b""
    if row.keys == "error":
        assert isinstance(answer.json()["error"], str)
        assert re.search(row.error, answer.json()["error"]), answer.text


def test_answers_of_both_servers_are_the_same(server: Server, bentoml_server: Server) -> None:
    for path in ("/v1/models/fashion-mnist", "/v1/models", "/docs.json", "/schema.json", "/docs"):
        one, other = (httpx.get(f"{each.url}{path}") for each in (server, bentoml_server))
        assert one.content == other.content, path
    for sent in (form(), form(model="nope"), form(b"no image")):
        one, other = (
            httpx.post(f"{each.url}/classify", **sent) for each in (server, bentoml_server)
        )
        assert (one.status_code, one.json()) == (other.status_code, other.json())


@pytest.mark.parametrize("path", ["/nope", "/classify"])
def test_websocket_is_not_taken(asked: Server, path: str) -> None:
    # Ours ignores the wish. Under BentoML the connection ends: with 404 where uvicorn finds a
    # library for WebSockets, else with 501.
    answer = httpx.get(f"{asked.url}{path}", headers=UPGRADE)
    assert answer.status_code in (404, 405, 501)
    assert list(answer.json()) == ["error"]


def test_wish_for_a_websocket_is_ignored(server: Server) -> None:
    assert httpx.get(f"{server.url}/livez", headers=UPGRADE).status_code == 200


BENTOML_CLIENT = """
import json, sys
from pathlib import Path
import bentoml
from PIL import Image
url, photo = sys.argv[1:]
answers = {}
with bentoml.SyncHTTPClient(url) as client:
    named = {"model": "fashion-mnist-mlp", "top_k": 1}
    answers["named"] = client.classify(image=Path(photo), **named)
    answers["default"] = client.classify(image=Path(photo))
    answers["no model"] = client.classify(image=Image.open(photo), model=None)
    answers["denoised"] = list(client.denoise(image=Path(photo), model="denoiser").size)
    for name, asked in (("bad", {"top_k": 0}), ("unknown", {"model": "nope"})):
        try:
            client.classify(image=Path(photo), **asked)
        except bentoml.exceptions.BentoMLException as error:
            answers[name] = [str(error), error.error_code]
print(json.dumps(answers))
"""


def test_bentoml_client_calls_the_forms(asked: Server, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(SAMPLE)
    # In a process of its own: on import and at its end BentoML warns of things that are not ours.
    ran = subprocess.run(
        [sys.executable, "-c", BENTOML_CLIENT, asked.url, str(photo)],
        cwd=CHECKOUT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    answers = json.loads(ran.stdout)
    with asked.client() as client:
        posted = client.post("/classify", **form()).json()
        named = client.post("/classify", **form(model="fashion-mnist-mlp", top_k="1")).json()
    assert answers["default"] == answers["no model"] == posted
    assert answers["named"] == named
    assert answers["denoised"] == [28, 28]
    (bad, bad_code), (unknown, unknown_code) = answers["bad"], answers["unknown"]
    assert (bad_code, unknown_code) == (400, 404)
    assert "expected top_k" in bad
    assert "'nope'" in unknown


@pytest.fixture
def stranger() -> Iterator[socket.socket]:
    """A server of somebody's, which nobody is to connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


def test_no_url_is_ever_fetched(client: httpx.Client, stranger: socket.socket) -> None:
    url = f"http://127.0.0.1:{stranger.getsockname()[1]}/photo.png"
    quoted = json.dumps(url)
    sent: list[dict[str, Any]] = [
        {"files": {"image": (None, url)}},
        {"files": {"image": (None, quoted, "application/json")}},
        {"files": {"image": ("photo.png", url.encode())}},
        {"files": upload(SAMPLE), "data": {"model": url}},
        {"data": {"image": url}},
        {"json": {"image": url}},
        {"json": url},
        raw(url.encode()),
        raw(url.encode(), "text/uri-list"),
        raw(url.encode(), "text/plain"),
        raw(url.encode(), "multipart/form-data; boundary=x"),
        raw(f'{{"image": {quoted}}}'.encode(), PICKLE),
    ]
    for path in ("/classify", "/denoise", PREDICT, DENOISE):
        for body in sent:
            answer = client.post(path, **body)
            assert 400 <= answer.status_code < 500, (path, body)
    for path in (f"/classify?image={url}", f"{PREDICT}?image={url}", f"/?url={url}"):
        client.get(path)
        client.post(path, **form())
    with pytest.raises(BlockingIOError):
        stranger.accept()


@pytest.mark.parametrize("length", [1_000, 1_000_001])
def test_pickle_is_never_read(client: httpx.Client, tmp_path: Path, length: int) -> None:
    trap = tmp_path / "taken"

    class Touch:
        def __reduce__(self) -> tuple[Any, tuple[str, str]]:
            return open, (str(trap), "w")

    body = pickle.dumps({"image": Touch(), "model": "x" * length})
    for path in ("/classify", "/denoise", PREDICT, DENOISE):
        assert client.post(path, **raw(body, PICKLE)).status_code == 415
    assert not trap.exists()


def test_models_are_named_in_the_log_when_they_are_loaded(server: Server) -> None:
    loaded = [line for line in server.log_lines() if line["message"] == "loaded"]
    listed = httpx.get(f"{server.url}/v1/models").json()["models"]
    assert {line["model"] for line in loaded} == set(listed)
    assert all(line["engine"] and line["version"] == "1" for line in loaded)


def test_request_is_logged_once(asked: Server, client: httpx.Client) -> None:
    for number in range(5):
        client.post(PREDICT, **raw(), params={"top_k": number + 1}).raise_for_status()
    answer = client.get("/v1/models", headers={"X-Request-ID": "logged"})
    assert answer.status_code == 200
    client.get("/livez").raise_for_status()  # the line of the one before is written by then
    lines = [line for line in asked.log_lines() if line.get("request_id") == "logged"]
    assert [(line["path"], line["status"]) for line in lines] == [("/v1/models", 200)]


def test_workers_of_bentoml_tell_of_all_of_them(bentoml_server: Server) -> None:
    def scrape() -> Series:
        return parsed(httpx.get(f"{bentoml_server.url}/metrics").text)

    while value(scrape(), "vitrine_workers_ready") < 2:  # it is ready with its first worker
        time.sleep(0.1)
    before = scrape()
    for _ in range(20):  # each on a new connection, so that both workers get some
        answer = httpx.post(f"{bentoml_server.url}{PREDICT}", content=SAMPLE, headers=PNG)
        assert answer.status_code == 200
    for after in (scrape() for _ in range(10)):
        for name, labels in (
            ("vitrine_requests_total", {"protocol": "v1", "status": "200"}),
            ("vitrine_predictions_total", {"label": "Trouser", "model": "fashion-mnist"}),
        ):
            assert value(after, name, **labels) - value(before, name, **labels) == 20
        assert value(after, "vitrine_workers_ready") == value(after, "vitrine_workers") == 2


def test_image_that_decoders_complain_of_leaves_no_line_in_the_log(
    asked: Server, client: httpx.Client
) -> None:
    before = asked.log.stat().st_size
    answers = [client.post(PREDICT, content=odd_tiff(1000 + n), headers=PNG) for n in range(20)]
    assert {answer.status_code for answer in answers} == {400}
    written = asked.log.read_bytes()[before:].decode().splitlines()
    # libtiff's lines are not JSON; other workers may still be starting.
    assert {json.loads(line)["level"] for line in written} == {"info"}
