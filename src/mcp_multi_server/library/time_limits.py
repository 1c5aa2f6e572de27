"""Time limits of calls: told to the fleet, and paused while a server waits for an answer of the program."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import anyio

from ..core.protocol import TIMEOUT_KEY

LATER = 1.0
"""Seconds by which the fleet's limit of a call is later than the program's: the program is to meet its own."""
LONGEST = 365 * 86400.0
"""Seconds that are told for a limit without end, which JSON has no number for."""
_waiting: ContextVar[float | None] = ContextVar("waiting", default=None)


@contextmanager
def waiting(seconds: float | None) -> Iterator[None]:
    """For a task's requests: somebody elsewhere waits for the task, for that long, and then cancels it."""
    token = _waiting.set(seconds)
    try:
        yield
    finally:
        _waiting.reset(token)


def told(params: Mapping[str, Any], seconds: float | None) -> Mapping[str, Any]:
    """The params of a request that may take so long, as the fleet is to know; as they are if there is no limit."""
    waited_for = _waiting.get()
    if seconds is None and waited_for is None:
        return params
    limits = [limit for limit in (seconds, waited_for) if limit is not None]
    limit = min(max(min(limits), 0.0) + LATER, LONGEST)
    return {**params, "_meta": {**params.get("_meta", {}), TIMEOUT_KEY: limit}}


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
