"""The outermost layer: alone, and what the workers behind one socket tell together."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from service.artifacts.manifest import read_manifest
from service.server.app import App
from service.server.front import Front
from service.settings import Settings
from service.tasks import TASKS
from tests.asgi import body_part
from tests.conftest import SHIPPED_MODELS
from tests.exposition import Series, parsed, value
from tests.server import Server, serve
from tests.service.protocols.test_native import DIGIT, PNG, PREDICT, SAMPLE, upload

MODEL = "fashion-mnist-mlp"
PICKLE = b"application/vnd.bentoml+pickle"


def scrape(client: httpx.Client) -> Series:
    """Every sample of /metrics by name and sorted labels."""
    return parsed(client.get("/metrics").text)


class Inner:
    """An app inside, which notes what reaches it."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.reached.append(scope["type"])


async def run(
    front: Front, kind: str, path: str = "/livez", *fields: tuple[bytes, bytes]
) -> list[Message]:
    """What the front sends for one scope, with some more header fields."""
    sent: list[Message] = []
    scope = {
        "type": kind,
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [
            (b"host", b"x"),
            (b"x-request-id", b"mine"),
            (b"content-type", b"application/vnd.bentoml+pickle"),
            *fields,
        ],
    }

    async def receive() -> Message:
        return body_part(b"")

    async def send(message: Message) -> None:
        sent.append(message)

    await front(scope, receive, send)
    return sent


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    app = App(Settings(workers=1, models=(MODEL,)))
    yield app
    app.close()


STATUSES = {"/classify": 415, "/": 405, "/schema.json": 405, "/nope": 404}


@pytest.mark.parametrize("path", STATUSES)
@pytest.mark.parametrize("has_started", [False, True])
def test_no_request_reaches_the_app_inside(app: App, has_started: bool, path: str) -> None:
    inner = Inner()
    front = Front(lambda: app if has_started else None, inner)
    sent = asyncio.run(run(front, "http", path))
    assert inner.reached == []
    assert sent[0]["status"] == (503 if not has_started else STATUSES[path])
    assert dict(sent[0]["headers"])[b"x-request-id"] == b"mine"


def test_server_that_has_not_started_is_not_ready() -> None:
    start, body = asyncio.run(run(Front(lambda: None), "http"))
    assert start["status"] == 503
    assert dict(start["headers"])[b"retry-after"] == b"1"
    assert body["body"] == b'{"error":"not ready"}'


def test_lifespan_is_for_the_app_inside(app: App) -> None:
    inner = Inner()
    assert asyncio.run(run(Front(lambda: app, inner), "lifespan")) == []
    assert inner.reached == ["lifespan"]


def test_websocket_is_denied(app: App) -> None:
    inner = Inner()
    start, body = asyncio.run(run(Front(lambda: app, inner), "websocket", "/classify"))
    assert inner.reached == []
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 404)
    assert body["type"] == "websocket.http.response.body"
    assert body["body"] == b'{"error":"expected an HTTP request, got a WebSocket"}'


def test_wish_for_another_protocol_ends_the_connection_where_uvicorn_would_drop_the_body(
    app: App,
) -> None:
    wish = (b"upgrade", b"h2c")
    start, body = asyncio.run(run(Front(lambda: app, Inner()), "http", "/classify", wish))
    assert start["status"] == 501
    assert dict(start["headers"])[b"connection"] == b"close"
    assert body["body"] == b'{"error":"expected plain HTTP/1.1, got a request for an upgrade"}'
    start, _ = asyncio.run(run(Front(lambda: app), "http", "/classify", wish))
    assert start["status"] == 415


@pytest.fixture
def shared(server: Server) -> Iterator[httpx.Client]:
    """A client of the server with two workers."""
    with server.client() as client:
        yield client


def test_another_server_leaves_the_metrics_alone(shared: httpx.Client, tmp_path: Path) -> None:
    shared.post(PREDICT, content=SAMPLE, headers=PNG)
    before = value(scrape(shared), "vitrine_requests_total", model="fashion-mnist")
    with serve(tmp_path, models="fashion-mnist-mlp", workers=1) as other, other.client() as second:
        theirs = scrape(second)
        assert value(theirs, "vitrine_requests_total", model="fashion-mnist") == 0
    assert value(scrape(shared), "vitrine_requests_total", model="fashion-mnist") == before


def test_metrics_count_requests_over_all_workers(shared: httpx.Client, server: Server) -> None:
    before = scrape(shared)
    for _ in range(20):  # each on a new connection, so that both workers get some
        httpx.post(f"{server.url}{PREDICT}", content=SAMPLE, headers=PNG)
    shared.post("/classify", files=upload(SAMPLE), data={"model": "fashion-mnist"})
    shared.post("/classify", files=upload(b"no image"))
    form = [("image", ("a.png", data)) for data in (SAMPLE, b"no image", SAMPLE, SAMPLE)]
    shared.post(PREDICT, files=form)
    shared.post("/denoise", files=upload(DIGIT))
    shared.post("/v1/models/nope:predict", content=SAMPLE, headers=PNG)
    shared.get("/nope")
    after = scrape(shared)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    requests, classifier = "vitrine_requests_total", {"model": "fashion-mnist", "version": "1"}
    denoiser, unknown = {"model": "denoiser", "version": "1"}, {"model": "unknown", "version": ""}
    assert grown(requests, protocol="v1", status="200", **classifier) == 21
    assert grown(requests, protocol="classify", status="200", **classifier) == 1
    assert grown(requests, protocol="classify", status="415", **classifier) == 1
    assert grown(requests, protocol="denoise", status="200", **denoiser) == 1
    assert grown(requests, protocol="v1", status="404", **unknown) == 1
    assert grown(requests, protocol="page", status="404", **unknown) == 1
    assert grown(requests) == 27  # with the first scrape
    assert grown("vitrine_request_seconds_count", model="fashion-mnist") == 23
    assert grown("vitrine_request_seconds_count") == 27
    for model, images in (("fashion-mnist", 24), ("denoiser", 1)):
        for stage in ("decode", "queue", "predict", "encode"):
            assert grown("vitrine_stage_seconds_count", model=model, stage=stage) == images
        assert grown("vitrine_batch_size_sum", model=model) == images
        assert 1 <= grown("vitrine_batch_size_count", model=model) <= images
        assert value(after, "vitrine_queue_depth", model=model) == 0
    assert grown("vitrine_predictions_total", model="fashion-mnist", label="Trouser") == 24
    assert grown("vitrine_predictions_total") == 24


def test_every_worker_tells_of_all(shared: httpx.Client, server: Server) -> None:
    shared.post(PREDICT, content=SAMPLE, headers=PNG)
    told = set()
    for _ in range(4):  # connections that are open at once go to different workers
        with server.client() as one, server.client() as other:
            told |= {value(scrape(each), "vitrine_batch_size_sum") for each in (one, other)}
    assert len(told) == 1


def test_metrics_describe_the_models(shared: httpx.Client) -> None:
    names = [dict(labels) for name, labels in scrape(shared) if name == "vitrine_model_info"]
    by_model = {labels["model"]: labels for labels in names}
    assert sorted(by_model) == shared.get("/v1/models").json()["models"]
    for name, labels in by_model.items():
        manifest = read_manifest(SHIPPED_MODELS / name / "1", TASKS)
        assert labels["engine"] == manifest.engine["cpu"]
    assert {labels["device"] for labels in names} == {"cpu"}
