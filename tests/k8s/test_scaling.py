import re
import subprocess
from pathlib import Path

import pytest
import yaml

from service.artifacts.manifest import read_manifest
from service.tasks import TASKS
from tests.k8s.manifests import Manifest, Manifests, named
from tests.k8s.relations import adapter_rules
from tests.metrics import PROTOCOLS, metrics_of
from tests.programs import program
from tests.server import CHECKOUT

VITRINE = 'namespace="vitrine"'
OTHER = 'namespace="other"'
A = f'{VITRINE},pod="vitrine-5d-a"'
B = f'{VITRINE},pod="vitrine-5d-b"'
# Two pods for five minutes; the first has 30 images waiting for two models and 6 requests/s
# (2 of them refused), the second 5 and 1. Probes and pages count nowhere, nor do another namespace
# and, where all pods are summed, a canary.
SERIES = {
    f'vitrine_queue_depth{{{A},model="denoiser",version="1"}}': "10x20",
    f'vitrine_queue_depth{{{A},model="denoiser",version="2"}}': "0x20",
    f'vitrine_queue_depth{{{A},model="clothing"}}': "20x20",
    f'vitrine_queue_depth{{{B},model="denoiser"}}': "5x20",
    f'vitrine_queue_depth{{{OTHER},pod="vitrine-5d-a",model="denoiser"}}': "1000x20",
    f'vitrine_requests_total{{{A},protocol="v1",status="200"}}': "0+60x20",
    f'vitrine_requests_total{{{A},protocol="v1",status="503"}}': "0+30x20",
    f'vitrine_requests_total{{{B},protocol="classify",status="200"}}': "0+15x20",
    f'vitrine_requests_total{{{B},protocol="other",status="200"}}': "0+3000x20",
    f'vitrine_requests_total{{{B},protocol="page",status="404"}}': "0+3000x20",
    f'vitrine_queue_depth{{{VITRINE},pod="vitrine-canary-7f-c",model="denoiser"}}': "500x20",
    f'vitrine_requests_total{{{OTHER},pod="vitrine-5d-a",protocol="v1",status="200"}}': "0+9000x20",
}


def evaluated(expression: str, expected: dict[str, float], folder: Path) -> None:
    """Let promtool compare what an expression gives after 5 minutes, by its labels as text."""
    rule = {"record": "asked", "expr": expression}
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [rule]}]}))
    samples = [{"labels": f"asked{labels}", "value": value} for labels, value in expected.items()]
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": text} for name, text in SERIES.items()],
        "promql_expr_test": [{"expr": "asked", "eval_time": "5m", "exp_samples": samples}],
    }
    tests = {"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": [test]}
    (folder / "tests.yml").write_text(yaml.safe_dump(tests))
    ran = subprocess.run(
        [program("promtool"), "test", "rules", "tests.yml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def adapter_query(metric: str) -> str:
    """What the adapter asks Prometheus for the pods of namespace vitrine."""
    [rule] = [rule for rule in adapter_rules() if rule["name"]["as"] == metric]
    series, _, _ = rule["seriesQuery"].partition("{")
    query: str = rule["metricsQuery"]
    for placeholder, value in {
        "<<.Series>>": series,
        "<<.LabelMatchers>>": 'namespace="vitrine",pod=~"vitrine-5d-a|vitrine-5d-b"',
        "<<.GroupBy>>": "pod",
    }.items():
        assert placeholder in query
        query = query.replace(placeholder, value)
    return query


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (
            "vitrine_queue_depth",
            {'{pod="vitrine-5d-a"}': 30.0, '{pod="vitrine-5d-b"}': 5.0},
        ),
        (
            "vitrine_requests_per_second",
            {'{pod="vitrine-5d-a"}': 6.0, '{pod="vitrine-5d-b"}': 1.0},
        ),
    ],
)
def test_adapter_gives_each_pod_its_own_sum(
    metric: str, expected: dict[str, float], tmp_path: Path
) -> None:
    evaluated(adapter_query(metric), expected, tmp_path)


@pytest.mark.parametrize(("trigger", "expected"), [("queue", 35.0), ("requests", 7.0)])
def test_keda_gets_the_sum_of_all_pods(
    rendered: dict[str, Manifests], trigger: str, expected: float, tmp_path: Path
) -> None:
    query = triggers(rendered)[trigger]["metadata"]["query"]
    evaluated(query, {"": expected}, tmp_path)


def triggers(rendered: dict[str, Manifests]) -> dict[str, Manifest]:
    scaled = named(rendered["cpu with keda"], "ScaledObject/vitrine")
    return {trigger.get("name", trigger["type"]): trigger for trigger in scaled["spec"]["triggers"]}


def test_keda_scales_at_the_figures_of_the_hpa(rendered: dict[str, Manifests]) -> None:
    hpa = named(rendered["cpu"], "HorizontalPodAutoscaler/vitrine")["spec"]
    keda = named(rendered["cpu with keda"], "ScaledObject/vitrine")["spec"]
    cpu, queue, requests = hpa["metrics"]
    found = {name: trigger["metadata"] for name, trigger in triggers(rendered).items()}
    assert found["cpu"]["value"] == str(cpu["resource"]["target"]["averageUtilization"])
    assert found["queue"]["threshold"] == queue["pods"]["target"]["averageValue"]
    assert found["requests"]["threshold"] == requests["pods"]["target"]["averageValue"]
    assert keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == hpa["behavior"]
    assert keda["minReplicaCount"] == hpa["minReplicas"]
    assert keda["maxReplicaCount"] == hpa["maxReplicas"]


def test_series_and_protocols_are_those_of_the_service() -> None:
    manifest = read_manifest(CHECKOUT / "models" / "fashion-mnist" / "1", TASKS)
    metrics = metrics_of(manifest).expose()
    for rule in adapter_rules():
        series, _, _ = rule["seriesQuery"].partition("{")
        assert f"# TYPE {series} ".encode() in metrics
    no_inference = re.findall(r'protocol!~"([^"]+)"', adapter_query("vitrine_requests_per_second"))
    assert set(no_inference[0].split("|")) < set(PROTOCOLS)
