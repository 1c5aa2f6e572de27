"""A child process that leads a group of its own: how it is started, watched and stopped, with all that it started."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress

import anyio

from ..core.processes import ENDED, Identity, Process
from . import procfs

KILL_WAIT = 0.5
GROUP_WAIT = 0.5
LAST_WAIT = 0.3
"""Seconds that are granted: to die of SIGKILL, to what the leader left behind, to that after SIGKILL."""
BLOCKING_WAIT = 0.1
"""Seconds that the loop may stand still for a stop that was cut short."""
POLL = 0.01
PIDFD_SIGNAL_PROCESS_GROUP = 4
"""Linux 6.9: the signal goes to the group, and never to one that came to the same number later."""
LEADERS: set[int] = set()
"""The children of this process that a `Child` will reap itself; every other one is an orphan that came to us."""


class Child:
    """A started program, its pipes and exit, and whatever it started. `spawn` makes it; `stop` and `close` end it.

    The pipes belong to whoever reads and writes them. The exit is seen on a pidfd, also while others hold the pipes
    open. The child is reaped in `stop`, so that until then its number can mean nothing else. What it started is known
    by its group, by descent while the parents live, and by `mark` once we, as the subreaper, have inherited it.
    """

    def __init__(
        self, popen: subprocess.Popen[bytes], pidfd: int, *, stdin: int, stdout: int, stderr: int, mark: str
    ) -> None:
        self.pid = popen.pid
        found = procfs.read(popen.pid)
        self.identity = Identity(popen.pid, found.started if found else 0)
        self.mark = mark
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self._popen = popen
        self._pidfd = pidfd
        self._ended = anyio.Event()
        self._gone = False
        self._strays: dict[Identity, Process] = {}
        """Processes that it started and that have left its group."""
        self._loop = asyncio.get_running_loop()
        LEADERS.add(self.pid)

    def watch(self, exited: Callable[[int | None], None]) -> None:
        """Have `exited` called once with the return code: negative for a signal, None where another reaped it."""

        def readable() -> None:
            self._loop.remove_reader(self._pidfd)
            self._ended.set()
            exited(_peek(self._pidfd))

        self._loop.add_reader(self._pidfd, readable)

    def look_below(self) -> None:
        """Note the child's descendants while it lives: once it has ended, nothing tells whose they were."""
        self._note(procfs.below(self.pid))

    async def stop(self, patience: float) -> None:
        """End all of it, gently first. Takes at most `patience` + 1.3 s; stdin is to be closed before."""
        if not await self._ends_within(patience / 2):
            self._terminate()
            if not await self._ends_within(patience / 2):
                self.look_below()
                self._signal(signal.SIGKILL)
                await self._ends_within(KILL_WAIT)
        self._terminate()  # whatever the leader left behind
        self._popen.poll()
        self._send_strays(signal.SIGTERM)
        if not await self._is_gone_within(GROUP_WAIT, signal.SIGTERM):
            self._signal(signal.SIGKILL)
            self._send_strays(signal.SIGKILL)
            await self._is_gone_within(LAST_WAIT, signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL all that is known of it."""
        self._signal(signal.SIGKILL)
        self._send_strays(signal.SIGKILL)

    def close(self) -> None:
        """Kill what `stop`, cut short, may have left, and forget the child."""
        if self._popen.returncode is None:
            self.kill()
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(BLOCKING_WAIT)
        elif not self._gone:
            self.kill()
        LEADERS.discard(self.pid)
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)

    async def _ends_within(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await self._ended.wait()
        return self._ended.is_set()

    async def _is_gone_within(self, seconds: float, number: int) -> bool:
        """Whether nothing of it is left. A group has no descriptor to wait on: it is asked.

        Whoever shows up only now, with the end of its parent, gets the signal that the others got.
        """
        deadline = self._loop.time() + seconds
        while self._lives() or self._strays_live() or self._send_strays(number):
            if self._loop.time() >= deadline:
                return False
            await anyio.sleep(POLL)
        self._gone = True
        return True

    def _lives(self) -> bool:
        with suppress(ChildProcessError):  # where we are the subreaper, orphans of the group are ours to reap
            while os.waitid(os.P_PGID, self.pid, os.WEXITED | os.WNOHANG):
                pass
        return self._signal(0)

    def _strays_live(self) -> bool:
        self._strays = {identity: each for identity, each in self._strays.items() if _remains(each)}
        return bool(self._strays)

    def _send_strays(self, number: int) -> bool:
        """Signal all that left the group, after one more look at what came to us; whether there was any."""
        for orphan in orphans():
            if self.mark and orphan.mark == self.mark:
                self._note([orphan, *procfs.below(orphan.pid)])
        for each in self._strays.values():
            procfs.send(each, number)
        return bool(self._strays)

    def _note(self, found: Iterable[Process]) -> None:
        for each in found:
            if each.group != self.pid and each.state not in ENDED:
                self._strays[each.identity] = each

    def _terminate(self) -> None:
        """SIGTERM the group, and wake what is stopped: it could not act on it."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> bool:
        """Signal the group; whether any of it was there and ours to signal."""
        try:
            try:
                signal.pidfd_send_signal(self._pidfd, number, None, PIDFD_SIGNAL_PROCESS_GROUP)
            except OSError as failure:
                if failure.errno != errno.EINVAL:
                    raise
                os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def orphans() -> list[Process]:
    """The living children of this process that no `Child` stands for, with their marks.

    They came to the daemon when their parents ended; in a library they may be the program's own.
    """
    found = (procfs.read(pid) for pid in _unattended())
    return [procfs.marked(each) for each in found if each is not None and each.state not in ENDED]


def reap_orphans() -> None:
    """Reap all that ended and that no `Child` stands for; only where none of them can be somebody else's to reap."""
    for pid in _unattended():
        _reap(pid)


def _unattended() -> list[int]:
    return [pid for pid in procfs.children(os.getpid()) if pid not in LEADERS]


def _reap(pid: int) -> None:
    """Reap it, if it is our child and has ended."""
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)


def _remains(stray: Process) -> bool:
    if procfs.is_alive(stray):
        return True
    if stray.pid not in LEADERS:
        _reap(stray.pid)
    return False


def _peek(pidfd: int) -> int | None:
    """The return code of an ended process, which stays to be reaped; None where another reaped it."""
    with suppress(ChildProcessError):
        if found := os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
    return None
