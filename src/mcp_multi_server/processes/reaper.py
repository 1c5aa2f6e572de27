"""Keeps account of all processes below this one, and ends those that belong to no server any more."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterable
from itertools import count

import anyio

from ..core.events import Observer, ProcessesEnded
from ..core.processes import ENDED, Identity, Process, Record, is_abandoned, is_of_run, left_behind, mark_of
from . import procfs
from .child import LEADERS, POLL, Child, orphans, reap_orphans
from .spawn import prctl

PR_SET_CHILD_SUBREAPER = 36
TERM_WAIT = 2.0
KILL_WAIT = 1.0
"""Seconds to wait for orphans after SIGTERM, and after SIGKILL."""
TOGETHER = 0.1
LOOK_EVERY = 10.0
"""Seconds in which the ends of several processes are handled together, and between two looks without a signal."""
KILL_ROUNDS = 20
"""Looks at the processes below us when all are killed at once: each may find orphans that the last one made."""


class Reaper:
    """Keeps account of the children of this process, and ends what they leave behind.

    The daemon makes one, calls `adopt` so that orphans of its servers become its children, and runs `keep`. In a
    library, the opener of servers makes one, which only counts them. `noted` is called with all children when one
    begins or ends.
    """

    def __init__(
        self,
        *,
        tell: Observer = lambda event: None,
        noted: Callable[[Iterable[Identity]], None] = lambda children: None,
    ) -> None:
        self.run = secrets.token_hex(16)
        """Identifies this run of the daemon in the marks of its children."""
        self._tell = tell
        self._noted = noted
        self._numbers = count(1)
        self._running: dict[str, Child] = {}
        self._unmarked: set[Identity] = set()
        self._something_ended = asyncio.Event()
        self._alone = False

    def next_mark(self) -> str:
        """The mark for a child that is about to start."""
        return mark_of(self.run, next(self._numbers))

    def began(self, child: Child) -> None:
        """A child was started."""
        self._running[child.mark] = child
        self._note_children()

    def ended(self, child: Child) -> None:
        """A child was stopped, and its group with it."""
        self._running.pop(child.mark, None)
        self._note_children()
        self._something_ended.set()

    def adopt(self) -> None:
        """Become the parent of every orphan below us. Children that are there before any server are not ours."""
        # Process 1 also gets the orphans of programs that are not ours.
        self._alone = os.getpid() != 1 and not procfs.children(os.getpid())
        prctl()(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    async def keep(self) -> None:
        """Reap every process that ends, and end those that belong to no server any more; until cancelled."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._something_ended.set)
        try:
            while True:
                # No signal tells that an orphan has come to us and goes on running, so look now and then.
                with anyio.move_on_after(LOOK_EVERY):
                    await self._something_ended.wait()
                    await anyio.sleep(TOGETHER)
                self._something_ended.clear()
                await self.end_abandoned()  # SIGCHLD of what it ends starts the next round, which reaps it
                self._note_unmarked()
        finally:
            loop.remove_signal_handler(signal.SIGCHLD)

    async def end_abandoned(self) -> None:
        """End what servers left behind that do not run any more."""
        reap_orphans()
        ended = await end(self._abandoned)
        if ended:
            self._tell(ProcessesEnded("their servers have ended", _pids(ended)))

    async def sweep(self, record: Record) -> None:
        """End what the daemon that wrote `record` left running when it was killed."""
        boot, spare = procfs.boot_id(), procfs.ancestors(os.getpid())

        # Looked for anew each time: those that are told to end may still start others.
        def left() -> list[Process]:
            return left_behind(record, procfs.all_processes(), boot=boot, uid=os.geteuid(), spare=spare)

        ended = await end(left)
        if ended:
            self._tell(ProcessesEnded("a daemon that was killed left them", _pids(ended)))

    def kill(self) -> None:
        """SIGKILL all processes below us, at once, without the event loop."""
        for child in self._running.values():
            child.kill()
        for _ in range(KILL_ROUNDS):
            if not (living := [each for each in procfs.descendants(os.getpid()) if self._may_kill(each)]):
                return
            for each in living:
                procfs.send(each, signal.SIGKILL)
            time.sleep(POLL)

    def _may_kill(self, process: Process) -> bool:
        if process.state in ENDED:
            return False
        return self._alone or process.pid in LEADERS or is_of_run(procfs.marked(process).mark, self.run)

    def _abandoned(self) -> list[Process]:
        running = {mark: child.identity.started for mark, child in self._running.items()}
        found = [each for each in orphans() if is_abandoned(each, run=self.run, running=running, alone=self._alone)]
        return [*found, *(below for each in found for below in procfs.descendants(each.pid))]

    def _note_unmarked(self) -> None:
        """Have processes without a mark written down, too: after a kill -9 nothing else tells that they are ours."""
        strangers = [each for each in procfs.descendants(os.getpid()) if self._alone and each.pid not in LEADERS]
        unmarked = {each.identity for each in strangers if not is_of_run(procfs.marked(each).mark, self.run)}
        if unmarked != self._unmarked:
            self._unmarked = unmarked
            self._note_children()

    def _note_children(self) -> None:
        self._noted([*(child.identity for child in self._running.values()), *sorted(self._unmarked)])


async def end(find: Callable[[], list[Process]]) -> dict[Identity, Process]:
    """End every process that `find` finds, with SIGTERM first; return those that were there. Takes 3 s at most."""
    ended: dict[Identity, Process] = {}
    for number, seconds in ((signal.SIGTERM, TERM_WAIT), (signal.SIGKILL, KILL_WAIT)):
        deadline = time.monotonic() + seconds
        told: set[Identity] = set()
        while living := _living(ended, find()):
            for each in living:
                if each.identity not in told:
                    procfs.send(each, number)
                    procfs.send(each, signal.SIGCONT)  # a process that is stopped would not act on SIGTERM
                    told.add(each.identity)
            if time.monotonic() >= deadline:
                break
            await anyio.sleep(2 * POLL)
        else:
            return ended
    return ended


def _living(known: dict[Identity, Process], found: list[Process]) -> list[Process]:
    known |= {each.identity: each for each in found}
    return [each for each in known.values() if procfs.is_alive(each)]


def _pids(processes: Iterable[Identity]) -> tuple[int, ...]:
    return tuple(sorted(each.pid for each in processes))
