"""Which processes are ours to end: those that servers left behind, and those of a daemon that was killed.

Each child has a mark in its environment. The processes that it starts inherit the mark and keep it, whatever session
or parent they move to. A process is never ended for its number alone: the kernel uses numbers again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple, TypeAlias

import msgspec

MARK = "MCP_MULTI_SERVER_CHILD"
"""The environment variable that holds the mark: the daemon's run, a dot, the number of the child."""
ENDED = frozenset("ZX")
"""States of a process that has ended and is not reaped yet (proc_pid_stat(5))."""


class Identity(NamedTuple):
    """The number and the start time of a process. The number alone would not do: the kernel uses it again."""

    pid: int
    started: int
    """Clock ticks after the machine's start."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process as /proc showed it at one moment. `procfs.read` makes it; `procfs.marked` adds its owner and mark."""

    pid: int
    started: int
    state: str
    parent: int
    group: int
    uid: int = -1
    mark: str = ""

    @property
    def identity(self) -> Identity:
        """What no other process has, neither before nor after it."""
        return Identity(self.pid, self.started)


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """The memory and CPU time of a process and its descendants, as `procfs.read_usage` finds them."""

    resident_bytes: int
    cpu_seconds: float
    """CPU time since their starts."""
    runnable: bool
    """Whether one of them runs on a CPU or waits for one."""


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
    """The mark of the child with this number."""
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
    # The kernel does not reuse the number of a group that has members. So if one process of ours is in the group of a
    # child, the group is still the child's, and all of its processes are ours.
    groups = {each.group for each in candidates if each.pid in ours} & {pid for pid, _ in known}
    ours |= {each.pid for each in candidates if each.group in groups}
    while more := {each.pid for each in candidates if each.parent in ours} - ours:
        ours |= more
    return [each for each in candidates if each.pid in ours]


def is_abandoned(orphan: Process, *, run: str, running: Mapping[str, int], alone: bool) -> bool:
    """Whether an orphan, which became our child when its parent ended, belongs to no server that runs.

    `running`: the marks of the servers that run, and when they started. `alone`: this process has no children other
    than servers, so that an orphan without a mark comes from a server that cleared its environment. If the orphan is
    older than all servers that run, none of them can have started it.
    """
    if orphan.mark in running:
        return False
    if is_of_run(orphan.mark, run):
        return True
    return alone and all(orphan.started < started for started in running.values())
