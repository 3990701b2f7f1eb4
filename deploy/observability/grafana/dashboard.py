"""Lays the panels out: run `python -m deploy.observability.grafana.dashboard` after a change."""

import json
from pathlib import Path
from typing import Any

from deploy.observability.grafana.panels import ROWS, Panel
from deploy.observability.grafana.queries import SERVER, SERVICE

DASHBOARD = Path(__file__).with_name("dashboards") / "vitrine.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
ROW_HEIGHT = 1

_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"},
    "heatmap": {"calculate": False, "yAxis": {"unit": "s"}},
    "table": {"showHeader": True},
}
_TARGETS: dict[str, dict[str, Any]] = {
    "table": {"instant": True, "format": "table"},
    "heatmap": {"format": "heatmap"},
}


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS[panel.kind],
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "expr": query,
                "legendFormat": legend,
                **_TARGETS.get(panel.kind, {}),
            }
            for index, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    """Unit, colours and the style of lines."""
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.limit is not None:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.limit}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    if panel.kind == "timeseries":
        defaults["custom"] = {"showPoints": "never"}
        if panel.is_stacked:
            stacking = {"mode": "normal", "group": "A"}
            defaults["custom"] |= {"stacking": stacking, "fillOpacity": 30}
        if panel.limit is not None:
            defaults["custom"]["thresholdsStyle"] = {"mode": "line"}
    return defaults


def _panels() -> list[dict[str, Any]]:
    """All rows and panels with their numbers and places."""
    placed: list[dict[str, Any]] = []
    y = 0
    for row in ROWS:
        place = {"x": 0, "y": y, "w": COLUMNS, "h": ROW_HEIGHT}
        number = len(placed) + 1
        placed.append({"id": number, "type": "row", "title": row.title, "gridPos": place})
        x, y, line_height = 0, y + ROW_HEIGHT, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, line_height = 0, y + line_height, 0
            placed.append(_panel(panel, len(placed) + 1, x, y))
            x, line_height = x + panel.width, max(line_height, panel.height)
        y += line_height
    return placed


def _choice(label: str, among: str) -> dict[str, Any]:
    """A variable of several values of a label; "All" also matches what lacks the label."""
    query = f"label_values(vitrine_model_info{among}, {label})"
    return {
        "name": label,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": f"variable-{label}"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def dashboard() -> dict[str, Any]:
    """The whole dashboard."""
    variables = [
        {"name": "datasource", "label": "data source", "type": "datasource", "query": "prometheus"},
        _choice("namespace", ""),
        _choice("job", '{namespace=~"$namespace"}'),
        _choice("pod", f"{{{SERVICE}}}"),
        _choice("model", f"{{{SERVER}}}"),
    ]
    alerts = {
        "name": "Alerts",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Vitrine.*", alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{pod}} {{model}}",
    }
    return {
        "uid": "vitrine",
        "title": "Vitrine",
        "description": "Traffic, latency, errors, saturation and predictions of the model server.",
        "tags": ["vitrine"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "annotations": {"list": [alerts]},
        "templating": {"list": variables},
        "panels": _panels(),
    }


def text() -> str:
    """The dashboard's file."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    DASHBOARD.write_text(text())
