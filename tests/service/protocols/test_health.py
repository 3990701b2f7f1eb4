import httpx
import pytest

from service.server.app import App
from service.settings import Settings
from tests.asgi import client_of, in_process
from tests.exposition import parsed

MODEL = "fashion-mnist-mlp"


@pytest.mark.parametrize(("path", "status"), [("/livez", "alive"), ("/readyz", "ready")])
def test_health_is_ok_for_a_proven_server(client: httpx.Client, path: str, status: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": status})
    assert client.head(path).status_code == 200


@pytest.mark.parametrize(("path", "status"), [("/livez", 503), ("/readyz", 503), ("/metrics", 200)])
def test_server_with_an_engine_that_fails_is_neither_alive_nor_ready(
    path: str, status: int
) -> None:
    app = App(Settings(workers=1, models=(MODEL,)))
    app.metrics.engine_failing[MODEL, "1"].set(1)
    with client_of(app) as client:
        answer = client.get(path)
    app.close()
    assert answer.status_code == status
    if status == 503:
        assert answer.json() == {"error": f"the engine of {MODEL} is failing; see the log"}


@pytest.mark.parametrize(("path", "status"), [("/livez", 200), ("/readyz", 503), ("/metrics", 200)])
def test_server_that_drains_is_alive_and_not_ready(path: str, status: int) -> None:
    app = App(Settings(workers=1, models=(MODEL,)))
    app.drain.begin()
    with client_of(app) as client:
        answer = client.get(path)
    app.close()
    assert answer.status_code == status
    if status == 503:
        assert answer.json() == {"error": "shutting down"}
        assert answer.headers["retry-after"] == "1"


def test_metrics_are_in_prometheuss_text_format(client: httpx.Client) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    names = {name for name, _ in parsed(answer.text)}
    assert {"vitrine_model_info", "vitrine_queue_depth", "vitrine_requests_total"} <= names


def test_metrics_that_are_off_are_not_found() -> None:
    with in_process(models=(MODEL,), metrics=False) as client:
        answer = client.get("/metrics")
        assert client.get("/readyz").status_code == 200
    assert answer.status_code == 404
    assert "VITRINE_METRICS=false" in answer.json()["error"]
