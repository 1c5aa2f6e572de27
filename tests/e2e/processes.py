"""What /proc says about the processes that the tests caused: who descends from whom, who is still there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """One process; pids are used again, so its start time belongs to its name."""

    pid: int
    started: str
    parent: int
    group: int
    state: str


def process(pid: int) -> Process | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Process(pid, started=fields[19], parent=int(fields[1]), group=int(fields[2]), state=fields[0])


def all_processes() -> list[Process]:
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [found for pid in pids if (found := process(pid)) is not None]


def descendants(pid: int) -> list[Process]:
    """Every process below `pid`, children first."""
    everyone, found, fresh = all_processes(), [], {pid}
    while fresh:
        below = [one for one in everyone if one.parent in fresh]
        found += below
        fresh = {one.pid for one in below}
    return found


def is_alive(one: Process) -> bool:
    """Whether that very process still runs; a zombie does not."""
    present = process(one.pid)
    return present is not None and present.started == one.started and present.state not in "ZX"


def living_group(group: int) -> list[Process]:
    return [one for one in all_processes() if one.group == group and one.state not in "ZX"]


def marked(mark: str) -> list[str]:
    """The command lines of the living processes that carry `mark` in their environment, but for this one."""
    others = (one.pid for one in all_processes() if one.pid != os.getpid() and one.state not in "ZX")
    found = (pid for pid in others if mark.encode() in _read(pid, "environ"))
    return [f"{pid}: {_read(pid, 'cmdline').replace(bytes(1), b' ').decode(errors='replace')}" for pid in found]


def memory_kib(pid: int) -> int:
    """The resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
