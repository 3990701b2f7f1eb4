import json
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
import yaml

from service.artifacts.manifest import Manifest as ModelManifest
from service.artifacts.manifest import read_manifest
from service.protocols import catalog, health, native
from service.tasks import TASKS
from tests.k8s.conftest import CPU
from tests.k8s.manifests import (
    Manifests,
    Pod,
    containers,
    environment,
    named,
    of_kind,
    pods,
    quantity,
    render_text,
    selects,
    title,
)
from tests.k8s.routing import backends
from tests.server import CHECKOUT

BASE = {"Namespace", "ServiceAccount", "ConfigMap", "Service", "Deployment", "HTTPRoute"}
OPERATED = {"PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor", "PrometheusRule"}
VGG16_PARAMETERS = 14_000_000
MODELS = [
    read_manifest(path.parent, TASKS)
    for path in sorted((CHECKOUT / "models").glob("*/*/manifest.json"))
]


def kinds(manifests: Manifests) -> set[str]:
    return {manifest["kind"] for manifest in manifests}


def test_dev_is_the_base_with_one_replica(rendered: dict[str, Manifests]) -> None:
    assert kinds(rendered["dev"]) == BASE
    assert named(rendered["dev"], "Deployment/vitrine")["spec"]["replicas"] == 1


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_overlay_has_what_production_needs(rendered: dict[str, Manifests], overlay: str) -> None:
    assert kinds(rendered[overlay]) == BASE | OPERATED | {"HorizontalPodAutoscaler"}


def test_keda_instead_of_hpa_is_one_line(rendered: dict[str, Manifests]) -> None:
    with_hpa = Counter(map(title, rendered["cpu"]))
    with_keda = Counter(map(title, rendered["cpu with keda"]))
    assert with_hpa - with_keda == Counter(["HorizontalPodAutoscaler/vitrine"])
    assert with_keda - with_hpa == Counter(["ScaledObject/vitrine"])


def test_load_test_changes_nothing_else(rendered: dict[str, Manifests]) -> None:
    added = [one for one in rendered["cpu with load-test"] if one not in rendered["cpu"]]
    assert len(added) + len(rendered["cpu"]) == len(rendered["cpu with load-test"])
    assert all("load-test" in one["metadata"]["name"] for one in added)


def test_load_test_waits_for_all_of_its_workers(rendered: dict[str, Manifests]) -> None:
    manifests = rendered["cpu with load-test"]
    workers = named(manifests, "Job/vitrine-load-test-workers")["spec"]
    [master] = named(manifests, "Job/vitrine-load-test")["spec"]["template"]["spec"]["containers"]
    assert workers["completions"] == workers["parallelism"]
    assert f"--expect-workers={workers['parallelism']}" in master["args"]


def test_workers_follow_from_the_cpu_limit(manifests: Manifests) -> None:
    for _, container in containers(manifests, "Deployment"):
        assert "VITRINE_WORKERS" not in environment(container, manifests)
        assert quantity(container["resources"]["limits"]["cpu"]) % 1 == 0


