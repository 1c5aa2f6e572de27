"""What Prometheus is told: counters that observe events, and the fleet's state as it is when asked.

Counters are plain integers in lists that one dictionary look-up finds, as every request counts. State is never stored
here: `sample` gives it at scrape time, so it cannot drift, and what belongs to a removed server is not in the answer.
`exposition` turns both into text, in a thread.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Collection
from typing import TypeAlias

import anyio
import anyio.to_thread

from ..core.events import (
    ConfigReloaded,
    Event,
    InternalError,
    InvalidLine,
    Probed,
    Rejected,
    ReplacementFailed,
    RequestDone,
    ServerRemoved,
    ServerReplaced,
    StateChanged,
    Stderr,
)
from ..core.lifecycle import ROUTED, Reason, State
from ..core.printable import one_line
from ..core.processes import ProcessUsage
from .counts import BOUNDS, METHODS, SUM, DaemonCounts, FleetSample, MetricsPage, Pair, ServerCounts, ServerSample

__all__ = ["FleetSample", "LoopLag", "Metrics", "ServerSample"]

OTHER = "__other__"
TOOLS_PER_SERVER = 50
TOOLS_IN_ALL = 1_000
ERRORS_PER_SERVER = 12
"""Distinct error types of one server, success included: JSON-RPC codes are the server's to choose."""
REASONS_IN_ALL = 32
LABEL_CAP = 64
"""Characters of a label that a server chose."""
ROWS_CAP = 8_192
"""Combinations of labels that are found at once; more than that are found the long way."""
LAG_INTERVAL = 0.5

_DOWN = (State.BACKOFF, State.PARKED)

Key: TypeAlias = tuple[str, str, str, str, str]
"""Server, method, tool, error and transport of a request."""
Row: TypeAlias = tuple[Pair, Pair, list[float], bool]
"""What such a request counts in: its method's pair, its tool's, the durations; and whether it failed."""


