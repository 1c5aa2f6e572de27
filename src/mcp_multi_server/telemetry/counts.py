"""What a page of metrics is made of: samples of the state, taken when asked, and counts of what happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from ..core.lifecycle import Reason

BOUNDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds of the duration buckets, in seconds (OpenTelemetry semantic conventions, gen-ai/mcp)."""
SUM = len(BOUNDS) + 1
"""Where a row of durations keeps their sum; the buckets are before it, the last one unbounded."""
METHODS = frozenset(
    {
        "initialize", "ping", "server/discover", "subscriptions/listen", "logging/setLevel", "completion/complete",
        "tools/list", "tools/call", "prompts/list", "prompts/get",
        "resources/list", "resources/templates/list", "resources/read", "resources/subscribe", "resources/unsubscribe",
        "daemon/status", "daemon/reload", "daemon/plan", "daemon/restart", "daemon/logs", "daemon/log-level",
        "daemon/events",
    }
)  # fmt: skip
"""Methods that may be a label; a client can send any string."""
RESTART_REASONS = tuple(sorted({*Reason} - {Reason.CONFIG, Reason.SPAWN, Reason.START_TIMEOUT}))
"""Why a connection that was up can have ended; the others only keep one from coming up."""
REJECTIONS = ("access", "clients", "cut_off", "in_flight", "invalid_message", "no_descriptor")
"""Reasons for which a client is turned away or a message of its refused."""
RELOADS = ("applied", "partial", "rejected", "unchanged")

Pair: TypeAlias = list[int]
"""How often it went well, and how often not."""


@dataclass(frozen=True, slots=True)
class ServerSample:
    """One server at the moment of a scrape. Times are Unix seconds. What is None has no series.

    `entries` and `problems` count by kind what its catalog holds, and what is wrong with that.
    """

    name: str
    state: str
    entered: float
    transport: str
    failures: int = 0
    next_attempt: float | None = None
    protocol_version: str = ""
    pid: int | None = None
    in_flight: int = 0
    entries: Mapping[str, int] = field(default_factory=dict)
    problems: Mapping[str, int] = field(default_factory=dict)
    refreshed: float | None = None


@dataclass(frozen=True, slots=True)
class FleetSample:
    """All servers and the daemon at the moment of a scrape.

    `collisions` counts by kind; `last_reload_success` is Unix seconds.
    """

    servers: tuple[ServerSample, ...]
    collisions: Mapping[str, int]
    clients: int
    loop_lag: float
    last_reload_ok: bool
    last_reload_success: float
    version: str


@dataclass(slots=True)
class ServerCounts:
    """What was counted of one server, from its first event until it is removed."""

    connects: Pair = field(default_factory=lambda: [0, 0])
    probes: Pair = field(default_factory=lambda: [0, 0])
    # Zeroes from the start: Prometheus's increase() does not see the step from no series to 1.
    restarts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RESTART_REASONS, 0))
    stderr_lines: int = 0
    invalid_lines: int = 0
    errors: set[str] = field(default_factory=set)
    durations: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)
    """By method, error type and network transport."""
    tools: dict[str, Pair] = field(default_factory=dict)

    def copy(self) -> ServerCounts:
        """The same numbers, which no event changes any more."""
        # `errors` stays shared: it only limits labels, and no page shows it.
        return replace(
            self,
            connects=[*self.connects],
            probes=[*self.probes],
            restarts={**self.restarts},
            durations={key: [*row] for key, row in self.durations.items()},
            tools={name: [*pair] for name, pair in self.tools.items()},
        )


@dataclass(slots=True)
class DaemonCounts:
    """What was counted of the daemon itself, since it started."""

    requests: dict[str, Pair] = field(default_factory=lambda: {method: [0, 0] for method in sorted(METHODS)})
    rejected: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REJECTIONS, 0))
    reloads: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RELOADS, 0))
    internal_errors: int = 0

    def copy(self) -> DaemonCounts:
        """The same numbers, which no event changes any more."""
        requests = {method: [*pair] for method, pair in self.requests.items()}
        return replace(self, requests=requests, rejected={**self.rejected}, reloads={**self.reloads})


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """All that one answer to Prometheus is made of; nothing in it changes any more."""

    fleet: FleetSample
    servers: Mapping[str, ServerCounts]
    daemon: DaemonCounts
