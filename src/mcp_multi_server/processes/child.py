"""A child process that leads a group of its own: it is watched, and stopped together with all that it started."""

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
"""Seconds to wait: for the leader after SIGKILL, for its group after SIGTERM, and for the group after SIGKILL."""
BLOCKING_WAIT = 0.1
"""Seconds for which `close` may block the event loop, if `stop` was cancelled."""
POLL = 0.01
"""Seconds between two looks at what nothing tells of: the end of a group."""
PIDFD_SIGNAL_PROCESS_GROUP = 4
"""Linux 6.9: the signal goes to the child's group, and never to another group that has its number by now."""
LEADERS: set[int] = set()
"""The children of this process that a `Child` will reap. In the daemon, every other child is an orphan."""


class Child:
    """A started program, its pipes and exit, and whatever it started. `spawn` makes it; `stop` and `close` end it.

    Whoever reads and writes the pipes also closes them. The exit is seen on a pidfd, even while other processes hold
    the pipes open. The child is reaped in `stop` or `close` and not before, so that until then no other process can get
    its number. Processes that it started are found by their group, by descent while their parents live, and by `mark`
    once they are orphans and this process, as their subreaper, has become their parent.
    """

    def __init__(
        self, popen: subprocess.Popen[bytes], pidfd: int, *, stdin: int, stdout: int, stderr: int, mark: str
    ) -> None:
        self.pid = popen.pid
        found = procfs.read(popen.pid)
        # 0 stands for a child that has ended already: no process of ours has that start time.
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
        """Have `exited` called once with the return code: negative for a signal, None if others reaped the child."""

        def readable() -> None:
            self._loop.remove_reader(self._pidfd)
            self._ended.set()
            exited(_peek(self._pidfd))

        self._loop.add_reader(self._pidfd, readable)

    def note_descendants(self) -> None:
        """Note the child's descendants while it lives: once it has ended, nothing tells whose they were."""
        self._note(procfs.descendants(self.pid))

    async def stop(self, patience: float) -> None:
        """End the child and all that it started, by SIGTERM if that is enough. Takes at most `patience` + 1.3 s.

        Call it after stdin was closed: that asks a server to end by itself.
        """
        if not await self._ends_within(patience / 2):
            self._terminate()
            if not await self._ends_within(patience / 2):
                self.note_descendants()
                self._signal(signal.SIGKILL)
                await self._ends_within(KILL_WAIT)
        self._terminate()  # whatever the leader left behind
        # This reaps the leader, whose number keeps meaning the group as long as that has members.
        self._popen.poll()
        self._send_strays(signal.SIGTERM)
        if not await self._is_gone_within(GROUP_WAIT, signal.SIGTERM):
            self._signal(signal.SIGKILL)
            self._send_strays(signal.SIGKILL)
            await self._is_gone_within(LAST_WAIT, signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL the child and all that it is known to have started."""
        self._signal(signal.SIGKILL)
        self._send_strays(signal.SIGKILL)

    def close(self) -> None:
        """Forget the child, and kill what is left of it if `stop` was cancelled."""
        if self._popen.returncode is None:
            self.kill()
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(BLOCKING_WAIT)
        # The leader is reaped, but others of its group may live.
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
        """Whether nothing is left of the child within `seconds`. No descriptor tells the end of a group, so this polls.

        A process that becomes our child only now, as its parent ended, gets the signal that the others got.
        """
        deadline = self._loop.time() + seconds
        # The last question looks for new orphans, so it is asked only when all known processes are gone.
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
        return self._signal(0)  # 0 is no signal: it only asks whether one could be sent

    def _strays_live(self) -> bool:
        self._strays = {identity: each for identity, each in self._strays.items() if _remains(each)}
        return bool(self._strays)

    def _send_strays(self, number: int) -> bool:
        """Signal all that left the group, orphans that have just come to us included. Says whether there were any."""
        for orphan in orphans():
            if self.mark and orphan.mark == self.mark:
                self._note([orphan, *procfs.descendants(orphan.pid)])
        for each in self._strays.values():
            procfs.send(each, number)
        return bool(self._strays)

    def _note(self, found: Iterable[Process]) -> None:
        for each in found:
            # Those in the group get the signals of the group.
            if each.group != self.pid and each.state not in ENDED:
                self._strays[each.identity] = each

    def _terminate(self) -> None:
        """SIGTERM the group, then SIGCONT: a process that is stopped would not act on SIGTERM."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> bool:
        """Signal the group. Says whether it had a process that we may signal."""
        try:
            try:
                signal.pidfd_send_signal(self._pidfd, number, None, PIDFD_SIGNAL_PROCESS_GROUP)
            except OSError as failure:
                if failure.errno != errno.EINVAL:
                    raise
                # An older kernel: by number, which can mean no other group as long as the leader is not reaped.
                os.killpg(self.pid, number)
        # Nobody is there, or only processes that have become another user's.
        except (ProcessLookupError, PermissionError):
            return False
        return True


def orphans() -> list[Process]:
    """The living children of this process that are no `Child`, with their marks.

    In the daemon they became its children when their parents ended. In a library they may be the program's own.
    """
    found = (procfs.read(pid) for pid in _unattended())
    return [procfs.marked(each) for each in found if each is not None and each.state not in ENDED]


def reap_orphans() -> None:
    """Reap every child that has ended and is no `Child`. The daemon alone may: a program reaps its own children."""
    for pid in _unattended():
        _reap(pid)


def _unattended() -> list[int]:
    return [pid for pid in procfs.children(os.getpid()) if pid not in LEADERS]


def _reap(pid: int) -> None:
    """Reap the process if it is our child and has ended."""
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)


def _remains(stray: Process) -> bool:
    if procfs.is_alive(stray):
        return True
    if stray.pid not in LEADERS:
        _reap(stray.pid)
    return False


def _peek(pidfd: int) -> int | None:
    """The return code of a process that has ended, which is not reaped by this; None if others reaped it."""
    with suppress(ChildProcessError):
        # WNOWAIT leaves it to be reaped by `stop`.
        if found := os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
    return None
