"""The dashboards as files: they are what makes them, fit Grafana's own schema, and keep the rules of its linter."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from dashboards.generate import texts

from tests.e2e.entries import TESTS, node

from .lint import Json, complaints, panels
from .tools import DASHBOARDS

NAMES = ("overview.json", "server.json")


def load(name: str) -> Json:
    found: Json = json.loads((DASHBOARDS / name).read_text())
    return found


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    """Grafana's types as JSON Schema, by name."""
    made = subprocess.run(
        [node(), str(TESTS / "dashboards" / "schemas.mjs")], capture_output=True, timeout=55, check=False
    )
    assert made.returncode == 0, f"{made.stderr.decode()[:1000]}\nis tests/node_modules there? run `npm ci` in tests/"
    found: dict[str, Any] = json.loads(made.stdout)
    return found


def faults(dashboard: Json, schemas: dict[str, Any]) -> list[str]:
    """Where a dashboard is none of Grafana's."""

    def check(name: str, value: object, where: str) -> None:
        wrong = jsonschema.Draft7Validator(schemas[name]).iter_errors(value)
        found.extend(f"{where}: {name} {list(fault.absolute_path)}: {fault.message[:200]}" for fault in wrong)

    found: list[str] = []
    check("dashboard", dashboard, "the whole")
    for panel in dashboard["panels"]:
        kind, title = panel["type"], panel["title"]
        check("row" if kind == "row" else "panel", panel, title)
        if kind != "row":
            check(f"{kind} options", panel["options"], title)
        if f"{kind} custom" in schemas:
            check(f"{kind} custom", panel["fieldConfig"]["defaults"]["custom"], title)
    return found


def test_the_files_are_what_makes_them() -> None:
    assert {name: (DASHBOARDS / name).read_text() for name in NAMES} == texts(), "run python -m dashboards.generate"


@pytest.mark.parametrize("name", NAMES)
def test_grafanas_own_schema_accepts_the_dashboard(name: str, schemas: dict[str, Any]) -> None:
    assert faults(load(name), schemas) == []


def _set(path: str, value: object) -> Callable[[Json], None]:
    """A change to the first panel that is no row; the last word of `path` is set."""

    def change(dashboard: Json) -> None:
        at: Any = panels(dashboard)[0]
        *way, last = path.split(".")
        for word in way:
            at = at[word]
        at[last] = value

    return change


@pytest.mark.parametrize(
    "spoil",
    [
        _set("gridPos.w", "6"),
        _set("options.graphModes", "none"),
        _set("options.graphMode", "sparkline"),
        _set("fieldConfig.defaults.thresholds.mode", "relative"),
        _set("fieldConfig.defaults.colour", {}),
        lambda dashboard: dashboard.update(refrsh="30s"),
    ],
)
def test_the_schema_is_one_that_refuses(spoil: Callable[[Json], None], schemas: dict[str, Any]) -> None:
    bad = copy.deepcopy(load("overview.json"))
    spoil(bad)
    assert faults(bad, schemas) != []


@pytest.mark.parametrize("name", NAMES)
def test_the_linter_has_nothing_to_say(name: str) -> None:
    assert complaints(load(name)) == []


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (_set("description", ""), "not described"),
        (_set("fieldConfig.defaults.unit", ""), "no unit"),
        (_set("gridPos.w", 20), "lies over"),
        (_set("targets", [{"refId": "A", "expr": 'up{instance=~"$instance"}'}]), "chosen job"),
        (_set("targets", [{"refId": "A", "expr": "rate(x_total[5m])"}]), "not over $__rate_interval"),
        (_set("targets", [{"refId": "A", "expr": 'x_total{job=~"$job", instance=~"$instance"}'}]), "is a counter"),
        (lambda dashboard: dashboard.update(editable=True), "editable"),
        (lambda dashboard: dashboard["templating"]["list"].pop(0), "Data Source"),
    ],
)
def test_the_linter_is_one_that_complains(spoil: Callable[[Json], Any], complaint: str) -> None:
    bad = copy.deepcopy(load("overview.json"))
    spoil(bad)
    assert [found for found in complaints(bad) if complaint in found]


def test_the_dashboards_lead_to_each_other() -> None:
    whole = {load(name)["uid"]: load(name) for name in NAMES}
    targets = {
        uid: {link["url"].removeprefix("/d/").partition("?")[0] for link in one["links"]} for uid, one in whole.items()
    }
    assert all(uids <= whole.keys() for uids in targets.values())
    assert all(targets.values())
