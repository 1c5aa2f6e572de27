"""Grafana's Classic JSON in the few forms that our dashboards need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
SCHEMA_VERSION = 42
COLUMNS = 24
RATE = "$__rate_interval"
GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE, PLAIN = "green", "yellow", "orange", "red", "blue", "purple", "text"

KEPT = "${datasource:queryparam}&${job:queryparam}&${instance:queryparam}"
"""What a link takes along; which server, or all, is another matter on the other page."""

LEGEND: Json = {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []}
TOOLTIP: Json = {"mode": "multi", "sort": "desc"}


@dataclass(frozen=True)
class Query:
    """One PromQL expression and how its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """What a panel shows. `below`: thresholds as (from value, colour), the first from -∞ (None)."""

    kind: str
    title: str
    about: str
    unit: str
    queries: Sequence[Query]
    width: int
    height: int = 8
    below: Sequence[tuple[float | None, str]] = ((None, GREEN),)
    mappings: Sequence[Json] = ()
    options: Json = field(default_factory=dict)
    custom: Json = field(default_factory=dict)
    defaults: Json = field(default_factory=dict)
    overrides: Sequence[Json] = ()
    transformations: Sequence[Json] = ()


@dataclass(frozen=True)
class Row:
    """A heading and the panels below it, left to right."""

    title: str
    panels: Sequence[Panel]


def values(texts: Mapping[float, tuple[str, str]]) -> Json:
    """A mapping from numbers to texts with colours."""
    options = {
        f"{number:g}": {"text": text, "color": colour, "index": index}
        for index, (number, (text, colour)) in enumerate(texts.items())
    }
    return {"type": "value", "options": options}


def stat(title: str, about: str, unit: str, *queries: Query, width: int, name: bool = False, **rest: Any) -> Panel:
    """The last value, large. `name`: show what the series is called instead."""
    options = {
        "colorMode": "background" if "below" in rest or "mappings" in rest else "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "name" if name else "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    return Panel("stat", title, about, unit, queries, width, 4, options=options, **rest)


def graph(title: str, about: str, unit: str, *queries: Query, width: int = 8, stacked: bool = False) -> Panel:
    """Lines over time."""
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        # Counts that are all 0 would get an axis up to 100.
        **({"axisSoftMax": 1} if unit == "short" else {}),
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
    }
    options = {"legend": LEGEND, "tooltip": TOOLTIP}
    return Panel("timeseries", title, about, unit, queries, width, custom=custom, defaults={"min": 0}, options=options)


def timeline(title: str, about: str, *queries: Query, mapping: Json, height: int = 8) -> Panel:
    """Which of several states, over time; a row a series."""
    options = {
        "mergeValues": True,
        "showValue": "auto",
        "alignValue": "left",
        "rowHeight": 0.85,
        "legend": LEGEND,
        "tooltip": {"mode": "single", "sort": "none"},
    }
    custom = {"fillOpacity": 80, "lineWidth": 0}
    return Panel(
        "state-timeline", title, about, "short", queries, COLUMNS, height,
        mappings=[mapping], options=options, custom=custom,
    )  # fmt: skip


def dashboard(
    uid: str, title: str, about: str, *, variables: Sequence[Json], links: Sequence[Json], rows: Sequence[Row]
) -> Json:
    """The whole, laid out."""
    return {
        "uid": uid,
        "title": title,
        "description": about,
        "tags": ["mcp", "mcp-multi-server"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "preload": False,
        "annotations": {"list": []},
        "links": list(links),
        "templating": {"list": list(variables)},
        "panels": _laid_out(rows),
    }


def source_variable() -> Json:
    """Which Prometheus."""
    return {
        "name": "datasource",
        "label": "Data Source",
        "type": "datasource",
        "query": "prometheus",
        "current": {"text": "default", "value": "default"},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
    }


def variable(name: str, query: str, *, many: bool = True) -> Json:
    """The values of a label; `many`: several, or all, can be chosen."""
    every: Json = {"allValue": ".+", "current": {"text": ["All"], "value": ["$__all"]}} if many else {}
    return {
        "name": name,
        "label": name,
        "type": "query",
        "datasource": SOURCE,
        "query": query,
        "refresh": 2,
        "multi": many,
        "includeAll": many,
        "sort": 1,
        "hide": 0,
        "options": [],
        "regex": "",
        "skipUrlSync": False,
        **every,
    }


def link(title: str, uid: str, about: str) -> Json:
    """A button to another dashboard, of the same daemons and time."""
    return {
        "title": title,
        "type": "link",
        "url": f"/d/{uid}?{KEPT}",
        "tooltip": about,
        "icon": "dashboard",
        "tags": [],
        "asDropdown": False,
        "includeVars": False,
        "keepTime": True,
        "targetBlank": False,
    }


def _laid_out(rows: Sequence[Row]) -> list[Json]:
    """Rows below each other, their panels side by side and wrapped at 24 columns; ids in that order."""
    found: list[Json] = []
    y = 0
    for row in rows:
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
        found.append(
            {
                "id": len(found) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": place,
                "panels": [],
            }
        )
        y, x, tallest = y + 1, 0, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                y, x, tallest = y + tallest, 0, 0
            place = {"h": panel.height, "w": panel.width, "x": x, "y": y}
            found.append(_panel(panel, len(found) + 1, place))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return found


def _panel(panel: Panel, id: int, place: Json) -> Json:
    instant = panel.kind in ("stat", "table")
    steps = [{"value": start, "color": colour} for start, colour in panel.below]
    defaults: Json = {
        "unit": panel.unit,
        "mappings": list(panel.mappings),
        "thresholds": {"mode": "absolute", "steps": steps},
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "custom": panel.custom,
        **panel.defaults,
    }
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": query.expr,
            "legendFormat": query.legend or "__auto",
            "instant": instant,
            "range": not instant,
            "format": "table" if panel.kind == "table" else "time_series",
        }
        for number, query in enumerate(panel.queries)
    ]
    found: Json = {
        "id": id,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": list(panel.overrides)},
        "options": panel.options,
        "targets": targets,
    }
    return found | ({"transformations": list(panel.transformations)} if panel.transformations else {})
