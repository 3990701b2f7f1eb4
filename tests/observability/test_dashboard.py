"""The dashboard's JSON, and by promtool whether its queries are PromQL."""

from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from deploy.observability.grafana import dashboard
from tests.observability.files import DASHBOARD, panel_queries, panels, read_dashboard
from tests.observability.test_rules import promtool

COLUMNS = 24


def test_file_is_what_the_panels_say() -> None:
    text = dashboard.text()
    assert text == DASHBOARD.read_text(), (
        "expected the dashboard of its panels: python -m deploy.observability.grafana.dashboard"
    )


def test_every_query_is_promql(tmp_path: Path) -> None:
    queries = [query for _, query in panel_queries("1m")]
    queries += [note["expr"] for note in read_dashboard()["annotations"]["list"]]
    records = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}))
    assert not [query for query in queries if "$" in query]
    promtool("check", "rules", "--lint=none", file)


def test_every_panel_says_what_it_shows() -> None:
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(source["uid"] == "${datasource}" for source in sources)


def test_numbers_and_titles_are_of_one_panel_each() -> None:
    every = read_dashboard()["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    assert len({panel["title"] for panel in every}) == len(every)
    for panel in panels():
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_panels_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in read_dashboard()["panels"]]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= COLUMNS for place in places)
    assert not [pair for pair in combinations(places, 2) if _overlap(*pair)]


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
    below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    return not beside and not below


def test_choices_are_data_source_place_and_model() -> None:
    names = [variable["name"] for variable in read_dashboard()["templating"]["list"]]
    assert names == ["datasource", "namespace", "job", "pod", "model"]
