"""The page of `counts` as Prometheus or OpenMetrics text.

Importing this imports prometheus_client (40 ms, 5 MiB): do so in a thread, when somebody asks.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TypeAlias

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.exposition import generate_latest as as_text
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE_OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as as_openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from ..core.lifecycle import ROUTED, State
from ..core.processes import ProcessUsage
from .counts import BOUNDS, SUM, MetricsPage, Pair, ServerCounts, ServerSample

PREFIX = "mcp_multi_server_"
ATTEMPT = ("ok", "failed")
OUTCOME = ("ok", "error")

_LE = [*map(floatToGoString, BOUNDS), "+Inf"]

# The global registry has these collectors already and refuses the same names twice.
_PROCESS_REGISTRY = CollectorRegistry()
_PROCESS = (ProcessCollector(registry=_PROCESS_REGISTRY), GCCollector(registry=_PROCESS_REGISTRY))
"""The daemon's own process: CPU, memory, descriptors, garbage collections."""

Series: TypeAlias = tuple[tuple[str, ...], float | None]
"""Label values and the number; no series where it is None."""
Used: TypeAlias = Mapping[str, ProcessUsage | None]
"""What the process of each server uses that has one; None where it is gone."""


def expose(page: MetricsPage, used: Used, *, openmetrics: bool) -> tuple[bytes, str]:
    """The page and its content type. Takes about 15 µs a line."""
    registry = CollectorRegistry()
    for collector in (PageCollector(page, used), *_PROCESS):
        registry.register(collector)
    if openmetrics:
        text: bytes = as_openmetrics(registry)  # type: ignore[no-untyped-call]  # prometheus_client's omission
        return text, CONTENT_TYPE_OPENMETRICS
    return as_text(registry), CONTENT_TYPE_PLAIN_0_0_4


class PageCollector(Collector):
    """What prometheus_client asks for the metrics of one page."""

    def __init__(self, page: MetricsPage, used: Used) -> None:
        self._page = page
        self._used = {server: usage for server, usage in used.items() if usage is not None}

    def describe(self) -> list[Metric]:
        """Nothing: a page is registered once, with names that clash with no other collector's."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics, family by family."""
        servers = self._page.fleet.servers
        counts = [(server.name, self._page.servers[server.name]) for server in servers]
        yield from _states(servers)
        yield from _catalogs(servers)
        yield from _processes(self._used)
        yield from _lives(counts)
        yield from _traffic(counts)
        yield from _daemon_state(self._page)
        yield from _daemon_counts(self._page)


def _states(servers: tuple[ServerSample, ...]) -> Iterator[Metric]:
    yield _gauge(
        "up", "1 while calls are routed to the server.", ["server"], (((s.name,), s.state in ROUTED) for s in servers)
    )
    yield _gauge(
        "state",
        "1 for the state that the server is in, 0 for the others.",
        ["server", "state"],
        (((s.name, state.value), s.state == state) for s in servers for state in State),
    )
    yield _gauge(
        "state_entered_timestamp_seconds",
        "Unix time of the last change of state.",
        ["server"],
        (((s.name,), s.entered) for s in servers),
    )
    yield _gauge(
        "consecutive_failures",
        "Failures without a stable time between them.",
        ["server"],
        (((s.name,), s.failures) for s in servers),
    )
    yield _gauge(
        "next_attempt_timestamp_seconds",
        "Unix time of the next planned attempt to connect; no series where none is planned.",
        ["server"],
        (((s.name,), s.next_attempt) for s in servers),
    )
    yield _gauge(
        "requests_in_flight",
        "Requests that the server has not answered yet.",
        ["server"],
        (((s.name,), s.in_flight) for s in servers),
    )
    # prometheus_client adds `_info` to the name.
    info = InfoMetricFamily(PREFIX.rstrip("_"), "Transport and protocol version of a server.", labels=["server"])
    for server in servers:
        info.add_metric([server.name], {"transport": server.transport, "protocol_version": server.protocol_version})
    yield info


def _catalogs(servers: tuple[ServerSample, ...]) -> Iterator[Metric]:
    yield _gauge(
        "catalog_entries",
        "Entries of the server's catalog.",
        ["server", "kind"],
        (((s.name, kind), count) for s in servers for kind, count in s.entries.items()),
    )
    yield _gauge(
        "catalog_problems",
        "Items of the server's lists that were left out or mended, and lists that failed; no series for 0.",
        ["server", "kind"],
        (((s.name, kind), count) for s in servers for kind, count in s.problems.items() if count),
    )
    yield _gauge(
        "catalog_last_refresh_success_timestamp_seconds",
        "Unix time at which all lists of the server were read last; no series before the first time.",
        ["server"],
        (((s.name,), s.refreshed) for s in servers),
    )


