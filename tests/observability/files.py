"""The shipped configuration, read."""

import json
from collections.abc import Iterator
from typing import Any

import yaml

from tests.server import CHECKOUT

DEPLOY = CHECKOUT / "deploy"
OBSERVABILITY = DEPLOY / "observability"
RULES = OBSERVABILITY / "rules"
DASHBOARD = OBSERVABILITY / "grafana" / "dashboards" / "vitrine.json"


def read_yaml(name: str) -> dict[str, Any]:
    """A YAML file of the folder `deploy`."""
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return loaded


def rules(kind: str) -> list[dict[str, Any]]:
    """The rules of a file, `recording` or `alerts`."""
    groups = read_yaml(f"observability/rules/{kind}.yml")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def read_dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def panels() -> list[dict[str, Any]]:
    """All panels that are no titles of rows."""
    return [panel for panel in read_dashboard()["panels"] if panel["type"] != "row"]


def panel_queries(rate_interval: str) -> Iterator[tuple[str, str]]:
    """Title and query, as they are with all choices at "All"."""
    variables = {
        f"${variable['name']}": variable["allValue"]
        for variable in read_dashboard()["templating"]["list"]
        if variable["type"] == "query"
    }
    variables["$__rate_interval"] = rate_interval
    for panel in panels():
        for target in panel["targets"]:
            query = target["expr"]
            for name, value in variables.items():
                query = query.replace(name, value)
            yield panel["title"], query
