"""When the reaper looks at the processes below the daemon. What it does then is tested in e2e/test_orphans.py."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from mcp_multi_server.processes import reaper
from mcp_multi_server.processes.reaper import Reaper

pytestmark = pytest.mark.anyio
WITHIN = 20.0


class Looking(Reaper):
    """A reaper that counts its looks and touches no process."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.looked = anyio.Event()

    async def end_abandoned(self) -> None:
        self.looks += 1
        self.looked.set()


async def looks(count: int, *, at_each: Callable[[], object] = lambda: None) -> None:
    """Run a reaper until it has looked `count` times."""
    looking = Looking()
    with anyio.fail_after(WITHIN):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(looking.keep)
            await anyio.lowlevel.checkpoint()
            while looking.looks < count:
                at_each()
                await looking.looked.wait()
                looking.looked = anyio.Event()
            tasks.cancel_scope.cancel()


async def test_the_reaper_looks_again_and_again_though_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper, "LOOK_EVERY", 0.01)
    await looks(3)


async def test_the_reaper_looks_at_once_when_something_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper, "LOOK_EVERY", 10 * WITHIN)
    await looks(2, at_each=lambda: os.kill(os.getpid(), signal.SIGCHLD))
