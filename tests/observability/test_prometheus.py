"""A real Prometheus scrapes a running service under load: every query and rule has an answer."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.observability.files import panel_queries, read_dashboard, rules
from tests.observability.prometheus import Prometheus, load, watching
from tests.server import serve

pytestmark = pytest.mark.slow

RATE_INTERVAL = "10s"
# There is a GPU on few machines.
GPU = "gpu_memory"
HEALTH = (
    "VitrineTargetDown",
    "VitrineTargetAbsent",
    "VitrineWorkersMissing",
    "VitrineEngineFails",
    "VitrineServerRestarts",
    "VitrineWorkersRestart",
)
_SELECTOR = re.compile(r"\b(?:vitrine[_:][\w:]+|up)\b(?:\{[^}]*\})?")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    with (
        serve(folder, workers=2) as server,
        load(server),
        watching(server, folder) as running,
    ):
        yield running


def test_every_panel_shows_something(prometheus: Prometheus) -> None:
    queries = {query for _, query in panel_queries(RATE_INTERVAL) if GPU not in query}
    assert prometheus.unanswered(queries) == set()


def test_every_choice_has_values(prometheus: Prometheus) -> None:
    for variable in read_dashboard()["templating"]["list"][1:]:
        metric, label = re.findall(r"label_values\((\w+).*, (\w+)\)", variable["definition"])[0]
        values = prometheus.get(f"label/{label}/values", **{"match[]": metric})
        assert values, f"expected values of {label} of {metric}, got none"


def test_every_record_has_a_number(prometheus: Prometheus) -> None:
    records = {rule["record"] for rule in rules("recording") if GPU not in rule["record"]}
    assert prometheus.unanswered(records) == set()


def test_every_selector_of_a_rule_finds_series(prometheus: Prometheus) -> None:
    """An alert that fires has a result; one that names what does not exist never will."""
    expressions = [rule["expr"] for rule in (*rules("recording"), *rules("alerts"))]
    selectors = {found for expression in expressions for found in _SELECTOR.findall(expression)}
    assert len(selectors) > len(expressions)
    wanted = {f"count({selector})" for selector in selectors if GPU not in selector}
    assert prometheus.unanswered(wanted) == set()


def test_every_rule_is_evaluated_without_an_error(prometheus: Prometheus) -> None:
    found = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(found) == len(rules("recording")) + len(rules("alerts"))
    assert [rule for rule in found if rule["health"] != "ok" or rule.get("lastError")] == []


def test_errors_are_seen_by_their_alert_and_health_by_none(prometheus: Prometheus) -> None:
    """Of the load a few requests are too late: 504."""
    seen = 'ALERTS{alertname="VitrineErrorBudgetBurnsFast"}'
    assert prometheus.unanswered({seen}) == set()
    # A scrape that takes too long raises one of these for a moment.
    calm = f'absent(ALERTS{{alertname=~"{"|".join(HEALTH)}"}})'
    assert prometheus.unanswered({calm}) == set()
    alerts = prometheus.get("alerts")["alerts"]
    notes = [note for alert in alerts for note in alert["annotations"].values()]
    assert not [note for note in notes if "error expanding" in note or "no value" in note]


def test_metrics_behind_a_token_are_scraped_as_the_configuration_shows(tmp_path: Path) -> None:
    tokens, token_file = tmp_path / "tokens", tmp_path / "token"
    tokens.write_text(f"{hashlib.sha256(b'of-prometheus').hexdigest()} metrics")
    token_file.write_text("of-prometheus")
    with (
        serve(tmp_path, workers=1, models="fashion-mnist-mlp", api_tokens_file=tokens) as server,
        watching(server, tmp_path, token_file=token_file) as running,
    ):
        assert running.unanswered({'up{job="vitrine"} == 1'}) == set()
        assert running.unanswered({"vitrine_workers_ready"}) == set()
