"""Shows that a task still has its turns: a loop that runs says nothing of a task that is stuck or gone."""

from __future__ import annotations

import anyio


class Heartbeat:
    """Costs nothing until it is felt for."""

    def __init__(self) -> None:
        self._asked = anyio.Event()
        self._answered = anyio.Event()

    async def beat(self) -> None:
        """Answer for ever; what the task does that is to be watched."""
        while True:
            await self._asked.wait()
            answered = self._answered
            self._asked, self._answered = anyio.Event(), anyio.Event()
            answered.set()

    async def feel(self) -> None:
        """Return when the task has answered; wait for ever where it does not."""
        answered = self._answered
        self._asked.set()
        await answered.wait()
