"""A real Prometheus scrapes a service that nobody asks for anything, then one burst of errors."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml

from tests.drawing import encode, gradient
from tests.k8s.manifests import K8S
from tests.k8s.test_scaling import VITRINE, A, adapter_query
from tests.observability.prometheus import Prometheus, watching
from tests.server import Server, serve

pytestmark = pytest.mark.slow

ERRORS = 20
# Longer than the test: what Prometheus sees of the burst stays in it.
FAILING = 'sum(rate(vitrine_requests_total{model="denoiser", status="504"}[5m]))'


@dataclass
class Idle:
    """A service that has answered nothing so far, and what watches it."""

    server: Server
    prometheus: Prometheus


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Idle]:
    folder = tmp_path_factory.mktemp("idle")
    place = dict(pair.split("=") for pair in A.replace('"', "").split(","))
    models = "fashion-mnist,denoiser"
    with (
        serve(folder, models=models, workers=2) as server,
        watching(server, folder, place) as running,
    ):
        yield Idle(server, running)


def keda_queries() -> set[str]:
    file = K8S / "components" / "keda" / "scaled-object.yaml"
    triggers = yaml.safe_load(file.read_text())["spec"]["triggers"]
    return {each["metadata"]["query"] for each in triggers if each["type"] == "prometheus"}


def test_autoscalers_get_numbers_of_an_idle_service(idle: Idle) -> None:
    """KEDA takes an empty result for an error and falls back; an HPA then scales down no more."""
    adapter = {
        adapter_query(name) for name in ("vitrine_queue_depth", "vitrine_requests_per_second")
    }
    queries = keda_queries() | adapter
    assert len(queries) == 4
    assert all(VITRINE in query for query in queries)
    assert idle.prometheus.unanswered(queries) == set()
    for query in queries:
        (found,) = idle.prometheus.get("query", query=query)["result"]
        assert float(found["value"][1]) == 0


def test_first_burst_of_errors_is_seen_as_a_rate(idle: Idle) -> None:
    assert idle.prometheus.unanswered({f"{FAILING} == 0"}) == set()
    image = {"image": encode(gradient(500, 500), "PNG")}
    with idle.server.client() as client:
        answers = [
            client.post("/denoise", files=image, headers={"X-Request-Timeout-Ms": "1"})
            for _ in range(ERRORS)
        ]
    assert {answer.status_code for answer in answers} == {504}
    assert idle.prometheus.unanswered({f"{FAILING} > 0"}) == set()
