"""Shows that a task still has its turns: a loop that runs says nothing of a task that is stuck or gone."""

from __future__ import annotations

import anyio


class Heartbeat:
    """Lets others see that one task is alive. The supervisor makes it, and its task runs `beat`.

    It costs nothing while nobody waits for a beat.
    """

    def __init__(self) -> None:
        self._asked = anyio.Event()
        self._answered = anyio.Event()

    async def beat(self) -> None:
        """Beat whenever somebody waits for it, for ever."""
        while True:
            await self._asked.wait()
            answered = self._answered
            # New ones before anybody is woken: who asks again waits for a beat of its own.
            self._asked, self._answered = anyio.Event(), anyio.Event()
            answered.set()

    async def next_beat(self) -> None:
        """Wait for a beat; for ever where the task is stuck or gone."""
        answered = self._answered
        self._asked.set()
        await answered.wait()
