"""Lets servers start as fast as the processors can bring them up, and no faster.

A start that burns CPU gains nothing from company and delays the first server; one that waits costs nobody anything.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import islice

import anyio

LONGEST_WAIT = 1.0
"""Seconds that one start may be held back."""
LOOK_EVERY = 0.01


class StartLimit:
    """Admits one start after another. `starting`: pids of servers on their way up, the youngest first."""

    def __init__(
        self,
        *,
        starting: Callable[[], Iterable[int]],
        is_burning: Callable[[int], bool],
        cores: int | None = None,
    ) -> None:
        self._starting = starting
        self._is_burning = is_burning
        self._cores = cores or len(os.sched_getaffinity(0))
        self._turn = anyio.Lock()

    async def admit(self) -> None:
        """Wait while as many starting servers burn CPU as there are cores, at most a second."""
        async with self._turn:  # one at a time, so that those who wait are admitted in the order they came
            with anyio.move_on_after(LONGEST_WAIT):
                async for _ in _looks():
                    if not self._is_full():
                        return

    def _is_full(self) -> bool:
        # Lazily, as each look reads a file of /proc: as many as there are cores are enough to know.
        burning = filter(self._is_burning, self._starting())
        return sum(1 for _ in islice(burning, self._cores)) == self._cores


async def _looks() -> AsyncIterator[None]:
    """When to look at the starting servers: nothing tells that one of them fell asleep."""
    while True:
        yield
        await anyio.sleep(LOOK_EVERY)