class Metrics:
    """An observer that counts, and makes the page that Prometheus is given.

    The daemon makes it once its fleet is there. `sample` tells how that is, and is called on the event loop; `usage`
    tells what a process uses, and is called in a thread, as it reads some files for each.
    """

    def __init__(self, sample: Callable[[], FleetSample], usage: Callable[[int], ProcessUsage | None]) -> None:
        self._sample = sample
        self._usage = usage
        self._servers: dict[str, ServerCounts] = {}
        self._daemon = DaemonCounts()
        self._rows: dict[Key, Row] = {}

    def __call__(self, event: Event) -> None:
        """Count the event."""
        # Requests are most of all events: they take the short way.
        if type(event) is not RequestDone:
            self._count(event)
            return
        key = (event.server, event.method, event.tool, event.error, event.transport)
        row = self._rows.get(key)
        if row is None:
            row = self._row(event, key)
        requests, tool, durations, failed = row
        requests[failed] += 1
        tool[failed] += 1
        seconds = event.seconds
        durations[bisect_left(BOUNDS, seconds)] += 1
        durations[SUM] += seconds

    async def render(self, openmetrics: bool) -> tuple[bytes, str]:
        """The page as text and its content type. Imports prometheus_client, the first time."""
        # The page is copied here, on the loop: counters go on while the thread reads. A stop does not wait for it.
        return await anyio.to_thread.run_sync(self._expose, self.page(), openmetrics, abandon_on_cancel=True)

    def page(self) -> MetricsPage:
        """A copy of all counters beside a sample taken now."""
        fleet = self._sample()
        configured = {server.name for server in fleet.servers}
        # An event that comes after its server's removal makes counters again; they end here.
        for name in self._servers.keys() - configured:
            self._forget(name)
        # `_server` makes the zeroes of a server without events.
        servers = {name: self._server(name).copy() for name in configured}
        return MetricsPage(fleet, servers, self._daemon.copy())

    def _expose(self, page: MetricsPage, openmetrics: bool) -> tuple[bytes, str]:
        from .exposition import expose

        used = {server.name: self._usage(server.pid) for server in page.fleet.servers if server.pid is not None}
        return expose(page, used, openmetrics=openmetrics)

    def _count(self, event: Event) -> None:
        match event:
            case StateChanged():
                self._state_changed(event)
            case ServerReplaced(server):
                self._server(server).connects[0] += 1
            case ReplacementFailed(server):
                self._server(server).connects[1] += 1
            case ServerRemoved(server):
                self._forget(server)
            case Stderr(server):
                self._server(server).stderr_lines += 1
            case InvalidLine(server):
                self._server(server).invalid_lines += 1
            case Probed(server, good):
                self._server(server).probes[not good] += 1
            case ConfigReloaded(outcome):
                self._daemon.reloads[outcome] = self._daemon.reloads.get(outcome, 0) + 1
            case Rejected(reason):
                rejected = self._daemon.rejected
                reason = _capped(reason, rejected, REASONS_IN_ALL)
                rejected[reason] = rejected.get(reason, 0) + 1
            case InternalError():
                self._daemon.internal_errors += 1

    def _state_changed(self, event: StateChanged) -> None:
        counts = self._server(event.server)
        if event.old is State.CONNECTING and event.new is State.READY:
            counts.connects[0] += 1
        elif event.new in _DOWN and event.failure is not None:
            if event.old in ROUTED:
                reason = event.failure.reason
                counts.restarts[reason] = counts.restarts.get(reason, 0) + 1
            # With a faulty config nothing was attempted.
            elif event.old is State.CONNECTING and event.failure.reason is not Reason.CONFIG:
                counts.connects[1] += 1

    def _row(self, event: RequestDone, key: Key) -> Row:
        """The counters of a request, made where they are missing."""
        method = event.method if event.method in METHODS else OTHER
        requests = self._daemon.requests.setdefault(method, [0, 0])
        tool, durations = [0, 0], [0.0] * (SUM + 1)  # counted in and never shown, where there is no server
        if event.server:
            counts = self._server(event.server)
            durations = self._durations(counts, method, event)
            tool = self._tool(counts, event.tool) if event.tool else tool
        row = (requests, tool, durations, bool(event.error))
        # A key holds what others chose; only short ones are kept, and not without end.
        if method is not OTHER and len(event.tool) + len(event.error) <= 4 * LABEL_CAP:
            if len(self._rows) >= ROWS_CAP:
                self._rows.clear()  # rows only lead to counters, which stay
            self._rows[key] = row
        return row

    def _durations(self, counts: ServerCounts, method: str, event: RequestDone) -> list[float]:
        error = _capped(_label(event.error), counts.errors, ERRORS_PER_SERVER)
        counts.errors.add(error)
        network = "pipe" if event.transport == "stdio" else "tcp"
        return counts.durations.setdefault((method, error, network), [0.0] * (SUM + 1))

    def _tool(self, counts: ServerCounts, tool: str) -> Pair:
        in_all = sum(len(other.tools) for other in self._servers.values())
        # At 0 the tools that are known keep their own series; new ones share one.
        cap = TOOLS_PER_SERVER if in_all < TOOLS_IN_ALL else 0
        return counts.tools.setdefault(_capped(_label(tool), counts.tools, cap), [0, 0])

    def _server(self, name: str) -> ServerCounts:
        counts = self._servers.get(name)
        if counts is None:
            counts = self._servers[name] = ServerCounts()
        return counts

    def _forget(self, server: str) -> None:
        self._servers.pop(server, None)
        # A row that stayed would count in what no page shows when the server comes back.
        self._rows = {key: row for key, row in self._rows.items() if key[0] != server}


class LoopLag:
    """How late the event loop runs what is due. `run` is the task that measures it, by sleeping."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._worst = 0.0
        self._due: float | None = None

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            self._due = self._clock() + LAG_INTERVAL
            await anyio.sleep(LAG_INTERVAL)
            self._worst = max(self._worst, self._late())

    def take(self) -> float:
        """The worst seconds since the last call, a lag that still lasts included."""
        worst, self._worst = max(self._worst, self._late()), 0.0
        return worst

    def _late(self) -> float:
        return 0.0 if self._due is None else max(0.0, self._clock() - self._due)


def _label(text: str) -> str:
    return one_line(text[:LABEL_CAP])


def _capped(label: str, known: Collection[str], cap: int) -> str:
    """The label where it is known or there is room for one more."""
    return label if label in known or len(known) < cap else OTHER
