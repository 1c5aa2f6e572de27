"""The records that `daemon/status` has of servers."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import to_builtins

from ..core import lifecycle
from ..core.catalog.catalog import Kind
from ..core.config.config import Config
from ..core.lifecycle import ROUTED, State
from .clock import iso, wall
from .server import Server
from .snapshot import Snapshot

OFFERED = ("tools", "resources", "prompts")
"""The capabilities by which a server says what it can list."""


def server_status(snapshot: Snapshot, name: str) -> dict[str, Any]:
    """One server's record and the prefix of its qualified names; entries that are disabled or broken have one too."""
    server = snapshot.servers.get(name)
    row = supervised_status(server) if server is not None else idle_status(snapshot.config, name)
    return {**row, "prefix": snapshot.config.prefix_of(name) + snapshot.config.daemon.separator}


def supervised_status(server: Server) -> dict[str, Any]:
    """The record of a server that runs."""
    status, now = server.status, asyncio.get_running_loop().time()
    catalog, negotiated = server.catalog, server.negotiated
    # The last failure is kept in the state after it is over.
    failure = lifecycle.degraded_because(status) if status.state in ROUTED else status.failure
    return {
        "name": server.name,
        "state": status.state.value,
        "since": iso(wall(status.since)),
        "reason": f"{failure.reason}: {failure.message}" if failure else None,
        "transport": server.transport_kind,
        "protocolVersion": negotiated.version if negotiated else None,
        "pid": server.pid,
        "consecutiveFailures": 0 if lifecycle.is_stable(status, now) else status.failures,
        "nextAttemptAt": None if status.next_attempt is None else iso(wall(status.next_attempt)),
        "restarts": server.restarts,
        "inFlight": server.in_flight,
        "offers": [name for name in OFFERED if negotiated.has(name)] if negotiated else [],
        "tools": catalog.count(Kind.TOOL) if catalog else 0,
        "resources": catalog.count(Kind.RESOURCE) if catalog else 0,
        "resourceTemplates": catalog.count(Kind.TEMPLATE) if catalog else 0,
        "prompts": catalog.count(Kind.PROMPT) if catalog else 0,
        "refreshedAt": None if server.refreshed_at is None else iso(wall(server.refreshed_at)),
        "stale": server.stale or (catalog is not None and status.state not in ROUTED),
        "problems": [to_builtins(problem) for problem in server.findings.all(catalog)],
    }


def idle_status(config: Config, name: str) -> dict[str, Any]:
    """The record of an entry that does not run: it is disabled or broken."""
    problems = config.broken.get(name, ())
    entry = config.servers.get(name)
    return {
        "name": name,
        "state": (State.PARKED if problems else State.DISABLED).value,
        "since": None,
        "reason": f"config: {'; '.join(map(str, problems))}" if problems else None,
        "transport": (entry.type or ("http" if entry.url else "stdio")) if entry else None,
        "protocolVersion": None,
        "pid": None,
        "consecutiveFailures": 0,
        "nextAttemptAt": None,
        "restarts": 0,
        "inFlight": 0,
        "offers": [],
        "tools": 0,
        "resources": 0,
        "resourceTemplates": 0,
        "prompts": 0,
        "refreshedAt": None,
        "stale": False,
        "problems": [],
    }
