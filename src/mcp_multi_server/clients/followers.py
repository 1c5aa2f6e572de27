"""Clients that follow what happens, or what one server writes: two observers of the daemon's events.

Any client may follow events, so nothing is passed on that is for admins alone: no stderr, no stack.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from ..core import jsonrpc
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
from ..core.jsonrpc import Buffer
from ..core.lifecycle import Failure, State
from ..servers.snapshot import Snapshot
from ..servers.status import supervised_status
from ..telemetry.limit import Limit
from .session import ClientSession
from .streams import EventStream, LogStream

EVENT_NAMES: dict[type[Event], str] = {
    StateChanged: "server",
    ServerReplaced: "server_replaced",
    ReplacementFailed: "replacement_failed",
    ServerRemoved: "server_removed",
    CatalogRead: "catalog",
    CatalogProblems: "catalog_problems",
    RefreshFailed: "refresh_failed",
    CatalogWithdrawn: "withdrawn",
    CollisionChanged: "collision",
    ConfigReloaded: "config",
    ClientConnected: "client_connected",
    ClientGone: "client_gone",
    Rejected: "rejected",
    LogLevelChanged: "log_level",
    ProcessesEnded: "processes_ended",
    Woke: "woke",
    DaemonWarning: "warning",
    InternalError: "internal_error",
    DaemonListening: "listening",
    DaemonStopping: "stopping",
}
"""Events that `daemon/events` passes on, by the name that they have there."""
NOT_TOLD: dict[type[Event], str] = {
    Stderr: "for admins alone, who follow it with `daemon/logs`",
    InvalidLine: "a server can send as many as it likes; the log and a metric count them",
    Probed: "every idle server is probed all day long; what comes of it is a change of its state",
    RequestDone: "as many as there are requests; metrics count them, and traces show them",
    DaemonFailed: "the daemon ends with it, and its clients' connections before it; the log has it",
}
"""Events that `daemon/events` does not pass on, and why."""
HIDDEN = frozenset({"stderr_tail", "trace", "is_news"})
"""Fields that are not passed on: the first two are for admins, and what is told is news."""
REJECTIONS_A_SECOND = 5.0
"""Clients can cause as many as they like."""

OfServer: TypeAlias = Stderr | StateChanged | ServerReplaced | ReplacementFailed | ServerRemoved


class EventFollowers:
    """The clients that follow `daemon/events`; an observer.

    The fleet makes it and adds it to its events. A client follows until it cancels its request or is gone.
    """

    def __init__(self, present: Callable[[], Snapshot], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._present = present
        self._clock = clock
        self._rejections = Limit(REJECTIONS_A_SECOND, clock())
        self._left_out = 0
        """Rejections that were kept back, to be told with the one that is passed on now."""
        self._streams: dict[EventStream, None] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def follow(self, client: ClientSession, id: bytes, first: Buffer) -> None:
        """Have `client` told from now on, in answer to the request `id`, which was answered with `first` so far."""
        EventStream(client, id, self._streams).tell(first)

    def __call__(self, event: Event) -> None:
        """Pass the event on, where anybody follows and it is to be told."""
        if not self._streams or (name := EVENT_NAMES.get(type(event))) is None or not self._is_due(event):
            return
        params = _params(name, event)
        if isinstance(event, StateChanged | ServerReplaced) and (found := self._present().servers.get(event.server)):
            params["server"] = supervised_status(found)
        if self._left_out:
            params["left_out"], self._left_out = self._left_out, 0
        encoded = jsonrpc.encode(params)
        # A list of its own: a client that does not read is cut off while it is told, and leaves.
        for stream in list(self._streams):
            stream.tell(encoded)

    def _is_due(self, event: Event) -> bool:
        """Whether the event is news, and not one of a flood; the first after a flood says how many were left out."""
        if isinstance(event, CatalogRead):
            return event.is_news
        if isinstance(event, Rejected):
            now = self._clock()
            self._left_out = self._rejections.reopen(now)
            return self._rejections.admits(now)
        return True


class LogFollowers:
    """The admins who follow the stderr of a server, by `daemon/logs` with `follow`; an observer.

    The fleet makes it and adds it to its events. A client follows until it cancels its request or is gone, or the
    server is removed.
    """

    def __init__(self, present: Callable[[], Snapshot]) -> None:
        self._present = present
        self._streams: dict[LogStream, None] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def follow(self, client: ClientSession, id: bytes, server: str, lines: Iterable[str]) -> None:
        """Have `client` told from now on, in answer to the request `id`; `lines` were written before."""
        LogStream(client, id, server, self._streams).begin(lines)

    def __call__(self, event: Event) -> None:
        """Pass on what a server writes, and what explains its words or its silence."""
        if self._streams and isinstance(event, OfServer):
            for stream in [each for each in self._streams if each.server == event.server]:
                self._tell(stream, event)

    def _tell(self, stream: LogStream, event: OfServer) -> None:
        match event:
            case Stderr(line=line):
                stream.tell(line)
            case StateChanged(new=new, failure=failure):
                stream.tell_state(new.value, _words(failure) if failure else None)
            case ServerReplaced(server):
                stream.tell_state(self._state(server), "a new one took its place")
            case ReplacementFailed(server, failure):
                stream.tell_state(self._state(server), f"not replaced: {_words(failure)}")
            case ServerRemoved():
                stream.end("removed")

    def _state(self, server: str) -> str:
        found = self._present().servers.get(server)
        return (found.status.state if found else State.STOPPING).value


def _params(name: str, event: Event) -> dict[str, Any]:
    """An event as JSON: its name, when it happened, and its fields."""
    assert is_dataclass(event)
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    shown = {field.name: getattr(event, field.name) for field in fields(event) if field.name not in HIDDEN}
    if isinstance(failure := shown.get("failure"), Failure):
        shown["failure"] = {name: getattr(failure, name) for name in ("reason", "message", "permanent")}
    return {"event": name, "at": at, **shown}


def _words(failure: Failure) -> str:
    return f"{failure.reason}: {failure.message}"
