"""What Grafana's dashboard-linter asks of a dashboard, and what a look at one asks: a list of complaints."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]


def complaints(dashboard: Json) -> list[str]:
    """Empty for a good one."""
    return [*_of_the_whole(dashboard), *_of_variables(dashboard), *_of_layout(dashboard), *_of_panels(dashboard)]


def panels(dashboard: Json) -> list[Json]:
    """All but the rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def _of_the_whole(dashboard: Json) -> Iterator[str]:
    if dashboard["editable"]:
        yield "is editable: what is changed by hand is lost at the next import"
    if not dashboard["description"] or not dashboard["links"]:
        yield "has no description or no links"
    twice = [id for id, count in Counter(panel["id"] for panel in dashboard["panels"]).items() if count > 1]
    if twice:
        yield f"ids that are not unique: {twice}"


def _of_variables(dashboard: Json) -> Iterator[str]:
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    source = variables.get("datasource", {})
    if (source.get("type"), source.get("label")) != ("datasource", "Data Source"):
        yield "needs a variable datasource that is labelled Data Source"
    for name in ("job", "instance"):
        variable = variables.get(name, {})
        if not (variable.get("multi") and variable.get("allValue") == ".+" and variable.get("label") == name):
            yield f"needs a variable {name} of several values, .+ for all"
    for name, variable in variables.items():
        if variable["type"] == "query":
            if variable["refresh"] != 2:
                yield f"{name} is not read anew when the time changes"
            if variable["datasource"]["uid"] != "${datasource}":
                yield f"{name} reads another source"


def _of_layout(dashboard: Json) -> Iterator[str]:
    places = [(panel["title"], panel["gridPos"]) for panel in dashboard["panels"]]
    for title, place in places:
        if place["x"] + place["w"] > 24:
            yield f"{title} is wider than the page"
    for (one, a), (other, b) in combinations(places, 2):
        beside = a["x"] >= b["x"] + b["w"] or b["x"] >= a["x"] + a["w"]
        if not beside and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]:
            yield f"{one} lies over {other}"


def _of_panels(dashboard: Json) -> Iterator[str]:
    for panel in panels(dashboard):
        title = panel["title"]
        if not title or not panel.get("description", "").endswith("."):
            yield f"{title} is not described in a sentence"
        if not panel["fieldConfig"]["defaults"].get("unit"):
            yield f"{title} has no unit"
        if panel["datasource"]["uid"] != "${datasource}" or not panel["targets"]:
            yield f"{title} asks another source, or nothing"
        if len({target["refId"] for target in panel["targets"]}) < len(panel["targets"]):
            yield f"{title} has two queries of one name"
        for target in panel["targets"]:
            yield from (f"{title}: {complaint}" for complaint in _of_expression(target["expr"]))


def _of_expression(expression: str) -> Iterator[str]:
    for selection in re.findall(r"\{([^{}]*)\}", expression):
        for name in ("job", "instance"):
            if not re.search(rf'\b{name}=~"\${name}"', selection):
                yield f"{selection} is not of the chosen {name}"
    for function, window in re.findall(r"\b(rate|irate|increase)\([^\[]*\[([^\]]+)\]", expression):
        if window not in ("$__rate_interval", "1h"):
            yield f"{function} over {window}, not over $__rate_interval"
    for counter in re.finditer(r"\b\w+_(?:total|count|bucket)\b(?=\{)", expression):
        if not re.search(r"(?:rate|irate|increase)\($", expression[: counter.start()]):
            yield f"{counter[0]} is a counter and shown as it is"
