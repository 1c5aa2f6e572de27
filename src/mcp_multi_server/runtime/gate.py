"""Lets servers start as fast as the processors can bring them up, and no faster.

A start that burns CPU gains nothing from company and delays the first server; one that waits costs nobody anything.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable

import anyio

LONGEST_WAIT = 1.0
"""Seconds that one start may be held back."""
LOOK_EVERY = 0.05
BURNING = 0.5
"""Share of one processor, between two looks, from which on a starting server counts as burning CPU."""


class Gate:
    """Admits one start after another. `starting`: pids of servers on their way up; `cpu_seconds`: what one burned."""

    def __init__(
        self,
        *,
        starting: Callable[[], Iterable[int]],
        cpu_seconds: Callable[[int], float | None],
        cores: int | None = None,
    ) -> None:
        self._starting = starting
        self._cpu_seconds = cpu_seconds
        self._cores = cores or len(os.sched_getaffinity(0))
        self._turn = anyio.Lock()

    async def admit(self) -> None:
        """Wait while as many starting servers burn CPU as there are cores, at most a second."""
        async with self._turn:
            loop = asyncio.get_running_loop()
            give_up = loop.time() + LONGEST_WAIT
            before = self._costs()
            while len(before) >= self._cores and loop.time() < give_up:
                await anyio.sleep(LOOK_EVERY)
                after = self._costs()
                burning = sum(cost - before.get(pid, 0.0) >= BURNING * LOOK_EVERY for pid, cost in after.items())
                if burning < self._cores:
                    return
                before = after

    def _costs(self) -> dict[int, float]:
        costs = {pid: self._cpu_seconds(pid) for pid in self._starting()}
        return {pid: cost for pid, cost in costs.items() if cost is not None}
