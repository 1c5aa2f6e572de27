"""The daemon as a service of systemd's: says when it is ready, how the fleet is, that it lives, reloads and stops."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import anyio

from ..core import systemd
from ..core.events import CollisionChanged, ConfigReloaded, DaemonWarning, Event, Observer, ServerRemoved, StateChanged
from ..core.lifecycle import State
from ..servers.snapshot import Snapshot
from .fleet import Fleet
from .sd_notify import Notifier, monotonic_usec

STATUS_PAUSE = 1.0
"""Seconds between two status lines, however much happens."""
# sd_watchdog_enabled(3) advises two; with three, one may come late.
PINGS_A_PERIOD = 3
RELOAD_PATIENCE = 130.0
"""Seconds that a reload may take in systemd's eyes: as long as the `reload` command waits for it, and a little."""
_TELLING = frozenset({StateChanged, ServerRemoved, CollisionChanged, ConfigReloaded})
"""Events after which there may be another status to tell."""


class Service:
    """Speaks to systemd of the daemon, where systemd runs it; an observer, which follows how the fleet is.

    The daemon makes it before its fleet; `run` is its task. That systemd cannot be spoken to is told once.
    """

    def __init__(self, environ: Mapping[str, str], *, tell: Observer) -> None:
        self._notifier = Notifier(environ.get("NOTIFY_SOCKET"), self._cannot_send)
        self._watchdog = systemd.watchdog_seconds(environ, os.getpid())
        self._tell = tell
        self._is_told = False
        """Whether it was told that systemd cannot be spoken to."""
        self._changed = anyio.Event()
        self._reloads = 0
        """Reloads that are under way."""
        self._is_ready = False
        self._stopping = False

    def __call__(self, event: Event) -> None:
        """Look at the fleet again soon, where the event may have changed what there is to say."""
        if type(event) in _TELLING:
            self._changed.set()

    async def run(self, fleet: Fleet) -> None:
        """Say that the daemon is ready, then how it is, until cancelled."""
        # A stop may come before the daemon is ready: READY=1 after STOPPING=1 would be wrong.
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
        if self._is_ready:  # a reload before READY=1 is part of the start
            self._notifier.send("RELOADING=1", monotonic_usec(), _extension(RELOAD_PATIENCE))
        try:
            yield
        finally:
            self._reloads -= 1
            # READY=1 ends every reload in systemd's eyes, so only the last one sends it.
            if self._is_ready and not self._reloads:
                self._notifier.send("READY=1")

    def stopping(self, why: str, seconds: float) -> None:
        """Say that the daemon stops, and how long that may take; for newer systemd that is the last word."""
        # A reload that ends now must not say READY=1.
        self._stopping, self._is_ready = True, False
        self._notifier.send("STOPPING=1", _extension(seconds), f"STATUS=stopping ({why})")

    async def _tell_status(self, fleet: Fleet) -> None:
        told = ""
        while not self._stopping:
            # Before the look at the fleet: a change during it or the pause is seen.
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

    async def _tell_life(self, fleet: Fleet, period: float) -> None:
        """Give signs of life: only while the supervisor's own task answers, as a loop that runs says nothing of it."""
        while True:
            with anyio.move_on_after(period) as patience:
                await fleet.supervisor.heartbeat.next_beat()
            if not patience.cancelled_caught:
                self._notifier.send("WATCHDOG=1")
                await anyio.sleep(period)

    def _cannot_send(self, why: str) -> None:
        if not self._is_told:
            self._is_told = True
            self._tell(DaemonWarning("systemd", f"cannot notify systemd: {why}"))


def _extension(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}"


def _status(fleet: Fleet, wait: float | None) -> str:
    reload = fleet.reloads.last
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
