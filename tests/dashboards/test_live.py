"""Every query and every rule, on a real Prometheus that reads a real daemon under load and faults."""

from __future__ import annotations

import json
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.entries import faulty, fixture
from tests.e2e.harness import Daemon
from tests.e2e.wire import Closed
from tests.polling import eventually

from .lint import Json, panels
from .tools import DASHBOARDS, Prometheus, program, prometheus

INTERVAL = "500ms"
WINDOW = "5s"
"""Stands for $__rate_interval: several scrapes."""
SERVERS = {
    "steady": fixture("steady"),
    "shaky": fixture("shaky", "--era", "modern"),
    "noisy": faulty("junk-lines"),
    "missing": {"command": "/does/not/exist"},
    "unwanted": fixture("unwanted", disabled=True),
}
FAULTS_EVERY = 1.0


class Load:
    """A client that calls all it can, good and bad, and now and then has a server end."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _run(self) -> None:
        next_fault = 0.0
        with suppress(Closed), self._daemon.legacy() as client:
            while not self._over.wait(0.02):
                for tool in ("steady__echo", "steady__fail", "shaky__echo", "noisy__trigger", "steady__rpc_error"):
                    client.request("tools/call", {"name": tool, "arguments": {}})
                client.request("tools/call", {"name": "steady__say", "arguments": {"line": "x"}})
                client.request("resources/read", {"uri": "steady:note://one"})
                client.post("tools/call", {"name": "steady__slow", "arguments": {"seconds": 0.4}})
                client.request("tools/list")
                client.send(b"no message")
                if time.monotonic() > next_fault:
                    next_fault = time.monotonic() + FAULTS_EVERY
                    client.post("tools/call", {"name": "shaky__exit", "arguments": {}})
                    self._daemon.control("reload")


@pytest.fixture(scope="module")
def live() -> Iterator[Prometheus]:
    program("prometheus")  # before anything is started
    daemon = Daemon(SERVERS, settings={"metrics": {"listen": "127.0.0.1:0"}})
    with daemon:
        daemon.await_up("steady", "shaky", "noisy")
        told = re.search(r'"daemon\.listening".*"metrics":"([^"]+)"', daemon.log)
        assert told is not None
        with (
            tempfile.TemporaryDirectory() as directory,
            prometheus(Path(directory), told[1], interval=INTERVAL) as found,
            Load(daemon),
        ):
            yield found


def filled(text: str, server: str = ".+") -> str:
    """A query as Grafana would send it, with these choices."""
    chosen = {"$__rate_interval": WINDOW, "$instance": ".+", "$job": "mcp-multi-server", "$server": server}
    for name in sorted(chosen, key=len, reverse=True):
        text = text.replace(name, chosen[name])
    return text


def queries() -> Iterator[Any]:
    for name in ("overview.json", "server.json"):
        for panel in panels(json.loads((DASHBOARDS / name).read_text())):
            for target in panel["targets"]:
                yield pytest.param(target, id=f"{name[:-5]}-{panel['title']}-{target['refId']}")


def variables() -> Iterator[Any]:
    for name in ("overview.json", "server.json"):
        for variable in json.loads((DASHBOARDS / name).read_text())["templating"]["list"]:
            if variable["type"] == "query":
                yield pytest.param(variable["query"], id=f"{name[:-5]}-{variable['name']}")


def soon(check: Callable[[], Any], what: str) -> Any:
    return eventually(check, within=30, what=what)


@pytest.mark.parametrize("query", [*variables()])
def test_every_variable_has_values(live: Prometheus, query: str) -> None:
    found = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
    assert found is not None
    soon(lambda: live.get(f"label/{found[2]}/values", **{"match[]": filled(found[1])}), query)


@pytest.mark.parametrize("target", [*queries()])
def test_every_query_finds_something_that_is_named_as_promised(live: Prometheus, target: Json) -> None:
    expression = filled(target["expr"])

    def numbers() -> list[Json]:
        return [one for one in live.query(expression) if one["value"][1] != "NaN"]

    series = soon(numbers, expression)
    wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    assert any(wanted <= one["metric"].keys() for one in series), "a label that is empty everywhere, or misspelt"


@pytest.mark.parametrize(
    ("server", "state"), [("steady", 6), ("missing", 2), ("unwanted", 0)], ids=["ready", "parked", "disabled"]
)
def test_the_state_is_the_number_that_the_panel_names(live: Prometheus, server: str, state: int) -> None:
    (panel,) = (p for p in panels(json.loads((DASHBOARDS / "server.json").read_text())) if p["title"] == "State")
    expression = filled(panel["targets"][0]["expr"], server)
    (series,) = soon(lambda: live.query(expression), expression)
    assert float(series["value"][1]) == state
    shown = panel["fieldConfig"]["defaults"]["mappings"][0]["options"][str(state)]["text"]
    assert shown == {"steady": "ready", "missing": "parked", "unwanted": "disabled"}[server]


def test_every_rule_is_evaluated_without_a_fault(live: Prometheus) -> None:
    def rules() -> list[Json]:
        found = [rule for group in live.get("rules")["groups"] for rule in group["rules"]]
        return found if found and all(rule["health"] != "unknown" for rule in found) else []

    assert {
        rule["name"]: rule.get("lastError", "") for rule in soon(rules, "rules that were evaluated")
    } == dict.fromkeys(re.findall(r"- (?:alert|record): (\S+)", (DASHBOARDS / "alerts.yml").read_text()), "")


def test_the_daemon_is_read_without_a_fault(live: Prometheus) -> None:
    (target,) = soon(lambda: live.get("targets")["activeTargets"], "a target")
    assert (target["health"], target["lastError"]) == ("up", "")


@pytest.mark.parametrize(
    "metric",
    [
        "job_instance_server:mcp_client_operation_errors:ratio_rate5m",
        "job_instance_server:mcp_client_operation_duration_seconds:p95_rate5m",
    ],
)
def test_every_recorded_series_is_there(live: Prometheus, metric: str) -> None:
    assert {one["metric"]["server"] for one in soon(lambda: live.query(metric), metric)} >= {"steady"}
