"""The rules, and by promtool: what each of them says of made-up series."""

import re
import subprocess
from functools import cache

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.artifacts.manifest import read_manifest
from service.tasks import TASKS
from tests.exposition import parsed
from tests.metrics import metrics_of
from tests.observability.files import OBSERVABILITY, RULES, panel_queries, rules
from tests.programs import program
from tests.server import CHECKOUT

UNIT_TESTS = sorted((RULES / "tests").glob("*.yml"))
ALERTS = rules("alerts")
MANIFESTS = [
    read_manifest(file.parent, TASKS) for file in CHECKOUT.glob("models/*/*/manifest.json")
]
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


@cache
def expected(state: str) -> set[str]:
    """The names of the alerts that the unit tests expect in a state, firing if none is said."""
    tests = [test for file in UNIT_TESTS for test in yaml.safe_load(file.read_text())["tests"]]
    cases = [case for test in tests for case in test["promql_expr_test"]]
    labels = [sample["labels"] for case in cases for sample in case["exp_samples"]]
    found = re.findall(r'alertname="(\w+)"(?:, alertstate="(\w+)")?', " ".join(labels))
    return {name for name, said in found if (said or "firing") == state}


@pytest.mark.parametrize("name", [rule["alert"] for rule in ALERTS])
def test_alert_is_seen_to_fire(name: str) -> None:
    """That it does not without a reason, the unit tests see in the same series."""
    assert name in expected("firing")


@pytest.mark.parametrize("name", [rule["alert"] for rule in ALERTS if "for" in rule])
def test_alert_is_seen_to_wait_for_its_time(name: str) -> None:
    assert name in expected("pending")


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
    for manifest in MANIFESTS:
        longer = manifest.parameters > VGG16_PARAMETERS
        expected_s = None if manifest.task.type == "denoising" else 1.0 if longer else 0.25
        assert manifest.latency_objective_s == expected_s


def test_objectives_are_bounds_of_buckets() -> None:
    """Between two bounds a quantile is a guess."""
    series = parsed(metrics_of(*MANIFESTS).expose().decode())
    bounds = {
        float(dict(labels)["le"])
        for name, labels in series
        if name == "vitrine_request_seconds_bucket"
    }
    objectives = {
        number
        for (name, _), number in series.items()
        if name == "vitrine_latency_objective_seconds"
    }
    assert objectives
    assert objectives <= bounds


def test_page_of_metrics_names_the_labels_of_each() -> None:
    metrics = metrics_of(*MANIFESTS)
    metrics.announce(MANIFESTS[0].name, MANIFESTS[0].version, "litert", "cpu", "0123")
    page = (OBSERVABILITY / "README.md").read_text()
    written: dict[str, set[str]] = {}
    for names, labels in re.findall(r"^\| (`vitrine_.*?) \| (.*?) \|", page, re.MULTILINE):
        written |= {name: set(labels.split(", ")) for name in re.findall(r"\w+", names)}
    for family in text_string_to_metric_families(metrics.expose().decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels}
        assert labels - {"le"} == written[name], name


def test_no_query_lists_protocols_or_models() -> None:
    """A new protocol, or a new model, is to be seen at once."""
    queries = [rule["expr"] for rule in (*rules("recording"), *rules("alerts"))]
    queries += [query for _, query in panel_queries("1m")]
    assert any('protocol!~"page|other"' in query for query in queries)
    assert not [query for query in queries if re.search(r'protocol=|model!?="|model!~', query)]