def test_gpu_pod_asks_for_a_gpu(rendered: dict[str, Manifests]) -> None:
    [(pod, container)] = containers(rendered["gpu"], "Deployment")
    assert container["image"] == "vitrine:0.1.0-gpu"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert environment(container, rendered["gpu"])["VITRINE_DEVICE"] == "gpu"
    assert pod.spec["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    assert pod.spec["nodeSelector"]


def test_gpu_pod_may_take_longer_to_start(rendered: dict[str, Manifests]) -> None:
    def allowance_s(overlay: str) -> int:
        [(_, container)] = containers(rendered[overlay], "Deployment")
        probe = container["startupProbe"]
        return int(probe["periodSeconds"] * probe["failureThreshold"])

    assert allowance_s("gpu") > allowance_s("cpu")


def test_tokens_are_required(manifests: Manifests) -> None:
    for pod, container in containers(manifests, "Deployment"):
        [volume] = [one["secret"] for one in pod.spec["volumes"] if one["name"] == "api-tokens"]
        [mount] = [one for one in container["volumeMounts"] if one["name"] == "api-tokens"]
        assert not volume.get("optional", False)
        file = environment(container, manifests)["VITRINE_API_TOKENS_FILE"]
        assert file == f"{mount['mountPath']}/tokens"


def test_tls_files_are_those_of_the_mounted_secret(rendered: dict[str, Manifests]) -> None:
    manifests = rendered["cpu with tls"]
    [(pod, container)] = containers(manifests, "Deployment")
    [volume] = [one["secret"] for one in pod.spec["volumes"] if one["name"] == "tls"]
    [mount] = [one for one in container["volumeMounts"] if one["name"] == "tls"]
    settings = environment(container, manifests)
    assert settings["VITRINE_TLS_CERT_FILE"] == f"{mount['mountPath']}/tls.crt"
    assert settings["VITRINE_TLS_KEY_FILE"] == f"{mount['mountPath']}/tls.key"
    assert volume["secretName"] == "vitrine-tls"
    [endpoint] = named(manifests, "ServiceMonitor/vitrine")["spec"]["endpoints"]
    assert endpoint["scheme"] == "https"


def test_prometheus_shows_a_token_where_metrics_are_scraped(manifests: Manifests) -> None:
    """Without one every scrape would be a 401."""
    [scope] = {route.scope for route in health.ROUTES if route.path == "/metrics"}
    assert scope is not None
    for monitor in of_kind(manifests, "ServiceMonitor"):
        for endpoint in monitor["spec"]["endpoints"]:
            assert endpoint["path"] == "/metrics"
            assert endpoint["authorization"]["type"] == "Bearer"
            assert not endpoint["authorization"]["credentials"].get("optional", False)


def test_changed_setting_rolls_the_pods(tmp_path: Path, rendered: dict[str, Manifests]) -> None:
    text = """configMapGenerator:
  - name: vitrine-settings
    namespace: vitrine
    behavior: merge
    literals:
      - VITRINE_QUEUE_LIMIT=64
"""
    changed = render_text(CPU + text, tmp_path)
    [(_, before)] = containers(rendered["cpu"], "Deployment")
    [(_, after)] = containers(changed, "Deployment")
    assert environment(after, changed)["VITRINE_QUEUE_LIMIT"] == "64"
    assert before["envFrom"] != after["envFrom"]


def test_monitoring_has_the_rules_of_deploy(rendered: dict[str, Manifests]) -> None:
    files = sorted((CHECKOUT / "deploy" / "observability" / "rules").glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    assert groups
    assert named(rendered["cpu"], "PrometheusRule/vitrine")["spec"]["groups"] == groups


def test_monitoring_has_the_dashboard_of_deploy(rendered: dict[str, Manifests]) -> None:
    file = CHECKOUT / "deploy/observability/grafana/dashboards/vitrine.json"
    found = named(rendered["cpu"], "ConfigMap/vitrine-dashboard")
    assert json.loads(found["data"]["vitrine.json"]) == json.loads(file.read_text())
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_job_is_called_vitrine(manifests: Manifests) -> None:
    for monitor in of_kind(manifests, "ServiceMonitor"):
        scraped = [
            service["metadata"]["labels"][monitor["spec"]["jobLabel"]]
            for service in of_kind(manifests, "Service")
            if selects(monitor["spec"]["selector"], service["metadata"].get("labels", {}))
        ]
        assert scraped
        assert set(scraped) == {"vitrine"}


def served_by(manifests: Manifests) -> dict[str, Pod]:
    """Which pods serve each model."""
    return {
        model: pod
        for pod, container in containers(manifests, "Deployment")
        for model in environment(container, manifests)["VITRINE_MODELS"].split(",")
    }


def test_split_serves_every_model_once(rendered: dict[str, Manifests]) -> None:
    lists = [
        environment(container, rendered["split"])["VITRINE_MODELS"].split(",")
        for _, container in containers(rendered["split"], "Deployment")
    ]
    assert sorted(chain.from_iterable(lists)) == sorted({model.name for model in MODELS})


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_split_puts_vgg16_on_gpus(rendered: dict[str, Manifests], model: ModelManifest) -> None:
    [container] = served_by(rendered["split"])[model.name].containers
    is_vgg16 = model.parameters > VGG16_PARAMETERS
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == is_vgg16


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
@pytest.mark.parametrize("path", [":predict", "/versions/1:predict", "", "/versions/1"])
def test_split_routes_to_the_pods_that_serve(
    rendered: dict[str, Manifests], model: ModelManifest, path: str
) -> None:
    manifests = rendered["split"]
    [service] = backends(named(manifests, "HTTPRoute/vitrine"), f"/v1/models/{model.name}{path}")
    selector = {"matchLabels": named(manifests, f"Service/{service}")["spec"]["selector"]}
    [reached] = [pod for pod in pods(manifests) if selects(selector, pod.labels)]
    assert reached == served_by(manifests)[model.name]


@pytest.mark.parametrize("path", [route.path for route in (*native.routes(), *catalog.ROUTES)])
def test_routes_for_clients_are_public(manifests: Manifests, path: str) -> None:
    asked = path.format(name="hand-signs", version="1")
    assert backends(named(manifests, "HTTPRoute/vitrine"), asked)


def test_prefix_matches_whole_segments_only(rendered: dict[str, Manifests]) -> None:
    route = named(rendered["dev"], "HTTPRoute/vitrine")
    assert backends(route, "/v1/models/hand-signs:predict") == {"vitrine": 1}
    assert backends(route, "/v1/models-of-others") == {}
