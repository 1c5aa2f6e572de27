"""What a daemon says, for the scripts of those that stand in for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from .wire import Json


def at(**ago: float) -> str:
    """A moment as the daemon writes it: so long ago."""
    return (datetime.now(UTC) - timedelta(**ago)).isoformat(timespec="milliseconds")


def server(name: str, state: str, **members: object) -> Json:
    """A row of the status."""
    counts = dict.fromkeys(("tools", "resources", "resourceTemplates", "prompts", "inFlight", "restarts"), 0)
    gone = dict.fromkeys(("reason", "pid", "protocolVersion", "nextAttemptAt"))
    return {"name": name, "state": state, "since": at(hours=2), "transport": "stdio", **gone, **counts, **members}


def fleet() -> Json:
    """A whole status."""
    return {
        "version": "9.9",
        "pid": 4711,
        "startedAt": at(hours=3),
        "generation": 7,
        "config": {
            "path": "/etc/mcp_servers.json",
            "sha256": "00",
            "lastReload": {
                "outcome": "partial",
                "at": at(hours=5),
                "problems": [{"server": "bad", "field": "mcpServers.bad.command", "message": "must be a string"}],
            },
        },
        "servers": [
            server("git", "ready", tools=12, resources=3, resourceTemplates=1, pid=4712, protocolVersion="2026-07-28"),
            server(
                "old",
                "degraded",
                inFlight=2,
                restarts=4,
                protocolVersion="2025-11-25",
                stale=True,
                problems=[{"list": "tools", "name": None, "message": "left out: it has no name"}],
            ),
            server("hub", "backoff", reason="exit: exited with code 3", nextAttemptAt=at(hours=-3, seconds=-50)),
            server("off", "disabled", since=None),
        ],
        "collisions": [{"kind": "tool", "name": "status", "owner": "git", "shadowed": ["hub", "old"]}],
        "refusedNames": [
            {"kind": "tool", "server": "git", "name": "a.b", "problem": "has characters that APIs refuse"}
        ],
        "clients": [{"id": 1, "pid": 1, "uid": 0, "name": "editor", "era": "legacy"}],
    }


EVENTS: tuple[Json, ...] = (
    {"event": "status", "status": {"servers": [server("git", "ready"), server("off", "disabled")]}},
    {
        "event": "server",
        "at": "2026-11-22T10:00:00.000+00:00",
        "server": server("git", "backoff"),
        "old": "ready",
        "new": "backoff",
        "failure": {"reason": "exit", "message": "exited with code 3", "permanent": False},
        "retry_in": 2.0,
    },
    {"event": "collision", "kind": "tool", "name": "t", "owner": "git", "shadowed": []},
    {"event": "config", "outcome": "applied", "generation": 3, "problems": [], "changed": {"start": ["a"], "stop": []}},
    {"event": "client_gone", "client": 3, "reason": "closed"},
    {"event": "catalog", "server": "git", "tools": 3, "prompts": 0, "resources": 1, "templates": 0, "seconds": 0.1},
    {"event": "refresh_failed", "server": "git", "message": "late"},
    {"event": "withdrawn", "server": "git"},
    {"event": "server_removed", "server": "git"},
    {"event": "client_connected", "client": 4, "pid": 42, "uid": 1000},
    {"event": "log_level", "level": "debug", "was": "info", "client": 4, "uid": 0},
    {"event": "warning", "subject": "config", "message": "\x1b[2Jodd"},
    {
        "event": "catalog_problems",
        "server": "git",
        "problems": [
            {"list": "tools", "name": None, "message": "left out"},
            {"list": "prompts", "name": "\x1b[2Jp", "message": "m"},
        ],
    },
    {"event": "catalog_problems", "server": "git", "problems": []},
    {"event": "rejected", "reason": "access", "client": None, "detail": "user 9 may not use this daemon"},
    {"event": "rejected", "reason": "no_descriptor", "client": None, "detail": "", "left_out": 7},
    {"event": "processes_ended", "why": "their servers have ended", "pids": [4, 9]},
    {"event": "woke", "seconds": 3660.5},
    {"event": "internal_error", "where": "router"},
    {"event": "listening", "socket": "/run/s", "config": "/etc/c.json", "metrics": "off"},
    {"event": "stopping", "why": "SIGTERM"},
    {"event": "from a newer daemon", "n": [1, "x"]},
    {"event": "warning", "subject": "its message is missing"},
    {"event": "server", "server": "git", "old": "ready", "new": "stopping", "failure": None, "retry_in": None},
)
"""One of each kind that people are told of, and two that nobody knows."""
