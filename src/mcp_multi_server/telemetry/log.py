"""The observer that logs: it decides which events are worth a line, now that others can cause so many of them.

No other module of the daemon owns a logger.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from logging import DEBUG, WARNING

import anyio

from ..core.events import (
    ClientConnected,
    ClientGone,
    DaemonStopping,
    Event,
    InvalidLine,
    Rejected,
    RequestDone,
    ServerRemoved,
    Stderr,
)
from .describe import describe, entry
from .limit import Limit
from .log_lines import LOG, Entry

TELL_SUPPRESSED_EVERY = 1.0
_LIMITED: dict[type[Event], tuple[float, str]] = {
    Stderr: (20.0, "server.stderr"),
    InvalidLine: (5.0, "server.invalid_line"),
    Rejected: (5.0, "client.rejected"),
    ClientConnected: (20.0, "client.connected"),
    ClientGone: (20.0, "client.gone"),
}
"""Lines a second of what a server, or all clients together, can cause at will."""


class LogObserver:
    """An observer that logs. What a server or a client can cause at will is limited; the rest is not.

    The daemon makes it before all other observers. `run` is its task; `flush` is called at the end.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limits: dict[tuple[str, str], Limit] = {}
        self._keeps_back = anyio.Event()

    def __call__(self, event: Event) -> None:
        """Log the event, unless there was too much of its kind."""
        # Every request comes by here: it costs one check unless it is logged. Early lines must not use up the limit.
        if (type(event) is RequestDone or (type(event) is Stderr and event.is_early)) and not LOG.isEnabledFor(DEBUG):
            return
        # What was kept back happened before this event, so it is told first.
        self._tell_suppressed(at_once=isinstance(event, ServerRemoved | DaemonStopping))
        if self._is_admitted(event):
            _log(describe(event))
        if isinstance(event, ServerRemoved):
            self._forget(event.server)  # names come and go with reloads; their limits must not pile up

    async def run(self) -> None:
        """Tell what a flood cost also where nothing else happens; until cancelled."""
        while True:
            await self._keeps_back.wait()  # no timer while nothing is kept back: an idle daemon sleeps
            await anyio.sleep(TELL_SUPPRESSED_EVERY)
            self._tell_suppressed()
            if not any(limit.suppressed for limit in self._limits.values()):
                self._keeps_back = anyio.Event()

    def flush(self) -> None:
        """Tell at once what floods cost: the process is about to end."""
        self._tell_suppressed(at_once=True)

    def _is_admitted(self, event: Event) -> bool:
        limited = _LIMITED.get(type(event))
        if limited is None:
            return True
        rate, word = limited
        key = (word, getattr(event, "server", ""))
        limit = self._limits.get(key)
        if limit is None:
            limit = self._limits[key] = Limit(rate, self._clock())
        is_admitted = limit.admits(self._clock())
        if not is_admitted:
            self._keeps_back.set()
        return is_admitted

    def _tell_suppressed(self, *, at_once: bool = False) -> None:
        for (word, server), limit in self._limits.items():
            if limit.suppressed and (lines := limit.take() if at_once else limit.reopen(self._clock())):
                _log(entry(WARNING, "log.suppressed", server=server, kind=word, lines=lines))

    def _forget(self, server: str) -> None:
        for _, word in _LIMITED.values():
            self._limits.pop((word, server), None)


def _log(entry: Entry) -> None:
    LOG.log(entry.level, entry)
