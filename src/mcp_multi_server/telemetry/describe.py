"""What the log says of each event: its level, its name and its fields. `log` decides what of it is written.

A library that runs servers of its own logs by the same words.
"""

from __future__ import annotations

import re
from logging import DEBUG, ERROR, INFO, WARNING
from typing import TypeAlias

from ..core.events import (
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
from ..core.lifecycle import State
from .log_lines import TAIL_LINES, Entry

_STATE_LEVELS = {State.CONNECTING: DEBUG, State.DEGRADED: WARNING, State.BACKOFF: WARNING, State.PARKED: ERROR}
# `traceback` draws this margin before the lines of an exception group.
_GROUP_MARGIN = re.compile(r"^ *\| ")
_FRAME = re.compile(r' *File "(?P<file>.+)", line (?P<line>\d+), in (?P<function>\S+)')
_RELOAD_LEVELS = {"partial": WARNING, "rejected": ERROR}


OfDaemon: TypeAlias = (
    ConfigReloaded
    | ClientConnected
    | ClientGone
    | Rejected
    | DaemonListening
    | DaemonStopping
    | LogLevelChanged
    | DaemonWarning
    | DaemonFailed
    | ProcessesEnded
    | Woke
    | InternalError
)
"""Events of the daemon and its clients; all others are of servers, their catalogs and requests."""


def describe(event: Event) -> Entry:
    """The level, name and fields that an event has in the log."""
    match event:
        case StateChanged():
            return _state_changed(event)
        case ServerRemoved(server):
            return entry(INFO, "server.removed", server=server)
        case Stderr(server, pid, line, is_early):
            return entry(DEBUG if is_early else INFO, "server.stderr", server=server, pid=pid, line=line)
        case ServerReplaced(server):
            return entry(INFO, "server.replaced", server=server)
        case ReplacementFailed():
            return _replacement_failed(event)
        case InvalidLine(server, problem):
            return entry(WARNING, "server.invalid_line", server=server, problem=problem)
        case Probed(server, good):
            return entry(DEBUG, "server.probed", server=server, good=good)
        case CatalogRead():
            return _catalog_read(event)
        case CatalogProblems(server, problems) if problems:
            return entry(WARNING, "catalog.problems", server=server, problems=[str(problem) for problem in problems])
        case CatalogProblems(server):
            return entry(INFO, "catalog.problems_gone", server=server)
        case RefreshFailed(server, message):
            return entry(WARNING, "catalog.refresh_failed", server=server, message=message)
        case CatalogWithdrawn(server):
            return entry(WARNING, "catalog.withdrawn", server=server)
        case CollisionChanged(kind, name, owner, shadowed) if shadowed:
            return entry(WARNING, "collision.appeared", kind=kind, name=name, owner=owner, shadowed=[*shadowed])
        case CollisionChanged(kind, name, owner):
            return entry(INFO, "collision.gone", kind=kind, name=name, owner=owner)
        case RequestDone():
            return _request_done(event)
        case _:
            return _of_daemon(event)


def _of_daemon(event: OfDaemon) -> Entry:
    match event:
        case ConfigReloaded():
            return _config_reloaded(event)
        case ClientConnected(client, pid, uid):
            return entry(DEBUG, "client.connected", client=client, pid=pid, uid=uid)
        case ClientGone(client, reason):
            return entry(DEBUG, "client.gone", client=client, reason=reason)
        case Rejected(reason, client, detail):
            return entry(WARNING, "client.rejected", reason=reason, client=client, detail=detail)
        case DaemonListening(socket, config, metrics):
            return entry(INFO, "daemon.listening", socket=socket, config=config, metrics=metrics)
        case DaemonStopping(why):
            return entry(INFO, "daemon.stopping", why=why)
        case LogLevelChanged(level, was, client, uid):
            return entry(WARNING, "log.level", to=level, was=was, client=client, uid=uid)
        case DaemonWarning(subject, message):
            return entry(WARNING, "daemon.warning", subject=subject, message=message)
        case ProcessesEnded(why, pids):
            return entry(WARNING, "processes.ended", why=why, pids=[*pids])
        case Woke(seconds):
            return entry(INFO, "daemon.woke", seconds=round(seconds, 1))
        case DaemonFailed(trace):
            error, frames = _stack(trace)
            return entry(ERROR, "daemon.failed", error=error, trace=frames)
        case InternalError(where, trace):
            error, frames = _stack(trace)
            return entry(ERROR, "internal.error", where=where, error=error, trace=frames[-TAIL_LINES:])


def entry(level: int, event: str, **fields: object) -> Entry:
    """An entry with those of the fields that say something."""
    return Entry(level, event, {name: field for name, field in fields.items() if field not in (None, "", [])})


def _state_changed(event: StateChanged) -> Entry:
    failure = event.failure if event.new is not State.READY else None
    return entry(
        _STATE_LEVELS.get(event.new, INFO),
        f"server.{event.new}",
        server=event.server,
        was=event.old.value,
        reason=failure and failure.reason.value,
        message=failure and failure.message,
        failures=event.failures or None,
        retry_in=None if event.retry_in is None else round(event.retry_in, 3),
        stderr=[*event.stderr_tail[-TAIL_LINES:]],
    )


def _replacement_failed(event: ReplacementFailed) -> Entry:
    return entry(
        WARNING,
        "server.replacement_failed",
        server=event.server,
        reason=event.failure.reason.value,
        message=event.failure.message,
        stderr=[*event.stderr_tail[-TAIL_LINES:]],
    )


def _catalog_read(event: CatalogRead) -> Entry:
    counts = {kind: getattr(event, kind) for kind in ("tools", "prompts", "resources", "templates")}
    # Every server's lists are read again all day long, and mostly found the same.
    level = INFO if event.is_news else DEBUG
    return entry(level, "catalog.read", server=event.server, **counts, seconds=round(event.seconds, 3))


def _config_reloaded(event: ConfigReloaded) -> Entry:
    return entry(
        _RELOAD_LEVELS.get(event.outcome, INFO),
        f"config.{event.outcome}",
        generation=event.generation,
        problems=[str(problem) for problem in event.problems],
        **{change: [*servers] for change, servers in event.changed.items()},
    )


def _stack(trace: str) -> tuple[str, list[str]]:
    """The type of an exception and where it came from, without its text: that may quote what somebody sent."""
    error, frames, ended = "", list[str](), True
    for line in (_GROUP_MARGIN.sub("", line) for line in trace.splitlines()):
        if frame := _FRAME.match(line):
            frames.append(f"{frame['file']}:{frame['line']} in {frame['function']}")
            ended = True
        # The text of an exception may hold lines that look like a type: none is read until the next frame.
        elif ended and (kind := re.match(r"[A-Za-z_][\w.]*(?=:|$)", line)):
            error, ended = kind[0], False
    return error, frames


def _request_done(event: RequestDone) -> Entry:
    return entry(
        DEBUG,
        "request.done",
        method=event.method,
        server=event.server,
        tool=event.tool,
        seconds=round(event.seconds, 6),
        error=event.error,
    )
