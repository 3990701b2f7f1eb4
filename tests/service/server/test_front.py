import asyncio
import re
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
from openapi_spec_validator import validate

from service.artifacts.manifest import read_manifest
from service.server.app import App
from service.server.front import Front
from service.settings import Settings
from tests.conftest import SHIPPED_MODELS
from tests.exposition import Series, parsed, value
from tests.server import CHECKOUT, Server, serve
from tests.service.protocols.test_native import DIGIT, PNG, PREDICT, SAMPLE, upload

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def scrape(client: httpx.Client) -> Series:
    """Every sample of /metrics by name and sorted labels."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return parsed(answer.text)


def test_models_are_listed(client: httpx.Client) -> None:
    shipped = sorted(path.name for path in (CHECKOUT / "models").iterdir() if path.is_dir())
    assert client.get("/v1/models").json() == {"models": shipped}


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_health_is_ok_for_a_proven_server(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200
    assert client.head(path).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/v1",
        "/v1/models/",
        "/v1/models/fashion-mnist",
        "/v1/models/fashion-mnist:explain",
        "/v1/models/a/b:predict",
        "/classify/",
        "/livez/x",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_path_is_not_found(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 404
    assert list(answer.json()) == ["error"]
    assert "/v1/models" in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/classify", "POST"),
        ("PUT", "/denoise", "POST"),
        ("GET", PREDICT, "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", "/livez", "GET, HEAD"),
    ],
)
def test_wrong_method_names_the_right_one(
    client: httpx.Client, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    assert allowed.split(",", maxsplit=1)[0] in answer.json()["error"]


def test_wrong_method_on_a_page_has_the_one_error_body(client: httpx.Client) -> None:
    answer = client.post("/docs.json")
    assert answer.status_code == 405
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("path", ["/livez", "/nope", "/classify", "/docs.json"])
def test_request_id_of_the_caller_comes_back(client: httpx.Client, path: str) -> None:
    answer = client.get(path, headers={"X-Request-ID": "my-id-1"})
    assert answer.headers.get_list("x-request-id") == ["my-id-1"]


@pytest.mark.parametrize("sent", [None, "", "x" * 129, "two words"])
def test_request_id_is_made_where_none_is_usable(client: httpx.Client, sent: str | None) -> None:
    headers = {} if sent is None else {"X-Request-ID": sent}
    ids = [client.get("/livez", headers=headers).headers["x-request-id"] for _ in range(2)]
    assert ids[0] != ids[1]
    assert sent not in ids


def test_openapi_page_holds_every_route(client: httpx.Client) -> None:
    page = client.get("/docs.json").json()
    validate(page)
    predict = "/v1/models/{name}:predict"
    for path in ("/classify", "/denoise", predict):
        assert page["paths"][path]["post"]["security"] == [{"bearer": []}, {}]
    assert {"/classify", "/denoise", predict, "/v1/models", "/metrics"} <= page["paths"].keys()
    error = page["components"]["schemas"]["Error"]
    assert list(error["properties"]) == ["error"]


def test_index_page_loads_what_this_server_has(client: httpx.Client) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert "text/html" in answer.headers["content-type"]
    loaded = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert loaded
    for link in loaded:
        assert client.get(link.removeprefix(".")).status_code == 200, link


@pytest.mark.parametrize(("path", "status"), [("/livez", 200), ("/nope", 404)])
def test_wish_for_a_websocket_is_ignored(client: httpx.Client, path: str, status: int) -> None:
    assert client.get(path, headers=UPGRADE).status_code == status


def test_another_server_leaves_the_metrics_alone(client: httpx.Client, tmp_path: Path) -> None:
    client.post(PREDICT, content=SAMPLE, headers=PNG)
    before = value(scrape(client), "vitrine_requests_total", model="fashion-mnist")
    with serve(tmp_path, models="fashion-mnist-mlp", workers=1) as other, other.client() as second:
        theirs = scrape(second)
        assert value(theirs, "vitrine_requests_total", model="fashion-mnist") == 0
    assert value(scrape(client), "vitrine_requests_total", model="fashion-mnist") == before


def test_metrics_count_requests_over_all_workers(client: httpx.Client, server: Server) -> None:
    before = scrape(client)
    for _ in range(20):  # each on a new connection, so that both workers get some
        httpx.post(f"{server.url}{PREDICT}", content=SAMPLE, headers=PNG)
    client.post("/classify", files=upload(SAMPLE), data={"model": "fashion-mnist"})
    client.post("/classify", files=upload(b"no image"))
    form = [("image", ("a.png", data)) for data in (SAMPLE, b"no image", SAMPLE, SAMPLE)]
    client.post(PREDICT, files=form)
    client.post("/denoise", files=upload(DIGIT))
    client.post("/v1/models/nope:predict", content=SAMPLE, headers=PNG)
    client.get("/nope")
    after = scrape(client)

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


def test_every_worker_tells_of_all(client: httpx.Client, server: Server) -> None:
    client.post(PREDICT, content=SAMPLE, headers=PNG)
    told = set()
    for _ in range(4):  # connections that are open at once go to different workers
        with server.client() as one, server.client() as other:
            told |= {value(scrape(each), "vitrine_batch_size_sum") for each in (one, other)}
    assert len(told) == 1


def test_metrics_describe_the_models(client: httpx.Client) -> None:
    names = [dict(labels) for name, labels in scrape(client) if name == "vitrine_model_info"]
    by_model = {labels["model"]: labels for labels in names}
    assert sorted(by_model) == client.get("/v1/models").json()["models"]
    for name, labels in by_model.items():
        manifest = read_manifest(SHIPPED_MODELS / name / "1")
        assert labels["engine"] == manifest.engine["cpu"]
    assert {labels["device"] for labels in names} == {"cpu"}


def test_scans_make_no_new_series(client: httpx.Client) -> None:
    for path in ("/first", "/v1/models/first:predict"):
        client.post(path, content=SAMPLE, headers=PNG)
    before = set(scrape(client))
    for number in range(20):
        client.post(f"/scan-{number}", content=SAMPLE, headers=PNG)
        client.post(f"/v1/models/scan-{number}:predict", content=SAMPLE, headers=PNG)
        client.get("/nope", headers={"X-Request-ID": f"scan-{number}"})
    new = {(name, labels) for name, labels in scrape(client) if (name, labels) not in before}
    assert not {labels for name, labels in new if name.startswith("vitrine_requests")} - {
        (("model", "unknown"), ("protocol", "page"), ("status", "404"), ("version", ""))
    }


def test_one_log_line_a_request_with_its_stages(client: httpx.Client, server: Server) -> None:
    client.post(PREDICT, content=SAMPLE, headers=PNG | {"X-Request-ID": "logged-1"})
    client.post("/classify", files=upload(b"no image"), headers={"X-Request-ID": "logged-2"})
    lines = logged(server, "logged-1", "logged-2")
    good, bad = lines
    assert (good["status"], good["path"], good["model"]) == (200, PREDICT, "fashion-mnist")
    assert {"ms", "decode_ms", "queue_ms", "predict_ms", "encode_ms", "batch_size"} <= good.keys()
    assert (bad["status"], bad["path"]) == (415, "/classify")


def logged(server: Server, *request_ids: str) -> list[dict[str, object]]:
    """The lines of these requests; a line may come a moment after its answer."""
    for _ in range(100):
        by_id = [line for line in server.log_lines() if line.get("request_id") in request_ids]
        if len(by_id) >= len(request_ids):
            break
        time.sleep(0.02)
    assert Counter(str(line["request_id"]) for line in by_id) == Counter(request_ids)
    return sorted(by_id, key=lambda line: str(line["request_id"]))


@pytest.mark.parametrize(("path", "status"), [("/livez", 503), ("/readyz", 503), ("/metrics", 200)])
def test_server_with_an_engine_that_fails_is_neither_alive_nor_ready(
    path: str, status: int
) -> None:
    app = App(Settings(workers=1, models=("fashion-mnist-mlp",)))
    app.metrics.engine_failing["fashion-mnist-mlp", "1"].set(1)

    async def no_pages(*_: object) -> None:
        raise AssertionError("this is no page of BentoML's")

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(Front(no_pages, lambda: app))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get(path)

    answer = asyncio.run(ask())
    app.close()
    assert answer.status_code == status
    if status == 503:
        assert answer.json() == {"error": "expected engines that work, got one that fails"}
