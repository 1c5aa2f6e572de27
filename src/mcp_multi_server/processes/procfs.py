"""What /proc says of processes: who they are, which descend from which, what they use. Nothing here waits."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from ..core.processes import ENDED, MARK, Process, ProcessUsage

USAGE_PROCESSES = 64
"""Processes of one server that are measured; a server with more of them is a fork bomb."""
DESCENDANTS_CAP = 4096
"""Descendants that are found; again, more of them are those of a fork bomb."""
_MARK = f"\0{MARK}=".encode()


def read(pid: int) -> Process | None:
    """The process with this number; None if there is none."""
    fields = _read_stat(pid)
    if fields is None:
        return None
    return Process(pid, int(fields[19]), fields[0], int(fields[1]), int(fields[2]))


def is_alive(process: Process) -> bool:
    """Whether this process still runs, and not another one with its number; a zombie does not run."""
    found = read(process.pid)
    return found is not None and found.started == process.started and found.state not in ENDED


def marked(process: Process) -> Process:
    """The process with its owner and its mark, as far as we may read them."""
    mark, uid = "", -1
    with suppress(OSError):
        uid = os.stat(f"/proc/{process.pid}").st_uid
        with open(f"/proc/{process.pid}/environ", "rb") as environ:
            # The zero in front lets the first variable be found like all others.
            variables = b"\0" + environ.read()
        if (at := variables.find(_MARK)) >= 0:
            mark = variables[at + len(_MARK) :].partition(b"\0")[0].decode("ascii", "replace")
    return replace(process, uid=uid, mark=mark)


def all_processes() -> Iterator[Process]:
    """All processes that we can see, with their marks."""
    for name in os.listdir("/proc"):
        if name.isdigit() and (found := read(int(name))) is not None:
            yield marked(found)


def descendants(pid: int) -> list[Process]:
    """All descendants of a process, parents first."""
    found: list[Process] = []
    waiting = children(pid)
    while waiting and len(found) < DESCENDANTS_CAP:
        if (each := read(waiting.pop(0))) is not None:
            found.append(each)
            waiting += children(each.pid)
    return found


def ancestors(pid: int) -> set[int]:
    """The process itself, its parent, and so on upwards."""
    found: set[int] = set()
    # Numbers can be used again while this looks, but must not send it round in circles.
    while pid > 0 and pid not in found:
        found.add(pid)
        process = read(pid)
        pid = process.parent if process else 0
    return found


def children(pid: int) -> list[int]:
    """The children of all threads of a process: `uv`, for one, does not start them from its first."""
    found: list[int] = []
    with suppress(OSError):  # it may end while we look
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as listed:
                found += map(int, listed.read().split())
    return found


def send(process: Process, number: int) -> bool:
    """Signal this process, and no other with its number. Says whether it was alive and could be signalled."""
    with suppress(OSError):
        pidfd = os.pidfd_open(process.pid)
        try:
            if is_alive(process):  # only now: the descriptor stays with the process that this looks at
                signal.pidfd_send_signal(pidfd, number)
                return True
        finally:
            os.close(pidfd)
    return False


def boot_id() -> str:
    """The kernel's name for the time since the machine was started; "" if it has none."""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot:
        return boot.read().strip()
    return ""


def read_usage(pid: int) -> ProcessUsage | None:
    """What the process and its descendants use; None if it has ended.

    Descendants count, since `npx`, `uvx` and shells only start the process that does the work.
    """
    leader = _read_stat(pid)
    if leader is None or leader[0] in ENDED:
        return None
    found = [leader]
    waiting = children(pid)
    while waiting and len(found) < USAGE_PROCESSES:
        each = waiting.pop()
        if (fields := _read_stat(each)) is not None:
            found.append(fields)
            waiting += children(each)
    return ProcessUsage(
        resident_bytes=sum(int(fields[21]) for fields in found) * os.sysconf("SC_PAGE_SIZE"),
        # User and system time, its own and that of children that it has reaped.
        cpu_seconds=sum(sum(map(int, fields[11:15])) for fields in found) / os.sysconf("SC_CLK_TCK"),
        runnable=any(fields[0] == "R" for fields in found),
    )


def _read_stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on, the third (proc_pid_stat(5)); None if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    except OSError:
        return None
