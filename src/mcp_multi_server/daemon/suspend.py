"""Notices that the machine was suspended: connections may have died meanwhile, and no deadline of ours has passed."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio

from ..core.suspend import Clocks, slept

LOOK_EVERY = 3.0


def clocks() -> Clocks:
    """The machine's clocks now."""
    return Clocks(time.clock_gettime(time.CLOCK_BOOTTIME), time.clock_gettime(time.CLOCK_MONOTONIC))


async def watch(woke: Callable[[float], None], read: Callable[[], Clocks] = clocks) -> None:
    """Call `woke` with the seconds that were slept, soon after each suspend; until cancelled."""
    before = read()
    while True:
        await anyio.sleep(LOOK_EVERY)  # its clock stands still in a suspend, so it ends at most so long after it
        now = read()
        if seconds := slept(before, now):
            woke(seconds)
        before = now