def _processes(used: Mapping[str, ProcessUsage]) -> Iterator[Metric]:
    yield _gauge(
        "process_resident_memory_bytes",
        "Resident memory of the server's process and its descendants; no series where it has none.",
        ["server"],
        (((server,), usage.resident_bytes) for server, usage in used.items()),
    )
    yield _counter(
        "process_cpu_seconds",
        "CPU time of the server's process and its descendants; no series where it has none.",
        ["server"],
        (((server,), usage.cpu_seconds) for server, usage in used.items()),
    )


def _lives(counts: list[tuple[str, ServerCounts]]) -> Iterator[Metric]:
    yield _counter(
        "connect_attempts",
        "Attempts to connect that ended.",
        ["server", "outcome"],
        _pairs(((name, c.connects) for name, c in counts), ATTEMPT),
    )
    yield _counter(
        "restarts",
        "Connections that ended without our asking.",
        ["server", "reason"],
        (((name, str(reason)), count) for name, c in counts for reason, count in c.restarts.items()),
    )
    yield _counter(
        "health_checks",
        "Health probes that ended.",
        ["server", "outcome"],
        _pairs(((name, c.probes) for name, c in counts), ATTEMPT),
    )
    yield _counter(
        "stderr_lines", "Lines the server wrote to stderr.", ["server"], (((n,), c.stderr_lines) for n, c in counts)
    )
    yield _counter(
        "invalid_lines",
        "Lines from the server that are no JSON-RPC message, or answer nothing.",
        ["server"],
        (((n,), c.invalid_lines) for n, c in counts),
    )


def _traffic(counts: list[tuple[str, ServerCounts]]) -> Iterator[Metric]:
    durations = HistogramMetricFamily(
        "mcp_client_operation_duration_seconds",  # named by OpenTelemetry's conventions, without our prefix
        "Duration of requests to servers.",
        labels=["server", "mcp_method_name", "error_type", "network_transport"],
    )
    for name, c in counts:
        for key, row in c.durations.items():
            # Prometheus wants each bucket to include the smaller ones.
            cumulative = accumulate(row[:SUM])
            durations.add_metric([name, *key], buckets=[*zip(_LE, cumulative, strict=True)], sum_value=row[SUM])
    yield durations
    yield _counter(
        "tool_calls",
        "Tool calls that ended.",
        ["server", "tool", "outcome"],
        (
            ((name, tool, outcome), count)
            for name, c in counts
            for tool, pair in c.tools.items()
            for outcome, count in zip(OUTCOME, pair, strict=True)
        ),
    )


def _daemon_state(page: MetricsPage) -> Iterator[Metric]:
    fleet = page.fleet
    yield _gauge("clients", "Clients that are connected.", [], [((), fleet.clients)])
    yield _gauge(
        "collisions",
        "Names that several servers claim.",
        ["kind"],
        (((kind,), count) for kind, count in fleet.collisions.items()),
    )
    yield _gauge(
        "config_last_reload_successful",
        "1 when the last reload of the config was applied or changed nothing.",
        [],
        [((), fleet.last_reload_ok)],
    )
    yield _gauge(
        "config_last_reload_success_timestamp_seconds",
        "Unix time at which the config that is in force was read.",
        [],
        [((), fleet.last_reload_success)],
    )
    yield _gauge(
        "event_loop_lag_seconds", "Worst lag of the event loop since the last scrape.", [], [((), fleet.loop_lag)]
    )
    yield _gauge(
        "build_info",
        "Version of the daemon and of its Python.",
        ["version", "python_version"],
        [((fleet.version, platform.python_version()), 1)],
    )


def _daemon_counts(page: MetricsPage) -> Iterator[Metric]:
    counts = page.daemon
    yield _counter(
        "client_requests",
        "Requests of clients that ended.",
        ["method", "outcome"],
        _pairs(counts.requests.items(), OUTCOME),
    )
    yield _counter("rejected", "What clients sent or tried and was refused.", ["reason"], _singles(counts.rejected))
    yield _counter("config_reloads", "Reloads of the config by outcome.", ["outcome"], _singles(counts.reloads))
    yield _counter("internal_errors", "Bugs of the daemon, contained.", [], [((), counts.internal_errors)])


def _gauge(name: str, about: str, labels: list[str], rows: Iterable[Series]) -> Metric:
    return _fill(GaugeMetricFamily(PREFIX + name, about, labels=labels), rows)


def _counter(name: str, about: str, labels: list[str], rows: Iterable[Series]) -> Metric:
    # prometheus_client adds `_total` to the name.
    return _fill(CounterMetricFamily(PREFIX + name, about, labels=labels), rows)


def _fill(
    family: GaugeMetricFamily | CounterMetricFamily, rows: Iterable[Series]
) -> GaugeMetricFamily | CounterMetricFamily:
    for labels, number in rows:
        if number is not None:
            family.add_metric(labels, number)
    return family


def _pairs(pairs: Iterable[tuple[str, Pair]], words: tuple[str, str]) -> Iterator[Series]:
    return (((name, word), count) for name, pair in pairs for word, count in zip(words, pair, strict=True))


def _singles(counts: Mapping[str, int]) -> Iterator[Series]:
    return (((label,), count) for label, count in counts.items())
