"""What is known of servers while their daemon is away: what it said last, marked as such."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.lifecycle import State

UNKNOWN = "unknown"
"""The state of every server while nobody can tell it."""


@dataclass(frozen=True, slots=True)
class Away:
    """That a client is not in session with its fleet."""

    since: str
    """When the last session ended, as ISO 8601."""
    reason: str
    """Why it ended, in words."""


def status_now(last: Mapping[str, Any], away: Away | None) -> dict[str, Any]:
    """The status as programs get it: the last one of the fleet, with what no longer holds taken out of it."""
    if away is None or not last:
        return {**last, "connected": True, "away": None} if last else {}
    present = {"connected": False, "away": {"since": away.since, "reason": away.reason}, "pid": None, "clients": []}
    return {**last, **present, "servers": [_unknown(row, away) for row in last.get("servers", ())]}


def event(away: Away | None) -> dict[str, Any]:
    """What `on_change` is told when the daemon went, or is back."""
    if away is None:
        return {"event": "daemon", "connected": True}
    return {"event": "daemon", "connected": False, "since": away.since, "reason": away.reason}


def _unknown(row: Mapping[str, Any], away: Away) -> dict[str, Any]:
    """A server's row without what only its daemon could know. What it offered stays, marked as stale."""
    gone = {"pid": None, "nextAttemptAt": None, "inFlight": 0, "stale": True}
    state = row["state"] if row["state"] == State.DISABLED else UNKNOWN
    return {**row, **gone, "state": state, "since": away.since, "reason": away.reason}
