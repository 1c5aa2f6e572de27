"""Time limits of a client's calls, which stand still while a server waits for an answer of the program's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio


class TimeLimits:
    """The time limits of the calls that a client has running.

    The client makes one for its life. A limit stands still while a server that may have the call waits for an answer of
    the program's: people who think must not cost a call its time.
    """

    def __init__(self) -> None:
        self._running: list[TimeLimit] = []

    @contextmanager
    def within(self, seconds: float | None, may_be_at: Callable[[str], bool]) -> Iterator[None]:
        """Limit what is done in the block to so many seconds, or not at all. Raises TimeoutError.

        `may_be_at` tells whether the call may be at a server of that name.
        """
        with anyio.fail_after(seconds) as scope:
            limit = TimeLimit(scope, may_be_at)
            self._running.append(limit)
            try:
                yield
            finally:
                self._running.remove(limit)

    @contextmanager
    def paused(self, server: str) -> Iterator[None]:
        """Have all limits of calls that may be at this server stand still during the block."""
        concerned = [limit for limit in self._running if limit.may_be_at(server)]
        for limit in concerned:
            limit.pause()
        try:
            yield
        finally:
            for limit in concerned:
                limit.resume()


class TimeLimit:
    """The limit of one call, made by `TimeLimits.within`; it can be paused several times over."""

    def __init__(self, scope: anyio.CancelScope, may_be_at: Callable[[str], bool]) -> None:
        self.may_be_at = may_be_at
        self._scope = scope
        self._pauses = 0
        self._left = 0.0

    def pause(self) -> None:
        """Stand still; `resume` is called once for each time."""
        self._pauses += 1
        if self._pauses == 1:
            # What is left is kept, since the deadline itself is a point in time.
            self._left = self._scope.deadline - anyio.current_time()
            self._scope.deadline = math.inf

    def resume(self) -> None:
        """Go on once nobody wants it paused any more."""
        self._pauses -= 1
        if self._pauses == 0:
            self._scope.deadline = anyio.current_time() + self._left
