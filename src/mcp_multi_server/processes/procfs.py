"""What /proc says about processes: who they are, who descends from whom, what they use. Nothing here waits."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from ..core.processes import ENDED, MARK, Process, ProcessUsage

USAGE_PROCESSES = 64
"""Processes of one server that are looked at; more of them are a fork bomb's."""
BELOW_CAP = 4096
"""Descendants that are looked at; a fork bomb's, again."""
_MARK = f"\0{MARK}=".encode()


def read(pid: int) -> Process | None:
    """The process of this number; None where there is none."""
    fields = _read_stat(pid)
    if fields is None:
        return None
    return Process(pid, int(fields[19]), fields[0], int(fields[1]), int(fields[2]))


def is_alive(process: Process) -> bool:
    """Whether that very process still runs; a zombie does not."""
    found = read(process.pid)
    return found is not None and found.started == process.started and found.state not in ENDED


def marked(process: Process) -> Process:
    """The same, with its owner and its mark, as far as we may see them."""
    mark, uid = "", -1
    with suppress(OSError):
        uid = os.stat(f"/proc/{process.pid}").st_uid
        with open(f"/proc/{process.pid}/environ", "rb") as environ:
            variables = b"\0" + environ.read()
        if (at := variables.find(_MARK)) >= 0:
            mark = variables[at + len(_MARK) :].partition(b"\0")[0].decode("ascii", "replace")
    return replace(process, uid=uid, mark=mark)


def everyone() -> Iterator[Process]:
    """All processes that we can see, with their marks."""
    for name in os.listdir("/proc"):
        if name.isdigit() and (found := read(int(name))) is not None:
            yield marked(found)


def below(pid: int) -> list[Process]:
    """All descendants of a process, parents first."""
    found: list[Process] = []
    waiting = children(pid)
    while waiting and len(found) < BELOW_CAP:
        if (each := read(waiting.pop(0))) is not None:
            found.append(each)
            waiting += children(each.pid)
    return found


def ancestors(pid: int) -> set[int]:
    """The process itself and all above it."""
    found: set[int] = set()
    while pid > 0 and pid not in found:
        found.add(pid)
        process = read(pid)
        pid = process.parent if process else 0
    return found


def children(pid: int) -> list[int]:
    """The children of all threads: `uv`, for one, does not start them from its first."""
    found: list[int] = []
    with suppress(OSError):  # it may end while we look
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as listed:
                found += map(int, listed.read().split())
    return found


def send(process: Process, number: int) -> bool:
    """Signal that very process, never one that came to its number later; whether it was there and ours to signal."""
    with suppress(OSError):
        pidfd = os.pidfd_open(process.pid)
        try:
            if is_alive(process):  # asked only now: from here on the descriptor holds on to whom we asked about
                signal.pidfd_send_signal(pidfd, number)
                return True
        finally:
            os.close(pidfd)
    return False


def boot_id() -> str:
    """The kernel's name for the time since the machine was started; "" where it gives none."""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot:
        return boot.read().strip()
    return ""


def read_usage(pid: int) -> ProcessUsage | None:
    """What the process and its descendants use by now, or None where it is gone.

    Descendants count because `npx`, `uvx` and shells only start the server that does the work.
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
        cpu_seconds=sum(sum(map(int, fields[11:15])) for fields in found) / os.sysconf("SC_CLK_TCK"),
        runnable=any(fields[0] == "R" for fields in found),
    )


def _read_stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on, the third (proc_pid_stat(5)); None where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()
    except OSError:
        return None
