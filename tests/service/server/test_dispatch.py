"""What every request goes through, however it came in: in this process, without a socket."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.call import Call
from service.inference.model import Model
from service.server.app import IN_PROCESS, App
from service.settings import Settings
from tests.asgi import body_part, client_of, in_process, request
from tests.exposition import Series, parsed, value
from tests.logs import kept_log
from tests.service.protocols.test_native import PNG, PREDICT, SAMPLE, upload

MODEL = "fashion-mnist-mlp"
ASK = f"/v1/models/{MODEL}:predict"


@pytest.fixture
def app() -> Iterator[App]:
    app = App(Settings(workers=1, models=(MODEL,), log_requests=True))
    yield app
    app.close()


def scrape(client: httpx.Client) -> Series:
    return parsed(client.get("/metrics").text)


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/v1",
        "/v1/models/",
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
        ("POST", "/v1/models/fashion-mnist", "GET, HEAD"),
        ("DELETE", "/livez", "GET, HEAD"),
        ("POST", "/docs.json", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
    ],
)
def test_wrong_method_names_the_right_one(
    client: httpx.Client, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    assert list(answer.json()) == ["error"]
    assert allowed.split(",", maxsplit=1)[0] in answer.json()["error"]


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


def test_answer_after_the_deadline_is_504() -> None:
    with in_process(models=(MODEL,), request_timeout_s=0.000001) as client:
        answers = (
            client.post("/classify", files=upload(SAMPLE)),
            client.post(ASK, content=SAMPLE, headers=PNG),
        )
        assert client.get("/v1/models").status_code == 200  # only inference has a deadline
    for answer in answers:
        assert answer.status_code == 504
        assert answer.json() == {"error": "no answer within 1e-06 s"}


@pytest.mark.parametrize("sent", ["0", "soon", "1e3"])
def test_unusable_deadline_of_the_caller_is_400(client: httpx.Client, sent: str) -> None:
    headers = PNG | {"X-Request-Timeout-Ms": sent}
    answer = client.post(PREDICT, content=SAMPLE, headers=headers)
    assert answer.status_code == 400
    assert "X-Request-Timeout-Ms" in answer.json()["error"]


def test_bug_is_a_500_that_the_log_explains(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise ValueError("no such luck")

    monkeypatch.setattr(Model, "infer", fail)
    with client_of(app) as client, kept_log() as log:
        answer = client.post(ASK, content=SAMPLE, headers=PNG | {"X-Request-ID": "unlucky"})
        assert value(scrape(client), "vitrine_requests_total", status="500", model=MODEL) == 1
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "unlucky"
    error = "unexpected error; the log has it under request id unlucky"
    assert answer.json() == {"error": error}
    assert log.fields("unexpected error") == [{"request_id": "unlucky"}]
    (bug,) = (record.exc_info for record in log.records if record.exc_info)
    assert isinstance(bug[1], ValueError)


def test_draining_closes_connections_after_every_answer(app: App) -> None:
    with client_of(app) as client:
        asks = [
            ("POST", ASK, SAMPLE),
            ("POST", ASK, b"no image"),
            ("POST", "/v1/models/nope:predict", SAMPLE),
            ("GET", "/livez", b""),
            ("GET", "/nope", b""),
        ]
        before = [client.request(method, path, content=body) for method, path, body in asks]
        app.drain.begin()
        after = [client.request(method, path, content=body) for method, path, body in asks]
    assert [answer.status_code for answer in before] == [200, 415, 404, 200, 404]
    assert [answer.status_code for answer in after] == [200, 415, 404, 200, 404]
    assert not any("connection" in answer.headers for answer in before)
    assert all(answer.headers["connection"] == "close" for answer in after)


def test_unknown_model_is_refused_before_its_body_is_read(app: App) -> None:
    asked = request(path="/v1/models/nope:predict")  # whose body never comes
    response = asyncio.run(asyncio.wait_for(app.dispatcher.respond(asked), 30))
    assert response.status == 404


def test_full_queue_is_refused_before_the_body_is_read() -> None:
    app = App(Settings(workers=1, models=(MODEL,), queue_limit=1))
    with app.registry.find(MODEL)._admission.place(Call("test")):
        asked = request(path=ASK)
        response = asyncio.run(asyncio.wait_for(app.dispatcher.respond(asked), 30))
    app.close()
    assert response.status == 503
    assert int(response.headers["Retry-After"]) >= 1
    assert b"fashion-mnist-mlp is overloaded" in response.body


def test_refusal_can_be_read_by_pages_of_the_named_origins() -> None:
    origin = "https://shop.example"
    settings = Settings(workers=1, models=(MODEL,), queue_limit=1, cors_origins=(origin,))
    app = App(settings)
    app.drain.begin()
    with app.registry.find(MODEL)._admission.place(Call("test")):
        asked = request(path=ASK, headers={"Origin": origin})
        response = asyncio.run(asyncio.wait_for(app.dispatcher.respond(asked), 30))
    app.close()
    assert response.status == 503
    assert response.headers["Access-Control-Allow-Origin"] == origin
    assert response.headers["Connection"] == "close"
    assert "Retry-After" in response.headers


def test_preflight_is_answered_before_token_and_certificate_are_looked_for(tmp_path: Path) -> None:
    """A browser sends neither with it."""
    tokens = tmp_path / "tokens"
    tokens.write_text("0" * 64)
    file = tmp_path / "tls.pem"
    settings = Settings(
        workers=1,
        models=(MODEL,),
        tls_cert_file=file,
        tls_key_file=file,
        tls_client_ca_file=file,
        api_tokens_file=tokens,
        cors_origins=("*",),
    )
    app = App(settings)
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    with client_of(app) as client:
        assert client.options(ASK, headers=asked).status_code == 204
        assert client.options(ASK).status_code == 401
        assert client.post(ASK, content=SAMPLE, headers=asked).status_code == 401
    app.close()


def test_requests_are_counted_by_model_protocol_and_status(app: App) -> None:
    with client_of(app) as client:
        client.post(ASK, content=SAMPLE, headers=PNG)
        client.post("/classify", files=upload(SAMPLE))
        client.post("/classify", files=upload(b"no image"))
        client.post("/v1/models/nope:predict", content=SAMPLE, headers=PNG)
        client.post("/classify", files=upload(SAMPLE), data={"model": "nope"})
        client.get("/nope")
        series = scrape(client)
    counted = {
        tuple(dict(labels)[name] for name in ("model", "version", "protocol", "status")): number
        for (name, labels), number in series.items()
        if name == "vitrine_requests_total" and number
    }
    assert counted == {
        (MODEL, "1", "v1", "200"): 1,
        (MODEL, "1", "classify", "200"): 1,
        (MODEL, "1", "classify", "415"): 1,
        ("unknown", "", "v1", "404"): 1,
        ("unknown", "", "classify", "404"): 1,
        ("unknown", "", "page", "404"): 1,
    }


def test_label_values_of_metrics_follow_from_the_routes(app: App) -> None:
    protocols = {protocol for _, _, protocol, _ in app.metrics.requests}
    assert protocols == {"classify", "denoise", "v1", "page", "other", IN_PROCESS}


def test_scans_make_no_new_series(client: httpx.Client) -> None:
    for path in ("/first", "/v1/models/first:predict"):
        client.post(path, content=SAMPLE, headers=PNG)
    before = set(scrape(client))
    for number in range(20):
        client.post(f"/scan-{number}", content=SAMPLE, headers=PNG)
        client.post(f"/v1/models/scan-{number}:predict", content=SAMPLE, headers=PNG)
        client.get("/nope", headers={"X-Request-ID": f"scan-{number}"})
    assert set(scrape(client)) == before


def test_call_is_shown_to_who_annotates_it_before_its_answer_is_sent(app: App) -> None:
    shown: list[Call] = []
    app.dispatcher.on_answer = shown.append
    asked = request(body_part(SAMPLE), path=ASK, headers=PNG)
    refused = request(path="/nope")

    async def respond() -> None:
        await app.dispatcher.respond(asked)
        await app.dispatcher.respond(refused)

    asyncio.run(respond())
    assert shown == [asked.call, refused.call]
    assert [stage for stage, _, _ in shown[0].stages] == ["decode", "queue", "predict", "encode"]
    assert (shown[0].model, shown[0].version, shown[0].task) == (MODEL, "1", "classification")
    assert (shown[0].items, shown[0].batch_size) == (1, 1)


def test_one_log_line_a_request_with_its_stages(app: App) -> None:
    with client_of(app) as client, kept_log() as log:
        client.post(ASK, content=SAMPLE, headers=PNG | {"X-Request-ID": "logged-1"})
        client.post("/classify", files=upload(b"no image"), headers={"X-Request-ID": "logged-2"})
        client.get("/nope", headers={"X-Request-ID": "logged-3"})
        for probe in ("/livez", "/readyz", "/metrics"):
            client.get(probe)
    good, bad, page = log.fields("request")
    assert [line["request_id"] for line in (good, bad, page)] == [
        "logged-1",
        "logged-2",
        "logged-3",
    ]
    assert (good["status"], good["path"], good["method"]) == (200, ASK, "POST")
    assert (good["model"], good["version"], good["task"]) == (MODEL, "1", "classification")
    assert (good["protocol"], bad["protocol"], page["protocol"]) == ("v1", "classify", "page")
    assert {"ms", "decode_ms", "queue_ms", "predict_ms", "encode_ms", "batch_size"} <= good.keys()
    assert (bad["status"], bad["path"]) == (415, "/classify")
    assert (page["status"], page["path"]) == (404, "/nope")


def test_requests_are_logged_only_where_that_is_asked_for() -> None:
    with in_process(models=(MODEL,)) as client, kept_log() as log:
        client.get("/v1/models", headers={"X-Request-ID": "asked-for"})
    assert log.records == []
