"""Events as log lines: `describe` has the wording, `Telemetry` decides what is worth a line.

No other module owns a logger; metrics and `daemon/status` use the same words.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from logging import DEBUG, ERROR, INFO, WARNING

import anyio
import anyio.to_thread

from ..core.events import (
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
from .log_lines import LOG, TAIL_LINES, Entry, Limit, console, installed

TELL_SUPPRESSED_EVERY = 1.0
_LIMITED: dict[type[Event], tuple[float, str]] = {
    Stderr: (20.0, "server.stderr"),
    InvalidLine: (5.0, "server.invalid_line"),
    Rejected: (5.0, "client.rejected"),
    ClientConnected: (20.0, "client.connected"),
    ClientGone: (20.0, "client.gone"),
}
"""Lines a second of what a server, or all clients together, can cause at will."""
_STATE_LEVELS = {State.CONNECTING: DEBUG, State.DEGRADED: WARNING, State.BACKOFF: WARNING, State.PARKED: ERROR}
_GROUP_MARGIN = re.compile(r"^ *\| ")
_FRAME = re.compile(r' *File "(?P<file>.+)", line (?P<line>\d+), in (?P<function>\S+)')
_RELOAD_LEVELS = {"partial": WARNING, "rejected": ERROR}


def describe(event: Event) -> Entry:
    """The level, name and fields that an event has in the log and in `daemon/events`."""
    match event:
        case StateChanged():
            return _state_changed(event)
        case ServerRemoved(server):
            return _entry(INFO, "server.removed", server=server)
        case Stderr(server, pid, line):
            return _entry(INFO, "server.stderr", server=server, pid=pid, line=line)
        case ServerReplaced(server):
            return _entry(INFO, "server.replaced", server=server)
        case ReplacementFailed(server, failure, stderr):
            return _entry(
                WARNING,
                "server.replacement_failed",
                server=server,
                reason=failure.reason.value,
                message=failure.message,
                stderr=[*stderr[-TAIL_LINES:]],
            )
        case InvalidLine(server, problem):
            return _entry(WARNING, "server.invalid_line", server=server, problem=problem)
        case CatalogRead():
            return _catalog_read(event)
        case RefreshFailed(server, message):
            return _entry(WARNING, "catalog.refresh_failed", server=server, message=message)
        case CatalogWithdrawn(server):
            return _entry(WARNING, "catalog.withdrawn", server=server)
        case Probed(server, good):
            return _entry(DEBUG, "server.probed", server=server, good=good)
        case CollisionChanged(kind, name, owner, shadowed) if shadowed:
            return _entry(WARNING, "collision.appeared", kind=kind, name=name, owner=owner, shadowed=[*shadowed])
        case CollisionChanged(kind, name, owner, _):
            return _entry(INFO, "collision.gone", kind=kind, name=name, owner=owner)
        case ConfigReloaded():
            return _config_reloaded(event)
        case ClientConnected(client, pid, uid):
            return _entry(DEBUG, "client.connected", client=client, pid=pid, uid=uid)
        case ClientGone(client, reason):
            return _entry(DEBUG, "client.gone", client=client, reason=reason)
        case Rejected(reason, client, detail):
            return _entry(WARNING, "client.rejected", reason=reason, client=client, detail=detail)
        case DaemonListening(socket, config, metrics):
            return _entry(INFO, "daemon.listening", socket=socket, config=config, metrics=metrics)
        case DaemonStopping(why):
            return _entry(INFO, "daemon.stopping", why=why)
        case LogLevelChanged(level, was, client, uid):
            return _entry(WARNING, "log.level", to=level, was=was, client=client, uid=uid)
        case DaemonWarning(subject, message):
            return _entry(WARNING, "daemon.warning", subject=subject, message=message)
        case DaemonFailed(trace):
            error, frames = _stack(trace)
            return _entry(ERROR, "daemon.failed", error=error, trace=frames)
        case ProcessesEnded(why, pids):
            return _entry(WARNING, "processes.ended", why=why, pids=[*pids])
        case Woke(seconds):
            return _entry(INFO, "daemon.woke", seconds=round(seconds, 1))
        case InternalError(where, trace):
            error, frames = _stack(trace)
            return _entry(ERROR, "internal.error", where=where, error=error, trace=frames[-TAIL_LINES:])
        case RequestDone():
            return _request_done(event)


def _entry(level: int, event: str, **fields: object) -> Entry:
    return Entry(level, event, {name: field for name, field in fields.items() if field not in (None, "", [])})


def _state_changed(event: StateChanged) -> Entry:
    failure = event.failure if event.new is not State.READY else None
    return _entry(
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


def _catalog_read(event: CatalogRead) -> Entry:
    counts = {kind: getattr(event, kind) for kind in ("tools", "prompts", "resources", "templates")}
    return _entry(INFO, "catalog.read", server=event.server, **counts, seconds=round(event.seconds, 3))


def _config_reloaded(event: ConfigReloaded) -> Entry:
    return _entry(
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
        elif ended and (kind := re.match(r"[A-Za-z_][\w.]*(?=:|$)", line)):
            error, ended = kind[0], False
    return error, frames


def _request_done(event: RequestDone) -> Entry:
    return _entry(
        DEBUG,
        "request.done",
        method=event.method,
        server=event.server,
        tool=event.tool,
        seconds=round(event.seconds, 6),
        error=event.error,
    )


class LogObserver:
    """An observer that logs. What a server or a client can cause at will is limited; the rest is not."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limits: dict[tuple[str, str], Limit] = {}
        self._catalogs: dict[str, dict[str, object]] = {}
        self._keeps_back = anyio.Event()

    def __call__(self, event: Event) -> None:
        """Log the event, unless there was too much of its kind."""
        if type(event) is RequestDone and not LOG.isEnabledFor(DEBUG):
            return
        self._tell_suppressed(at_once=isinstance(event, ServerRemoved | DaemonStopping))
        if self._is_admitted(event):
            _log(self._quieter(event, describe(event)))
        if isinstance(event, ServerRemoved):
            self._forget(event.server)

    async def run(self) -> None:
        """Write what waits for the console; then tell what floods cost also where nothing else happens."""
        await self.start()
        while True:
            await self._keeps_back.wait()
            await anyio.sleep(TELL_SUPPRESSED_EVERY)
            self._tell_suppressed()
            if not any(limit.suppressed for limit in self._limits.values()):
                self._keeps_back = anyio.Event()

    async def start(self) -> None:
        """Import what a console needs, in a thread, and write what waited for it."""
        for handler in installed():
            if handler.waits:
                handler.draw_with(await anyio.to_thread.run_sync(console, handler.colours))

    def flush(self) -> None:
        """Write all that waits, at once: before the process ends, with or without `start`."""
        self._tell_suppressed(at_once=True)
        for handler in installed():
            if handler.waits:
                handler.draw_with(console(handler.colours))

    def _is_admitted(self, event: Event) -> bool:
        limited = _LIMITED.get(type(event))
        if limited is None:
            return True
        rate, word = limited
        key = (word, getattr(event, "server", ""))
        limit = self._limits.get(key)
        if limit is None:
            limit = self._limits[key] = Limit(rate, self._clock())
        is_admitted = limit.admits(self._clock())
        if not is_admitted:
            self._keeps_back.set()
        return is_admitted

    def _tell_suppressed(self, *, at_once: bool = False) -> None:
        for (word, server), limit in self._limits.items():
            if limit.suppressed and (lines := limit.take() if at_once else limit.reopen(self._clock())):
                _log(_entry(WARNING, "log.suppressed", server=server, kind=word, lines=lines))

    def _quieter(self, event: Event, entry: Entry) -> Entry:
        """Lower a catalog that was read again and found the same to debug: every server does so all day long."""
        if isinstance(event, CatalogWithdrawn):
            self._catalogs.pop(event.server, None)
        if not isinstance(event, CatalogRead):
            return entry
        counts = {**entry.fields, "seconds": None}
        if self._catalogs.get(event.server) == counts:
            return Entry(DEBUG, entry.event, entry.fields)
        self._catalogs[event.server] = counts
        return entry

    def _forget(self, server: str) -> None:
        self._catalogs.pop(server, None)
        for _, word in _LIMITED.values():
            self._limits.pop((word, server), None)


def _log(entry: Entry) -> None:
    LOG.log(entry.level, entry)
