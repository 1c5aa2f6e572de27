"""Which processes are ours to end: what servers left behind, and what a daemon that was killed did.

Every child carries a mark in its environment, which all that it starts inherits, whatever session or parent it moves
to. A process that is neither marked nor known by its number *and* its start time is somebody else's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple, TypeAlias

import msgspec

MARK = "MCP_MULTI_SERVER_CHILD"
"""The environment variable: the run of the daemon, a dot, the number of the child."""
ENDED = frozenset("ZX")
"""States of a process that has ended and is not reaped yet (proc_pid_stat(5))."""


class Identity(NamedTuple):
    """One process for good: numbers are used again, so the time of its start belongs to it."""

    pid: int
    started: int
    """Clock ticks after the machine's start."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it was seen."""

    pid: int
    started: int
    state: str
    parent: int
    group: int
    uid: int = -1
    mark: str = ""

    @property
    def identity(self) -> Identity:
        """What tells it from every other one, before and after."""
        return Identity(self.pid, self.started)


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """What a process and its descendants use."""

    resident_bytes: int
    cpu_seconds: float
    """CPU time since their starts."""
    runnable: bool
    """One of them is on a CPU, or waits for one."""


_Pid: TypeAlias = Annotated[int, msgspec.Meta(ge=2)]
_Ticks: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
_Run: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]


class Record(msgspec.Struct, frozen=True):
    """The children of a daemon, written to a file for the daemon that starts after it was killed."""

    boot: Annotated[str, msgspec.Meta(min_length=1)]
    """The kernel's name for the time since the machine was started."""
    run: _Run
    children: tuple[tuple[_Pid, _Ticks], ...] = ()


def mark_of(run: str, number: int) -> str:
    """The mark of a child."""
    return f"{run}.{number}"


def is_of_run(mark: str, run: str) -> bool:
    """Whether a mark was given in this run of a daemon."""
    return mark.startswith(f"{run}.")


def left_behind(
    record: Record, processes: Iterable[Process], *, boot: str, uid: int, spare: Collection[int]
) -> list[Process]:
    """The processes that a killed daemon left: the children in its `record`, and all that they started.

    Processes of another user are never among them, nor those in `spare`: the process that asks may itself descend from
    such a server.
    """
    if record.boot != boot:
        return []
    candidates = [each for each in processes if each.uid == uid and each.pid not in spare and each.state not in ENDED]
    known = set(record.children)
    ours = {each.pid for each in candidates if (each.pid, each.started) in known or is_of_run(each.mark, record.run)}
    # A group keeps its number for as long as it has members: one of ours in it says that all of it is.
    groups = {each.group for each in candidates if each.pid in ours} & {pid for pid, _ in known}
    ours |= {each.pid for each in candidates if each.group in groups}
    while more := {each.pid for each in candidates if each.parent in ours} - ours:
        ours |= more
    return [each for each in candidates if each.pid in ours]


def is_abandoned(orphan: Process, *, run: str, running: Mapping[str, int], alone: bool) -> bool:
    """Whether an orphan, which became our child when its parent ended, belongs to no server that runs.

    `running`: the marks of those that run, and when they started. `alone`: only servers can leave orphans to us, so
    that one which threw its environment away, if it is older than all of them, belongs to none.
    """
    if orphan.mark in running:
        return False
    if is_of_run(orphan.mark, run):
        return True
    return alone and all(orphan.started < started for started in running.values())
