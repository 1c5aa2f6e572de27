"""Processes: start, find, pin and end them, and read what they cost. Linux."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

STOP_TIMEOUT = 10.0


@dataclass(frozen=True)
class Process:
    """A process that lives or lived; its start time tells it from a later one of the same id."""

    pid: int
    parent: int
    started: int
    """Clock ticks since boot."""


def spawn(
    argv: Sequence[str],
    *,
    pipes: bool = False,
    errors: IO[bytes] | int = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """A process in a session of its own, with pipes on stdin and stdout or with neither."""
    stream = subprocess.PIPE if pipes else subprocess.DEVNULL
    return subprocess.Popen(
        argv, stdin=stream, stdout=stream, stderr=errors, env=env, bufsize=0, start_new_session=True
    )


def stop(*children: subprocess.Popen[bytes]) -> None:
    """End the processes and whatever they leave behind: asked, given time, killed; each by its id."""
    families = [process for child in children for process in descendants(child.pid)]
    for child in children:
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                stream.close()
        child.terminate()
    for child in children:
        try:
            child.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    _bury(families)


def _bury(processes: Iterable[Process]) -> None:
    """Give processes that lost their parent a moment to end, then kill them."""
    left, deadline = list(processes), time.monotonic() + 2
    while (
        left := [process for process in left if _read(process.pid, process.started)]
    ) and time.monotonic() < deadline:
        time.sleep(0.01)
    for process in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def descendants(pid: int) -> list[Process]:
    """All processes below `pid`, children first."""
    everyone = [found for name in os.listdir("/proc") if name.isdigit() and (found := _read(int(name)))]
    family: list[Process] = []
    parents = {pid}
    while parents:
        generation = [process for process in everyone if process.parent in parents]
        family += generation
        parents = {process.pid for process in generation}
    return family


def mentioning(text: str) -> list[int]:
    """The processes with `text` in their command line, whoever their parent is by now."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
            if text.encode() in file.read() and _read(int(name)):
                found.append(int(name))
    return found


def _read(pid: int, started: int | None = None) -> Process | None:
    """The process `pid` unless it is gone, a zombie, or another than the one that `started` then."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    found = Process(pid, int(fields[1]), int(fields[19]))
    return found if fields[0] != "Z" and started in (None, found.started) else None


def pin(pids: Iterable[int], cpus: Collection[int]) -> None:
    """Keep every thread of the processes on `cpus`."""
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), cpus)


def cpu_ns(pid: int) -> int:
    """CPU time that the process has used, all threads, without the processes it started."""
    return time.clock_gettime_ns((~pid << 3) | 2)  # clock_getcpuclockid(3), which Python does not have


def resident_kib(pid: int) -> int:
    """Memory that the process has in use, shared pages included."""
    return _status(pid, "VmRSS")


def threads(pid: int) -> int:
    """Threads of the process."""
    return _status(pid, "Threads")


def _status(pid: int, field: str) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{field}:"))


def descriptors(pid: int) -> int:
    """Open files of the process, sockets and pipes included."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def private_kib(pid: int) -> int:
    """Memory that would be given back if the process ended."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(("Private_Clean:", "Private_Dirty:")))
