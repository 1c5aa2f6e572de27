"""What tests of this room look at: the events that were told, and the timers that are left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import anyio

from mcp_multi_server.core.events import Event, StateChanged
from mcp_multi_server.core.lifecycle import State

E = TypeVar("E")


class Observed:
    """An observer that can be waited on."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = anyio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.wake()

    def wake(self, *_: object) -> None:
        """Have `until` look again."""
        self._news.set()

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def states(self, server: str = "one") -> list[State]:
        return [event.new for event in self.of(StateChanged) if event.server == server]

    async def until(self, check: Callable[[], object], *, within: float = 100.0) -> None:
        """Wait until what was told makes `check` true."""
        with anyio.move_on_after(within):
            while not check():
                self._news = anyio.Event()
                await self._news.wait()
        assert check(), f"did not come true within {within} s; told: {self.events}"


def timers() -> set[asyncio.TimerHandle]:
    """What the loop still means to do later."""
    scheduled: list[asyncio.TimerHandle] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # CPython's
    return {handle for handle in scheduled if not handle.cancelled()}
