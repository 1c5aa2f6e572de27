"""What a real daemon tells Prometheus of real servers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.polling import eventually

from .entries import Entry, fixture
from .harness import Daemon

OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
SERVERS: dict[str, Entry] = {
    "one": fixture("one"),
    "two": fixture("two", "--era", "modern"),
    "missing": {"command": "/does/not/exist"},
    "off": fixture("off", disabled=True),
}


def parse_openmetrics(page: str) -> Iterator[Metric]:
    families: Iterator[Metric] = text_string_to_metric_families(page)  # type: ignore[no-untyped-call]  # its omission
    return families


def scrape(daemon: Daemon, *, accept: str = "text/plain") -> str:
    """The page, as Prometheus gets it."""
    told = re.search(r'"daemon\.listening".*"metrics":"([^"]+)"', daemon.log)
    assert told is not None
    request = urllib.request.Request(f"http://{told[1]}/metrics", headers={"Accept": accept})
    with OPEN(request, timeout=20) as answer:
        page: bytes = answer.read()
    return page.decode()


def value(page: str, name: str, **labels: str) -> float | None:
    """One number, or None where there is no such series."""
    found = [s.value for family in parse_text(page) for s in family.samples if s.name == name and s.labels == labels]
    assert len(found) < 2
    return float(found[0]) if found else None


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """One that was used, by good and bad requests."""
    with Daemon(SERVERS, settings={"metrics": {"listen": "127.0.0.1:0"}}) as started:
        started.await_up("one", "two")
        with started.legacy() as client:
            for tool in ("one__echo", "two__echo", "one__fail", "one__rpc_error"):
                client.request("tools/call", {"name": tool, "arguments": {}})
            client.send(b"no message")
            client.result("tools/list")
        yield started


def test_promtool_is_content_with_the_page_of_a_used_daemon(daemon: Daemon) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        assert not os.environ.get("CI"), "CI must have promtool (Debian: prometheus)"
        pytest.skip("promtool is not installed (Debian: prometheus)")
    said = subprocess.run(
        [promtool, "check", "metrics"], input=scrape(daemon).encode(), capture_output=True, timeout=20, check=False
    )
    assert (said.returncode, said.stdout + said.stderr) == (0, b"")


def test_openmetrics_says_the_same_as_text(daemon: Daemon) -> None:
    page = scrape(daemon, accept="application/openmetrics-text;version=1.0.0")
    names = {sample.name for family in parse_openmetrics(page) for sample in family.samples}
    assert names == {sample.name for family in parse_text(scrape(daemon)) for sample in family.samples}


def test_requests_are_counted_by_server_and_outcome(daemon: Daemon) -> None:
    page = scrape(daemon)
    calls = {"mcp_method_name": "tools/call", "network_transport": "pipe"}
    for server, error in (("one", ""), ("two", ""), ("one", "tool_error"), ("one", "4242")):
        count = value(page, "mcp_client_operation_duration_seconds_count", server=server, error_type=error, **calls)
        assert count == 1
    assert value(page, "mcp_multi_server_rejected_total", reason="invalid_message") == 1


def test_memory_and_cpu_are_of_servers_that_have_a_process(daemon: Daemon) -> None:
    page = scrape(daemon)
    memory = {name: value(page, "mcp_multi_server_process_resident_memory_bytes", server=name) for name in SERVERS}
    assert memory["missing"] is memory["off"] is None
    assert memory["one"] is not None and 1 << 20 < memory["one"] < 1 << 30
    assert value(page, "mcp_multi_server_process_cpu_seconds_total", server="two") is not None


def test_states_are_those_of_the_status(daemon: Daemon) -> None:
    page = scrape(daemon)
    for name in SERVERS:
        assert value(page, "mcp_multi_server_state", server=name, state=daemon.server(name)["state"]) == 1


def test_a_server_that_is_removed_from_the_config_vanishes(daemon: Daemon) -> None:
    daemon.rewrite(SERVERS | {"extra": fixture("extra")})
    daemon.reload()
    daemon.await_up("extra")
    assert value(scrape(daemon), "mcp_multi_server_up", server="extra") == 1
    daemon.rewrite(SERVERS)
    daemon.reload()
    eventually(lambda: 'server="extra"' not in scrape(daemon), what="a page without the server")
    assert value(scrape(daemon), "mcp_multi_server_up", server="two") == 1
