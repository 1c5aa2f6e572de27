"""Every kind of event that can happen, each in all the forms in which it is told differently."""

from __future__ import annotations

from mcp_multi_server.core.catalog.problems import ListProblem
from mcp_multi_server.core.errors import Problem
from mcp_multi_server.core.events import (
    CatalogProblems,
    CatalogRead,
    CatalogWithdrawn,
    ClientConnected,
    ClientGone,
    CollisionChanged,
    ConfigReloaded,
    DaemonFailed,
    DaemonListening,
    DaemonStopping,
    DaemonWarning,
    Event,
    InternalError,
    InvalidLine,
    LogLevelChanged,
    Probed,
    ProcessesEnded,
    RefreshFailed,
    Rejected,
    ReplacementFailed,
    RequestDone,
    ServerRemoved,
    ServerReplaced,
    StateChanged,
    Stderr,
    Woke,
)
from mcp_multi_server.core.lifecycle import BUSY, Failure, Reason, State

AWAY = (State.BACKOFF, State.PARKED)
FAILED = Failure(Reason.EXIT, "exited with code 3")
CHANGES: dict[str, tuple[str, ...]] = dict.fromkeys(("start", "stop", "replace", "update"), ("git",))
EVERYTHING: list[Event] = [
    *(StateChanged("git", State.READY, state, None, 2, None) for state in State if state not in AWAY),
    *(StateChanged("git", State.READY, state, FAILED, 2, 1.5, ("last words",)) for state in AWAY),
    StateChanged("git", State.READY, State.DEGRADED, BUSY, 0, None),
    ServerReplaced("git"),
    ReplacementFailed("git", FAILED, ("last words",)),
    ServerRemoved("git"),
    Stderr("git", 7, "hello"),
    Stderr("git", 7, "no such method: server/discover", is_early=True),
    InvalidLine("git", "no JSON"),
    CatalogRead("git", 1, 2, 3, 4, 0.1, is_news=True),
    CatalogRead("git", 1, 2, 3, 4, 0.2, is_news=False),
    CatalogProblems("git", (ListProblem("tools", None, "left out: it has no name"),)),
    CatalogProblems("git", ()),
    RefreshFailed("git", "late"),
    CatalogWithdrawn("git"),
    Probed("git", True),
    CollisionChanged("tool", "search", "web", ("files",)),
    CollisionChanged("tool", "search", "web", ()),
    *(ConfigReloaded(each, 4, (Problem("a", "b"),), CHANGES) for each in ("applied", "partial", "rejected")),
    ConfigReloaded("unchanged", 4, (Problem("a", "b"),), CHANGES),
    ClientConnected(1, 42, 1000),
    ClientGone(1, "closed"),
    Rejected("access", 1, "why"),
    DaemonListening("/run/s", "/etc/c.json", "off"),
    DaemonStopping("SIGTERM"),
    DaemonFailed('Traceback:\n  File "a.py", line 3, in f\nKeyError: 1\n'),
    ProcessesEnded("why", (1, 2)),
    Woke(60.0),
    LogLevelChanged("debug", "info", 1, 0),
    DaemonWarning("metrics", "in use"),
    InternalError("router", 'Traceback:\n  File "a.py", line 3, in f\nKeyError: 1\n'),
    RequestDone("tools/call", "git", "log", "stdio", 0.5, "tool_error"),
]
