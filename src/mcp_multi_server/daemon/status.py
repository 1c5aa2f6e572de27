"""What `daemon/status` says of the daemon itself, its config and its servers."""

from __future__ import annotations

import os
from typing import Any

from ..core.errors import Problem
from ..servers.clock import iso
from ..servers.snapshot import Snapshot
from ..servers.status import server_status
from .reload import Reload


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
