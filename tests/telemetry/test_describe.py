"""What the log says of each event: a level, a name, and its facts."""

from __future__ import annotations

import logging
from typing import get_args

import pytest

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
from mcp_multi_server.core.lifecycle import Failure, Reason, State
from mcp_multi_server.telemetry.describe import describe
from mcp_multi_server.telemetry.log import LogObserver

CRASH = StateChanged(
    "git", State.READY, State.BACKOFF, Failure(Reason.EXIT, "exited with code 3"), 2, 1.23456, ("Traceback", "KeyError")
)

DESCRIBED: list[tuple[Event, str, str, dict[str, object]]] = [
    (
        CRASH,
        "WARNING",
        "server.backoff",
        {
            "server": "git",
            "was": "ready",
            "reason": "exit",
            "message": "exited with code 3",
            "failures": 2,
            "retry_in": 1.235,
            "stderr": ["Traceback", "KeyError"],
        },
    ),
    (
        StateChanged("git", State.CONNECTING, State.READY, Failure(Reason.EXIT, "before"), 2, None),
        "INFO",
        "server.ready",
        {"server": "git", "was": "connecting", "failures": 2},
    ),
    (
        StateChanged("git", State.CONNECTING, State.PARKED, Failure(Reason.SPAWN, "no such command", True), 1, 300.0),
        "ERROR",
        "server.parked",
        {
            "server": "git",
            "was": "connecting",
            "reason": "spawn",
            "message": "no such command",
            "failures": 1,
            "retry_in": 300.0,
        },
    ),
    (
        StateChanged("git", State.READY, State.DEGRADED, None, 0, None),
        "WARNING",
        "server.degraded",
        {"server": "git", "was": "ready"},
    ),
    (ServerRemoved("git"), "INFO", "server.removed", {"server": "git"}),
    (Stderr("git", 7, "hello"), "INFO", "server.stderr", {"server": "git", "pid": 7, "line": "hello"}),
    (Stderr("git", 7, "what?", is_early=True), "DEBUG", "server.stderr", {"server": "git", "pid": 7, "line": "what?"}),
    (ServerReplaced("git"), "INFO", "server.replaced", {"server": "git"}),
    (
        ReplacementFailed("git", Failure(Reason.EXIT, "exited with code 3"), ("why",)),
        "WARNING",
        "server.replacement_failed",
        {"server": "git", "reason": "exit", "message": "exited with code 3", "stderr": ["why"]},
    ),
    (InvalidLine("git", "not JSON"), "WARNING", "server.invalid_line", {"server": "git", "problem": "not JSON"}),
    (
        CatalogRead("git", 12, 0, 3, 1, 0.25, is_news=True),
        "INFO",
        "catalog.read",
        {"server": "git", "tools": 12, "prompts": 0, "resources": 3, "templates": 1, "seconds": 0.25},
    ),
    (
        CatalogProblems("git", (ListProblem("tools", "a", "left out"), ListProblem(None, None, "it mumbles"))),
        "WARNING",
        "catalog.problems",
        {"server": "git", "problems": ["tools: 'a': left out", "it mumbles"]},
    ),
    (CatalogProblems("git", ()), "INFO", "catalog.problems_gone", {"server": "git"}),
    (RefreshFailed("git", "timed out"), "WARNING", "catalog.refresh_failed", {"server": "git", "message": "timed out"}),
    (CatalogWithdrawn("git"), "WARNING", "catalog.withdrawn", {"server": "git"}),
    (Probed("git", False), "DEBUG", "server.probed", {"server": "git", "good": False}),
    (
        CollisionChanged("tool", "search", "web", ("files", "mail")),
        "WARNING",
        "collision.appeared",
        {"kind": "tool", "name": "search", "owner": "web", "shadowed": ["files", "mail"]},
    ),
    (
        CollisionChanged("tool", "search", "web", ()),
        "INFO",
        "collision.gone",
        {"kind": "tool", "name": "search", "owner": "web"},
    ),
    (
        ConfigReloaded("partial", 4, (Problem("mcpServers.x.command", "is missing", "x"),), {"started": ("a", "b")}),
        "WARNING",
        "config.partial",
        {"generation": 4, "problems": ["mcpServers.x.command: is missing"], "started": ["a", "b"]},
    ),
    (ConfigReloaded("rejected", 4, (), {}), "ERROR", "config.rejected", {"generation": 4}),
    (ConfigReloaded("unchanged", 4, (), {}), "INFO", "config.unchanged", {"generation": 4}),
    (ConfigReloaded("applied", 5, (), {}), "INFO", "config.applied", {"generation": 5}),
    (ClientConnected(1, 42, 1000), "DEBUG", "client.connected", {"client": 1, "pid": 42, "uid": 1000}),
    (ClientGone(1, "closed"), "DEBUG", "client.gone", {"client": 1, "reason": "closed"}),
    (Rejected("uid", None, "uid 33"), "WARNING", "client.rejected", {"reason": "uid", "detail": "uid 33"}),
    (
        DaemonListening("/run/s", "/etc/c.json", "off"),
        "INFO",
        "daemon.listening",
        {"socket": "/run/s", "config": "/etc/c.json", "metrics": "off"},
    ),
    (DaemonStopping("SIGTERM"), "INFO", "daemon.stopping", {"why": "SIGTERM"}),
    (
        DaemonFailed('Traceback:\n  File "a.py", line 3, in f\nBug: 1\n'),
        "ERROR",
        "daemon.failed",
        {"error": "Bug", "trace": ["a.py:3 in f"]},
    ),
    (ProcessesEnded("left", (4, 9)), "WARNING", "processes.ended", {"why": "left", "pids": [4, 9]}),
    (Woke(3600.04), "INFO", "daemon.woke", {"seconds": 3600.0}),
    (DaemonWarning("metrics", "in use"), "WARNING", "daemon.warning", {"subject": "metrics", "message": "in use"}),
    (
        InternalError("router", 'Traceback:\n  File "a b.py", line 3, in f\n    f(x)\n    ~^^^\nKeyError: 1\n'),
        "ERROR",
        "internal.error",
        {"where": "router", "error": "KeyError", "trace": ["a b.py:3 in f"]},
    ),
    (
        LogLevelChanged("debug", "info", 3, 1000),
        "WARNING",
        "log.level",
        {"to": "debug", "was": "info", "client": 3, "uid": 1000},
    ),
    (
        RequestDone("tools/call", "git", "log", "stdio", 0.5, "tool_error"),
        "DEBUG",
        "request.done",
        {"method": "tools/call", "server": "git", "tool": "log", "seconds": 0.5, "error": "tool_error"},
    ),
]


@pytest.mark.parametrize(("event", "level", "name", "fields"), DESCRIBED, ids=lambda part: str(part)[:24])
def test_an_event_has_a_level_a_name_and_its_facts(
    event: Event, level: str, name: str, fields: dict[str, object]
) -> None:
    entry = describe(event)
    assert (logging.getLevelName(entry.level), entry.event, dict(entry.fields)) == (level, name, fields)


def test_every_event_is_described() -> None:
    assert {type(row[0]) for row in DESCRIBED} == set(get_args(Event))


def test_every_state_has_a_name_in_the_log() -> None:
    entries = [describe(StateChanged("x", State.READY, state, None, 0, None)) for state in State]
    assert [entry.event for entry in entries] == [f"server.{state.value}" for state in State]


def test_in_a_library_events_are_readable_without_our_handler(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        LogObserver()(RefreshFailed("git", "timed out"))
    assert caplog.messages == ["catalog.refresh_failed server=git message=timed out"]
