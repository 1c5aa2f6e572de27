"""What Prometheus reads: read back with the official parsers, of both formats, and judged by promtool."""

import asyncio
import importlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from mcp_multi_server.core.events import (
    ConfigReloaded,
    Event,
    InternalError,
    InvalidLine,
    Probed,
    Rejected,
    RequestDone,
    ServerRemoved,
    StateChanged,
    Stderr,
)
from mcp_multi_server.core.lifecycle import Failure, Reason, State
from mcp_multi_server.core.processes import ProcessUsage
from mcp_multi_server.telemetry import metrics as metrics_module
from mcp_multi_server.telemetry.counts import BOUNDS, METHODS, REJECTIONS, RESTART_REASONS
from mcp_multi_server.telemetry.metrics import (
    ERRORS_PER_SERVER,
    OTHER,
    REASONS_IN_ALL,
    ROWS_CAP,
    TOOLS_IN_ALL,
    TOOLS_PER_SERVER,
    FleetSample,
    LoopLag,
    Metrics,
    ServerSample,
)

READY = ServerSample(
    name="git",
    state="ready",
    entered=1_790_000_000.25,
    failures=0,
    next_attempt=None,
    transport="stdio",
    protocol_version="2026-07-28",
    pid=42,
    in_flight=3,
    entries={"tools": 12, "prompts": 1, "resources": 2, "templates": 0},
    refreshed=1_790_000_001.5,
)
AWAY = replace(
    READY,
    name="web",
    state="backoff",
    failures=4,
    next_attempt=1_790_000_100.5,
    transport="http",
    pid=None,
    refreshed=None,
)
OFF = replace(AWAY, name="off", state="disabled", failures=0, next_attempt=None)

USED = {READY.pid: ProcessUsage(resident_bytes=50_000_000, cpu_seconds=1.25, runnable=False)}

Labels = dict[str, str]


