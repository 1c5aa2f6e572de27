"""The state of the fleet as the records of `daemon/status`."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any

from ..core import lifecycle
from ..core.catalog import Kind
from ..core.config import Config
from ..core.errors import Problem
from ..core.lifecycle import ROUTED, State
from .clock import iso, wall
from .server import Server
from .snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Reload:
    """How a reading of the config went: `applied`, `partial`, `rejected` or `unchanged`. Times: seconds since 1970."""

    outcome: str
    at: float
    loaded_at: float
    """When the config that is in force was read."""
    problems: tuple[Problem, ...] = ()


def fleet_status(snapshot: Snapshot, last_reload: Reload, *, path: str, started_at: float) -> dict[str, Any]:
    """All of `daemon/status` that does not concern clients."""
    config = snapshot.config
    return {
        "pid": os.getpid(),
        "startedAt": iso(started_at),
        "generation": snapshot.generation,
        "config": {
            "path": path,
            "sha256": config.sha256,
            "loadedAt": iso(last_reload.loaded_at),
            "lastReload": {
                "outcome": last_reload.outcome,
                "at": iso(last_reload.at),
                "problems": [problem_record(problem) for problem in last_reload.problems],
            },
        },
        "servers": [server_status(snapshot, name) for name in config.order],
        "collisions": [
            {"kind": c.kind, "name": c.name, "owner": c.owner, "shadowed": list(c.shadowed)}
            for c in snapshot.index.collisions
        ],
        "refusedNames": [
            {"kind": r.kind, "server": r.server, "name": r.name, "problem": r.problem} for r in snapshot.index.refused
        ],
    }


def problem_record(problem: Problem) -> dict[str, Any]:
    """A problem as status, plan and reload show it."""
    return {"server": problem.server, "field": problem.field, "message": problem.message}


def server_status(snapshot: Snapshot, name: str) -> dict[str, Any]:
    """One server's record and the prefix of its qualified names; entries that are disabled or broken have one too."""
    server = snapshot.servers.get(name)
    row = supervised_status(server) if server is not None else idle_status(snapshot.config, name)
    return {**row, "prefix": snapshot.config.prefix_of(name) + snapshot.config.daemon.separator}


def supervised_status(server: Server) -> dict[str, Any]:
    """The record of a server that runs."""
    status, now = server.status, asyncio.get_running_loop().time()
    catalog, negotiated = server.catalog, server.negotiated
    failure = None if status.state in ROUTED else status.failure
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
        "tools": catalog.count(Kind.TOOL) if catalog else 0,
        "resources": catalog.count(Kind.RESOURCE) if catalog else 0,
        "resourceTemplates": catalog.count(Kind.TEMPLATE) if catalog else 0,
        "prompts": catalog.count(Kind.PROMPT) if catalog else 0,
        "refreshedAt": None if server.refreshed_at is None else iso(wall(server.refreshed_at)),
        "stale": server.stale or (catalog is not None and status.state not in ROUTED),
        "problems": list(catalog.problems) if catalog else [],
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
        "tools": 0,
        "resources": 0,
        "resourceTemplates": 0,
        "prompts": 0,
        "refreshedAt": None,
        "stale": False,
        "problems": [],
    }
