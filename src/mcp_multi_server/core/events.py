"""Everything that can happen, as frozen records. Log lines, metrics and `daemon/events` all tell of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from .catalog.problems import ListProblem
from .errors import Problem
from .lifecycle import Failure, State


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A server went from one state to another. `retry_in`: seconds to the next attempt, where one is planned."""

    server: str
    old: State
    new: State
    failure: Failure | None
    failures: int
    retry_in: float | None
    stderr_tail: tuple[str, ...] = ()
    """The last lines of stderr, where the change is a failure that they may explain."""


@dataclass(frozen=True, slots=True)
class ServerReplaced:
    """A server was replaced: its new session was ready before the old one was ended."""

    server: str


@dataclass(frozen=True, slots=True)
class ReplacementFailed:
    """The replacement of a server did not become ready; the old session goes on serving."""

    server: str
    failure: Failure
    stderr_tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerRemoved:
    """A server is no longer configured."""

    server: str


@dataclass(frozen=True, slots=True)
class Stderr:
    """A line that a server wrote to its stderr."""

    server: str
    pid: int | None
    line: str
    is_early: bool = False
    """Whether it had not yet said which era it speaks: many write pages about a question that they do not know."""


@dataclass(frozen=True, slots=True)
class InvalidLine:
    """A server sent a line that is no JSON-RPC message, or an answer to nothing. The line itself is never kept."""

    server: str
    problem: str


@dataclass(frozen=True, slots=True)
class CatalogRead:
    """A server's lists were read, at its start or again later."""

    server: str
    tools: int
    prompts: int
    resources: int
    templates: int
    seconds: float
    is_news: bool
    """Whether the lists are different, or could not be read the last time."""


@dataclass(frozen=True, slots=True)
class CatalogProblems:
    """What is wrong with what a server lists and says, and was left out, mended or put up with.

    Told when it is found, when it changes, and with () when it is gone.
    """

    server: str
    problems: tuple[ListProblem, ...]


@dataclass(frozen=True, slots=True)
class RefreshFailed:
    """Lists of a server could not be read again; what they offered before stays. Told once for each reason."""

    server: str
    message: str


@dataclass(frozen=True, slots=True)
class CatalogWithdrawn:
    """A server was away for longer than the grace; what it offers is no longer listed."""

    server: str


@dataclass(frozen=True, slots=True)
class Probed:
    """A health probe ended."""

    server: str
    good: bool


@dataclass(frozen=True, slots=True)
class CollisionChanged:
    """One name claimed by several servers; `shadowed` is empty when the collision is gone."""

    kind: str
    name: str
    owner: str
    shadowed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConfigReloaded:
    """A config was read: `outcome` is applied, partial, rejected or unchanged."""

    outcome: str
    generation: int
    problems: tuple[Problem, ...]
    changed: dict[str, tuple[str, ...]]
    """Names of the servers that were started, stopped, replaced and updated."""


@dataclass(frozen=True, slots=True)
class ClientConnected:
    """A client connected to the socket."""

    client: int
    pid: int
    uid: int


@dataclass(frozen=True, slots=True)
class ClientGone:
    """A client's connection ended."""

    client: int
    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something a client sent or tried was refused; `reason` is a word from a closed set, used as a metric label."""

    reason: str
    client: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class DaemonListening:
    """The socket accepts connections."""

    socket: str
    config: str
    metrics: str


@dataclass(frozen=True, slots=True)
class DaemonStopping:
    """The daemon was told to stop."""

    why: str


@dataclass(frozen=True, slots=True)
class LogLevelChanged:
    """An admin changed how much the daemon logs."""

    level: str
    was: str
    client: int
    uid: int


@dataclass(frozen=True, slots=True)
class DaemonWarning:
    """Something is wrong that the daemon can go on without, and its owner should know; `subject` is one word for it."""

    subject: str
    message: str


@dataclass(frozen=True, slots=True)
class DaemonFailed:
    """A bug of ours ends the daemon; `trace` is its stack. This is the last event."""

    trace: str


@dataclass(frozen=True, slots=True)
class ProcessesEnded:
    """Processes that belong to no server that runs were ended; `why` says where they came from."""

    why: str
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Woke:
    """The machine was suspended for so many seconds, and runs again."""

    seconds: float


@dataclass(frozen=True, slots=True)
class InternalError:
    """A bug of ours, contained; `trace` is its stack, without the values of variables."""

    where: str
    trace: str


class RequestDone(msgspec.Struct, frozen=True, gc=False):
    """A client's request was answered, cancelled or given up; `error` is "" for success.

    `server` and `tool` are "" for requests that the daemon answers itself and for other methods than tools/call.
    Made for every request, hence not a dataclass: it costs a fifth.
    """

    method: str
    server: str
    tool: str
    transport: str
    seconds: float
    error: str


Event: TypeAlias = (
    StateChanged
    | ServerReplaced
    | ReplacementFailed
    | ServerRemoved
    | Stderr
    | InvalidLine
    | CatalogRead
    | CatalogProblems
    | RefreshFailed
    | CatalogWithdrawn
    | Probed
    | CollisionChanged
    | ConfigReloaded
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
    | RequestDone
)
Observer: TypeAlias = Callable[[Event], None]
"""Is called with each event, on the event loop, and does not wait."""