class Scrape:
    """The samples of one exposition."""

    def __init__(self, text: bytes, content_type: str) -> None:
        self.text = text.decode()
        parse = parse_openmetrics if content_type.startswith("application/openmetrics-text") else parse_text
        self.families = [*parse(self.text)]
        self.samples = [sample for family in self.families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        (found,) = (s.value for s in self.samples if s.name == name and s.labels == labels)
        return float(found)

    def all(self, name: str, **labels: str) -> list[tuple[Labels, float]]:
        return [(s.labels, s.value) for s in self.samples if s.name == name and labels.items() <= s.labels.items()]


def fleet(*servers: ServerSample, **changes: Any) -> FleetSample:
    sample = FleetSample(
        servers=servers,
        collisions={"tool": 2, "prompt": 0},
        clients=5,
        loop_lag=0.125,
        last_reload_ok=True,
        last_reload_success=1_790_000_002.0,
        version="2.0.0",
    )
    return replace(sample, **changes)


def metrics_of(*servers: ServerSample, events: Iterable[Event] = ()) -> Metrics:
    metrics = Metrics(lambda: fleet(*servers), USED.get)
    for event in events:
        metrics(event)
    return metrics


def scrape(metrics: Metrics, *, openmetrics: bool = True) -> Scrape:
    return Scrape(*asyncio.run(metrics.render(openmetrics)))


def done(
    server: str = "git",
    tool: str = "log",
    *,
    error: str = "",
    method: str = "tools/call",
    transport: str = "stdio",
    seconds: float = 0.03,
) -> RequestDone:
    return RequestDone(method, server, tool, transport, seconds, error)


def changed(old: State, new: State, reason: Reason | None = None) -> StateChanged:
    return StateChanged("git", old, new, None if reason is None else Failure(reason, ""), 0, None)


LIVELY: list[Event] = [
    done(),
    done(error="tool_error", seconds=400.0),
    done("web", "fetch", transport="http", error="timeout"),
    done("", "", method="tools/list"),
    changed(State.CONNECTING, State.READY),
    changed(State.READY, State.BACKOFF, Reason.EXIT),
    Probed("git", True),
    Stderr("git", 42, "x"),
    InvalidLine("web", "x"),
    Rejected("uid", None),
    ConfigReloaded("applied", 1, (), {}),
    InternalError("x", "y"),
]


@pytest.mark.parametrize("openmetrics", [False, True])
def test_both_formats_hold_every_series_of_the_contract(openmetrics: bool) -> None:
    page = scrape(metrics_of(READY, AWAY, events=LIVELY), openmetrics=openmetrics)
    shapes = {(s.name, *sorted(s.labels)) for s in page.samples}
    per_server = [
        ("up",),
        ("state", "state"),
        ("state_entered_timestamp_seconds",),
        ("consecutive_failures",),
        ("next_attempt_timestamp_seconds",),
        ("connect_attempts_total", "outcome"),
        ("restarts_total", "reason"),
        ("health_checks_total", "outcome"),
        ("catalog_entries", "kind"),
        ("catalog_last_refresh_success_timestamp_seconds",),
        ("requests_in_flight",),
        ("stderr_lines_total",),
        ("invalid_lines_total",),
        ("process_resident_memory_bytes",),
        ("process_cpu_seconds_total",),
        ("info", "transport", "protocol_version"),
        ("tool_calls_total", "tool", "outcome"),
    ]
    daemon = [
        ("collisions", "kind"),
        ("clients",),
        ("client_requests_total", "method", "outcome"),
        ("rejected_total", "reason"),
        ("config_reloads_total", "outcome"),
        ("config_last_reload_successful",),
        ("config_last_reload_success_timestamp_seconds",),
        ("event_loop_lag_seconds",),
        ("internal_errors_total",),
        ("build_info", "version", "python_version"),
    ]
    wanted = {(f"mcp_multi_server_{name}", *sorted(["server", *labels])) for name, *labels in per_server}
    wanted |= {(f"mcp_multi_server_{name}", *sorted(labels)) for name, *labels in daemon}
    traffic = ("error_type", "mcp_method_name", "network_transport", "server")
    wanted |= {
        ("mcp_client_operation_duration_seconds_count", *traffic),
        ("mcp_client_operation_duration_seconds_sum", *traffic),
        ("mcp_client_operation_duration_seconds_bucket", *sorted(["le", *traffic])),
    }
    ours = {shape for shape in shapes if shape[0].startswith(("mcp_multi_server_", "mcp_client_"))}
    assert ours == wanted
    assert ("process_cpu_seconds_total",) in shapes


def test_the_operators_page_explains_every_metric_with_its_labels() -> None:
    told = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(mcp_\w+)` \| (\w+)[^|]*\| ([^|]*)\|", told, re.MULTILINE)
    page = scrape(metrics_of(READY, AWAY, events=LIVELY))
    exposed = set[tuple[str, ...]]()
    for family in page.families:
        if family.name.startswith("mcp_"):
            name = {"counter": "_total", "info": "_info"}.get(family.type, "")
            labels = {label for sample in family.samples for label in sample.labels} - {"server", "le"}
            exposed.add((family.name + name, "gauge" if family.type == "info" else family.type, *sorted(labels)))
    assert {row[:2] for row in rows} == {row[:2] for row in exposed}
    for name, _, *needed in exposed:
        (row,) = (labelled for documented_name, _, labelled in rows if documented_name == name)
        assert [label for label in needed if f"`{label}`" not in row] == [], f"labels of {name}"


def test_state_is_what_the_sample_says() -> None:
    page = scrape(metrics_of(READY, AWAY, OFF))
    prefix = "mcp_multi_server_"
    assert [page.value(f"{prefix}up", server=name) for name in ("git", "web", "off")] == [1, 0, 0]
    assert page.value(f"{prefix}state", server="off", state="disabled") == 1
    assert page.value(f"{prefix}state_entered_timestamp_seconds", server="git") == READY.entered
    assert page.value(f"{prefix}consecutive_failures", server="web") == 4
    assert page.all(f"{prefix}next_attempt_timestamp_seconds") == [({"server": "web"}, 1_790_000_100.5)]
    assert page.all(f"{prefix}process_resident_memory_bytes") == [({"server": "git"}, 50_000_000)]
    assert page.all(f"{prefix}process_cpu_seconds_total") == [({"server": "git"}, 1.25)]
    assert page.value(f"{prefix}requests_in_flight", server="git") == 3
    assert page.value(f"{prefix}catalog_entries", server="git", kind="tools") == 12
    assert page.value(f"{prefix}info", server="web", transport="http", protocol_version="2026-07-28") == 1
    assert page.value(f"{prefix}collisions", kind="tool") == 2
    assert page.value(f"{prefix}event_loop_lag_seconds") == 0.125


@pytest.mark.parametrize("state", list(State))
def test_a_server_is_in_exactly_one_state_and_up_means_callable(state: State) -> None:
    page = scrape(metrics_of(replace(READY, state=state.value)))
    assert Counter(value for _, value in page.all("mcp_multi_server_state")) == {1.0: 1, 0.0: len(State) - 1}
    assert page.value("mcp_multi_server_up", server="git") == (state in (State.READY, State.DEGRADED))


def test_known_labels_are_zero_before_anything_happened() -> None:
    page = scrape(metrics_of(READY))
    counted = [
        *page.all("mcp_multi_server_restarts_total", server="git"),
        *page.all("mcp_multi_server_connect_attempts_total", server="git"),
        *page.all("mcp_multi_server_health_checks_total", server="git"),
        *page.all("mcp_multi_server_config_reloads_total"),
        *page.all("mcp_multi_server_client_requests_total"),
        *page.all("mcp_multi_server_rejected_total"),
    ]
    assert len(counted) == len(RESTART_REASONS) + 2 + 2 + 4 + 2 * len(METHODS) + len(REJECTIONS)
    assert {value for _, value in counted} == {0.0}


@pytest.mark.parametrize(
    ("event", "attempt", "restart"),
    [
        (changed(State.CONNECTING, State.READY), "ok", None),
        (changed(State.CONNECTING, State.BACKOFF, Reason.START_TIMEOUT), "failed", None),
        (changed(State.CONNECTING, State.PARKED, Reason.UNAUTHORIZED), "failed", None),
        (changed(State.CONNECTING, State.PARKED, Reason.CONFIG), None, None),
        (changed(State.READY, State.BACKOFF, Reason.EXIT), None, "exit"),
        (changed(State.DEGRADED, State.BACKOFF, Reason.HANG), None, "hang"),
        (changed(State.READY, State.PARKED, Reason.FLAPPING), None, "flapping"),
        (changed(State.READY, State.STOPPING), None, None),
        (changed(State.DEGRADED, State.READY), None, None),
        (changed(State.BACKOFF, State.CONNECTING), None, None),
    ],
)
def test_a_change_of_state_counts_as_attempt_or_restart(
    event: StateChanged, attempt: str | None, restart: str | None
) -> None:
    page = scrape(metrics_of(READY, events=[event]))
    attempts = [labels["outcome"] for labels, n in page.all("mcp_multi_server_connect_attempts_total") if n]
    restarts = [labels["reason"] for labels, n in page.all("mcp_multi_server_restarts_total") if n]
    assert (attempts, restarts) == ([attempt] if attempt else [], [restart] if restart else [])


def test_events_are_counted_where_they_belong() -> None:
    events = [*LIVELY, Probed("git", False), Stderr("git", 1, "y"), ConfigReloaded("rejected", 1, (), {})]
    page = scrape(metrics_of(READY, AWAY, events=events))
    prefix = "mcp_multi_server_"
    assert page.value(f"{prefix}stderr_lines_total", server="git") == 2
    assert page.value(f"{prefix}invalid_lines_total", server="web") == 1
    assert page.value(f"{prefix}health_checks_total", server="git", outcome="failed") == 1
    assert page.value(f"{prefix}rejected_total", reason="uid") == 1
    assert page.value(f"{prefix}config_reloads_total", outcome="rejected") == 1
    assert page.value(f"{prefix}internal_errors_total") == 1
    assert page.value(f"{prefix}client_requests_total", method="tools/call", outcome="ok") == 1
    assert page.value(f"{prefix}client_requests_total", method="tools/call", outcome="error") == 2
    assert page.value(f"{prefix}client_requests_total", method="tools/list", outcome="ok") == 1
    assert page.value(f"{prefix}tool_calls_total", server="git", tool="log", outcome="error") == 1


def test_what_the_daemon_answers_itself_is_no_operation_of_a_client() -> None:
    page = scrape(metrics_of(READY, events=[done("", "", method="tools/list")]))
    assert page.all("mcp_client_operation_duration_seconds_count") == []


@given(st.lists(st.floats(0.0, 1000.0), min_size=1, max_size=30))
def test_a_duration_is_in_every_bucket_that_reaches_so_far(durations: list[float]) -> None:
    page = scrape(metrics_of(READY, events=[done(seconds=seconds) for seconds in durations]))
    buckets = {float(labels["le"]): n for labels, n in page.all("mcp_client_operation_duration_seconds_bucket")}
    expected = {bound: sum(seconds <= bound for seconds in durations) for bound in (*BOUNDS, float("inf"))}
    assert buckets == expected
    ((_, total),) = page.all("mcp_client_operation_duration_seconds_sum")
    assert total == pytest.approx(sum(durations))


@pytest.mark.parametrize(("transport", "network"), [("stdio", "pipe"), ("http", "tcp"), ("sse", "tcp")])
def test_the_network_is_told_in_opentelemetrys_words(transport: str, network: str) -> None:
    page = scrape(metrics_of(READY, events=[done(transport=transport, error="timeout")]))
    ((labels, count),) = page.all("mcp_client_operation_duration_seconds_count")
    assert count == 1
    assert labels == {
        "server": "git",
        "mcp_method_name": "tools/call",
        "error_type": "timeout",
        "network_transport": network,
    }


def test_a_process_that_is_gone_has_no_series() -> None:
    page = scrape(Metrics(lambda: fleet(READY), lambda pid: None))
    assert page.all("mcp_multi_server_process_resident_memory_bytes") == []
    assert page.all("mcp_multi_server_process_cpu_seconds_total") == []


def test_every_reason_is_counted_that_ends_a_connection() -> None:
    events = [changed(State.READY, State.BACKOFF, reason) for reason in Reason]
    restarts = scrape(metrics_of(READY, events=events)).all("mcp_multi_server_restarts_total")
    assert {labels["reason"]: n for labels, n in restarts} == dict.fromkeys(map(str, Reason), 1.0)


def source_of(*modules: str) -> str:
    return "".join(
        Path(importlib.import_module(f"mcp_multi_server.{name}").__file__ or "").read_text() for name in modules
    )


def test_every_word_that_the_daemon_counts_is_zero_at_the_start() -> None:
    clients = source_of("clients.gateway", "clients.session")
    assert set(re.findall(r'(?:_reject|Rejected|_turn_away)\((?:connection, )?"(\w+)"', clients)) == set(REJECTIONS)
    control = set(re.findall(r'case "(daemon/[\w-]+)"', source_of("daemon.control")))
    assert control == {method for method in METHODS if method.startswith("daemon/")}


def test_a_removed_server_vanishes() -> None:
    servers = [READY, AWAY]
    metrics = Metrics(lambda: fleet(*servers), USED.get)
    for event in LIVELY:
        metrics(event)
    assert '"git"' in scrape(metrics).text
    servers.remove(READY)
    metrics(ServerRemoved("git"))
    assert '"git"' not in scrape(metrics).text


def test_a_late_answer_brings_no_removed_server_back_and_counts_anew_when_it_returns() -> None:
    servers = [READY]
    metrics = Metrics(lambda: fleet(*servers), USED.get)
    for _ in range(3):
        metrics(done())
    servers.clear()
    metrics(ServerRemoved("git"))
    metrics(done())
    assert '"git"' not in scrape(metrics).text
    servers.append(READY)
    metrics(done())
    page = scrape(metrics)
    assert page.value("mcp_multi_server_tool_calls_total", server="git", tool="log", outcome="ok") == 1


def test_tools_of_one_server_are_capped() -> None:
    count = TOOLS_PER_SERVER + 25
    page = scrape(metrics_of(READY, events=[done(tool=f"t{number}") for number in range(count)]))
    calls = {labels["tool"]: n for labels, n in page.all("mcp_multi_server_tool_calls_total", outcome="ok")}
    assert len(calls) == TOOLS_PER_SERVER + 1
    assert calls[OTHER] == 25


def test_tools_of_all_servers_are_capped() -> None:
    servers = [replace(READY, name=f"s{number}") for number in range(30)]
    events = [done(server.name, f"t{number}") for server in servers for number in range(45)]
    page = scrape(metrics_of(*servers, events=events))
    calls = page.all("mcp_multi_server_tool_calls_total", outcome="ok")
    named = [labels for labels, _ in calls if labels["tool"] != OTHER]
    assert TOOLS_IN_ALL - len(servers) <= len(named) <= TOOLS_IN_ALL
    assert sum(n for _, n in calls) == len(events)


def test_error_types_of_a_server_are_capped_and_harm_no_other() -> None:
    rogue = [done(error=str(code)) for code in range(-32000, -31900)]
    page = scrape(metrics_of(READY, AWAY, events=[*rogue, done("web", "x", error="timeout")]))
    counts = page.all("mcp_client_operation_duration_seconds_count", server="git")
    assert len(counts) == ERRORS_PER_SERVER + 1
    assert sum(n for _, n in counts) == len(rogue)
    assert [
        labels["error_type"] for labels, _ in page.all("mcp_client_operation_duration_seconds_count", server="web")
    ] == ["timeout"]


def test_methods_and_reasons_of_strangers_make_no_series_of_their_own() -> None:
    strange = [done("", "", method=f"evil/{number}") for number in range(500)]
    rejected = [Rejected(f"r{number}") for number in range(100)]
    page = scrape(metrics_of(READY, events=[*strange, *rejected]))
    assert page.value("mcp_multi_server_client_requests_total", method=OTHER, outcome="ok") == 500
    assert "evil" not in page.text
    assert page.value("mcp_multi_server_rejected_total", reason=OTHER) == 100 - (REASONS_IN_ALL - len(REJECTIONS))


@pytest.mark.parametrize("openmetrics", [False, True])
@pytest.mark.parametrize(
    ("tool", "label"),
    [
        ("x" * 100_000, "x" * 64),
        ('a"b\\c', 'a"b\\c'),
        ("a\nb\x00c\u202e", r"a\nb\x00c\u202e"),
        ("half \ud800", r"half \ud800"),
    ],
)
def test_a_tools_name_is_not_trusted(tool: str, label: str, openmetrics: bool) -> None:
    page = scrape(metrics_of(READY, events=[done(tool=tool)]), openmetrics=openmetrics)
    assert page.value("mcp_multi_server_tool_calls_total", server="git", tool=label, outcome="ok") == 1


def test_more_combinations_than_are_kept_are_all_counted() -> None:
    metrics = metrics_of(READY, events=(done(tool=f"t{number}") for number in range(ROWS_CAP + 10)))
    assert len(metrics._rows) <= ROWS_CAP  # it is only a cache: nothing outside tells its size
    metrics(done(tool="t0"))
    page = scrape(metrics)
    calls = page.all("mcp_multi_server_tool_calls_total", outcome="ok")
    assert sum(n for _, n in calls) == ROWS_CAP + 11
    assert page.value("mcp_multi_server_tool_calls_total", server="git", tool="t0", outcome="ok") == 2


def test_a_page_does_not_change_after_it_was_made() -> None:
    metrics = metrics_of(READY, events=[done(), Rejected("uid")])
    page = metrics.page()
    for event in LIVELY:
        metrics(event)
    assert page.servers["git"].tools == {"log": [1, 0]}
    assert page.daemon.rejected == {"uid": 1} | dict.fromkeys(REJECTIONS, 0)
    assert page.daemon.requests["tools/call"] == [1, 0]
    assert sum(page.servers["git"].restarts.values()) == 0


def test_the_sample_is_taken_on_the_loop_and_processes_are_looked_at_in_a_thread() -> None:
    threads: list[int] = []

    def sample() -> FleetSample:
        threads.append(threading.get_ident())
        return fleet(READY)

    def usage(pid: int) -> ProcessUsage:
        threads.append(threading.get_ident())
        return USED[pid]

    asyncio.run(Metrics(sample, usage).render(True))
    assert threads[0] == threading.get_ident() != threads[1]
    assert len(threads) == 2


def test_prometheus_client_is_imported_by_the_first_scrape_only() -> None:
    script = (
        "import asyncio, sys\n"
        "from mcp_multi_server.telemetry.metrics import FleetSample, Metrics\n"
        "m = Metrics(lambda: FleetSample((), {}, 0, 0.0, True, 0.0, ''), lambda pid: None)\n"
        "assert 'prometheus_client' not in sys.modules\n"
        "asyncio.run(m.render(False)); assert 'prometheus_client' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], timeout=20, check=True)


def test_promtool_finds_nothing_to_complain_of() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        assert not os.environ.get("CI"), "CI must have promtool (Debian: prometheus)"
        pytest.skip("promtool is not installed (Debian: prometheus)")
    page, _ = asyncio.run(metrics_of(READY, AWAY, OFF, events=LIVELY).render(False))
    checked = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, timeout=20, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_lag_is_the_worst_since_last_asked_and_includes_one_that_lasts() -> None:
    now = 0.0

    def clock() -> float:
        return now

    async def main() -> list[float]:
        nonlocal now
        lag = LoopLag(clock)
        taken = [lag.take()]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lag.run)
            await anyio.wait_all_tasks_blocked()
            now = 2.0
            taken += [lag.take(), lag.take()]
            now = 0.25
            taken.append(lag.take())
            tasks.cancel_scope.cancel()
        return taken

    assert asyncio.run(main()) == [0.0, 1.5, 1.5, 0.0]


def test_a_lag_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "LAG_INTERVAL", 0.001)

    async def main() -> list[float]:
        times, measured, lags = iter([0.0, 2.0]), anyio.Event(), list[float]()

        def clock() -> float:
            now = next(times, None)
            if now is None:
                measured.set()
            return 2.0 if now is None else now

        lag = LoopLag(clock)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lag.run)
            await measured.wait()
            tasks.cancel_scope.cancel()
            lags += [lag.take(), lag.take()]
        return lags

    assert asyncio.run(main()) == [pytest.approx(1.999), 0.0]


def test_a_blocked_loop_is_seen() -> None:
    async def main() -> float:
        lag = LoopLag()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lag.run)
            await anyio.wait_all_tasks_blocked()
            threading.Event().wait(0.8)
            taken = lag.take()
            tasks.cancel_scope.cancel()
        return taken

    assert 0.2 < asyncio.run(main()) < 10
