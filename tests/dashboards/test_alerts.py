"""The alert rules: read and tried by promtool, each with a runbook and cases in which it fires and does not."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from .tools import DASHBOARDS, ROOT, promtool

RULES = (DASHBOARDS / "alerts.yml").read_text()
CASES = (DASHBOARDS / "alerts_test.yml").read_text()
ALERTS = re.findall(r"- alert: (\w+)", RULES)
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text()


def body_of(alert: str) -> str:
    """The text of one rule."""
    return re.split(r"- (?:alert|record): ", RULES.partition(f"- alert: {alert}\n")[2])[0]


def outcomes(alert: str) -> Iterator[bool]:
    """For each case of an alert, whether it is expected to fire."""
    for found in re.finditer(rf"alertname: {alert}\b(, exp_alerts: \[\])?", CASES):
        yield found[1] is None


def test_promtool_accepts_the_rules() -> None:
    assert f"{RULES.count('- alert: ') + RULES.count('- record: ')} rules found" in promtool(
        "check", "rules", DASHBOARDS / "alerts.yml"
    )


def test_alerts_fire_and_keep_silent_where_they_should() -> None:
    assert "SUCCESS" in promtool("test", "rules", DASHBOARDS / "alerts_test.yml")


def test_promtool_accepts_the_example_of_a_config() -> None:
    assert "FAILED" not in promtool("check", "config", DASHBOARDS / "prometheus.yml")


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(alert: str) -> None:
    assert set(outcomes(alert)) == {True, False}


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_says_what_it_is_and_leads_to_its_runbook(alert: str) -> None:
    body = body_of(alert)
    assert re.search(r"severity: (critical|warning|info)\n", body)
    assert re.search(r"summary: \w.+\.\n", body)
    assert "description: " in body
    assert f"runbook_url: docs/runbooks.md#{alert.lower()}" in body
    runbook = re.split(r"\n#{1,4} ", RUNBOOKS.partition(f"\n#### {alert}\n")[2])[0]
    for part in ("Means:", "Look at:", "Do:"):
        assert part in runbook, f"the runbook of {alert} lacks {part!r}"


def test_every_runbook_is_some_alerts() -> None:
    assert sorted(re.findall(r"\n#### (MCP\w+)\n", RUNBOOKS)) == sorted(ALERTS)
