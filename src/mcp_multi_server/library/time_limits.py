"""Time limits of calls that are paused while a server waits for an answer of the program."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio


class TimeLimits:
    """The running time limits of a client's calls.

    Each client makes one, and keeps it for life. A call adds its limit (`within`); answering an input request pauses
    those of the calls that may have caused it (`paused`).
    """

    def __init__(self) -> None:
        self._running: list[_Limit] = []

    @contextmanager
    def within(self, seconds: float | None, may_be_at: Callable[[str], bool]) -> Iterator[None]:
        """Raises TimeoutError after so many seconds; None is no limit.

        `may_be_at`: whether the server of this name may be the one that carries out the call.
        """
        with anyio.fail_after(seconds) as scope:
            limit = _Limit(scope, may_be_at)
            self._running.append(limit)
            try:
                yield
            finally:
                self._running.remove(limit)

    @contextmanager
    def paused(self, server: str) -> Iterator[None]:
        """Pause the limits of the calls that may be at this server."""
        # Chosen at the beginning and kept: a call made meanwhile has a time of its own, and one that ends may resume.
        concerned = [limit for limit in self._running if limit.may_be_at(server)]
        for limit in concerned:
            limit.pause()
        try:
            yield
        finally:
            for limit in concerned:
                limit.resume()


class _Limit:
    """The time limit of one call: the deadline of its cancel scope, taken away while paused."""

    def __init__(self, scope: anyio.CancelScope, may_be_at: Callable[[str], bool]) -> None:
        self.may_be_at = may_be_at
        self._scope = scope
        self._pauses = 0
        self._left = 0.0

    def pause(self) -> None:
        self._pauses += 1
        if self._pauses == 1:
            self._left = self._scope.deadline - anyio.current_time()
            self._scope.deadline = math.inf

    def resume(self) -> None:
        """Give the rest of the time back, when the last of several input requests is answered."""
        self._pauses -= 1
        if self._pauses == 0:
            self._scope.deadline = anyio.current_time() + self._left
