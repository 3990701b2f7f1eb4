"""The rules, and by promtool: what each of them says of made-up series."""

import re
import subprocess

import pytest
import yaml

from service.artifacts.manifest import read_manifest
from service.telemetry.metrics import Metrics
from tests.exposition import parsed
from tests.observability.files import OBSERVABILITY, RULES, rules
from tests.programs import program
from tests.server import CHECKOUT

UNIT_TESTS = sorted((RULES / "tests").glob("*.yml"))
ALERTS = rules("alerts")
MANIFESTS = [read_manifest(file.parent) for file in CHECKOUT.glob("models/*/*/manifest.json")]
VGG16_PARAMETERS = 10_000_000


def promtool(*arguments: object) -> None:
    ran = subprocess.run(
        [program("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_configuration_and_its_rules_are_valid() -> None:
    promtool("check", "config", "--lint=all", "--lint-fatal", OBSERVABILITY / "prometheus.yml")


@pytest.mark.parametrize("file", UNIT_TESTS, ids=lambda file: file.stem)
def test_rules_say_what_the_unit_tests_expect(file: object) -> None:
    promtool("test", "rules", file)


@pytest.mark.parametrize("name", [rule["alert"] for rule in ALERTS])
def test_alert_is_seen_to_fire(name: str) -> None:
    """That it does not without a reason, the unit tests see in the same series."""
    tests = [test for file in UNIT_TESTS for test in yaml.safe_load(file.read_text())["tests"]]
    cases = [case for test in tests for case in test["promql_expr_test"]]
    firing = [sample["labels"] for case in cases for sample in case["exp_samples"]]
    assert any(f'alertname="{name}"' in labels for labels in firing)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    notes = rule["annotations"]
    assert notes.keys() == {"summary", "description", "runbook"}
    assert "$value" in notes["description"]
    page, _, anchor = notes["runbook"].rpartition(": ")[2].partition("#")
    headings = re.findall(r"^### (\w+)$", (CHECKOUT / page).read_text(), re.MULTILINE)
    assert rule["alert"] in headings
    assert anchor == str(rule["alert"]).lower()


def test_runbook_has_no_page_of_an_alert_that_is_gone() -> None:
    headings = re.findall(r"^### (\w+)$", (OBSERVABILITY / "README.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(rule["alert"] for rule in ALERTS)


def test_names_of_records_begin_alike() -> None:
    assert all(re.fullmatch(r"vitrine:\w+(:\w+)?", rule["record"]) for rule in rules("recording"))


def test_models_on_vgg16_have_the_longer_objective() -> None:
    (rule,) = (r for r in rules("recording") if r["record"] == "vitrine:latency_objective_seconds")
    slow, small = rule["expr"].splitlines()
    named = re.findall(r'model=~"([^"]*)".*\* 1$', slow)[0].split("|")
    unnamed = re.findall(r'model!="([^"]*)".*\* 0.25$', small)
    assert sorted(named) == sorted(
        model.name for model in MANIFESTS if model.parameters > VGG16_PARAMETERS
    )
    assert unnamed == [model.name for model in MANIFESTS if model.task == "denoising"]


def test_objectives_are_bounds_of_buckets() -> None:
    """Between two bounds a quantile is a guess."""
    metrics = Metrics(MANIFESTS[:1])
    metrics.request_seconds[MANIFESTS[0].name, "v1"].observe(0.001)
    bounds = {
        dict(labels)["le"]
        for name, labels in parsed(metrics.expose().decode())
        if name == "vitrine_request_seconds_bucket"
    }
    assert {"0.25", "1.0"} <= bounds
