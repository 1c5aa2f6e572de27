"""The daemon as a service of systemd's: says when it is ready, how the fleet is, that it lives, reloads and stops."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import anyio

from ..core import systemd
from ..core.events import CollisionChanged, ConfigReloaded, Event, ServerRemoved, StateChanged
from ..core.lifecycle import State
from ..servers.snapshot import Snapshot
from ..servers.status import Reload
from .sd_notify import Notifier, monotonic_usec

STATUS_PAUSE = 1.0
"""Seconds between two status lines, however much happens."""
PINGS_A_PERIOD = 3
RELOAD_PATIENCE = 130.0
"""Seconds that a reload may take in systemd's eyes: as long as the `reload` command waits for it, and a little."""
_TELLING = (StateChanged, ServerRemoved, CollisionChanged, ConfigReloaded)


class Watched(Protocol):
    """What is told of the fleet."""

    @property
    def snapshot(self) -> Snapshot:
        """The present one."""

    @property
    def last_reload(self) -> Reload:
        """How the last reading of the config went."""

    async def feel_heartbeat(self) -> None:
        """Return once the supervisor's own task has answered."""


class Service:
    """An observer; without systemd it does nothing. `warn` is told, once, if systemd cannot be spoken to."""

    def __init__(self, environ: Mapping[str, str], *, warn: Callable[[str], None]) -> None:
        self._notifier = Notifier(environ.get("NOTIFY_SOCKET"), self._cannot_send)
        self._watchdog = systemd.watchdog_seconds(environ, os.getpid())
        self._warn: Callable[[str], None] | None = warn
        self._changed = anyio.Event()
        self._reloads = 0
        self._is_ready = False
        self._stopping = False

    def __call__(self, event: Event) -> None:
        """Look at the fleet again soon, where the event may have changed what there is to say."""
        if isinstance(event, _TELLING):
            self._changed.set()

    async def run(self, fleet: Watched) -> None:
        """Say that the daemon is ready, then how it is, until cancelled."""
        if self._stopping or not self._notifier:
            return
        self._is_ready = True
        self._notifier.send("READY=1")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tell_status, fleet)
            if self._watchdog is not None:
                tasks.start_soon(self._tell_life, fleet, self._watchdog / PINGS_A_PERIOD)

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Around each reload, whoever asked for it and however it ends; several may be under way.

        Each beginning is told, because newer systemd wants one that is later than its signal.
        """
        self._reloads += 1
        if self._is_ready:
            self._notifier.send("RELOADING=1", monotonic_usec(), _extension(RELOAD_PATIENCE))
        try:
            yield
        finally:
            self._reloads -= 1
            if self._is_ready and not self._reloads:
                self._notifier.send("READY=1")

    def stopping(self, why: str, seconds: float) -> None:
        """Say that the daemon stops, and how long that may take; for newer systemd that is the last word."""
        self._stopping, self._is_ready = True, False
        self._notifier.send("STOPPING=1", _extension(seconds), f"STATUS=stopping ({why})")

    async def _tell_status(self, fleet: Watched) -> None:
        told = ""
        while not self._stopping:
            self._changed = anyio.Event()
            wait = _next_attempt(fleet.snapshot)
            line = _status(fleet, wait)
            if line != told:
                self._notifier.send(f"STATUS={line}")
                told = line
            await anyio.sleep(STATUS_PAUSE)
            # A wait that is told grows old: it is told again when it is a tenth shorter.
            with anyio.move_on_after(None if wait is None else wait / 10):
                await self._changed.wait()

    async def _tell_life(self, fleet: Watched, period: float) -> None:
        while True:
            with anyio.move_on_after(period) as patience:
                await fleet.feel_heartbeat()
            if not patience.cancelled_caught:
                self._notifier.send("WATCHDOG=1")
                await anyio.sleep(period)

    def _cannot_send(self, why: str) -> None:
        if self._warn is not None:
            self._warn(f"cannot notify systemd: {why}")
            self._warn = None


def _extension(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}"


def _status(fleet: Watched, wait: float | None) -> str:
    reload = fleet.last_reload
    trouble = systemd.reload_trouble(reload.outcome, reload.problems)
    return systemd.status_line(_states(fleet.snapshot), wait, trouble)


def _states(snapshot: Snapshot) -> Iterator[State]:
    """The state of every entry of the config."""
    for name in snapshot.config.order:
        server = snapshot.servers.get(name)
        if server is not None:
            yield server.status.state
        else:
            yield State.PARKED if name in snapshot.config.broken else State.DISABLED


def _next_attempt(snapshot: Snapshot) -> float | None:
    """Seconds until the first of the attempts that are planned."""
    planned = [c.status.next_attempt for c in snapshot.servers.values() if c.status.next_attempt is not None]
    return max(min(planned) - asyncio.get_running_loop().time(), 0.0) if planned else None
