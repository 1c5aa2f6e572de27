"""The fleet that a client attaches to: one that runs in this process, or that of a daemon."""

from __future__ import annotations

import asyncio
import logging
import os
import socket as sockets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio

from ..core.config import Config
from ..core.events import Event, RequestDone
from ..core.paths import socket_candidates, temporary_directory
from ..daemon.fleet import Fleet
from ..daemon.watcher import identity, watch
from ..telemetry.describe import describe
from ..telemetry.events import Events
from .attachment import Attachment

Dial: TypeAlias = Callable[[], Awaitable[sockets.socket]]
"""Gives a socket that is connected to a fleet; raises OSError where there is none."""


@dataclass(frozen=True, slots=True)
class FleetSource:
    """A fleet that a client can attach to. `own_fleet` or `daemon_fleet` makes it, for as long as they are entered."""

    dial: Dial
    settle: Callable[[Attachment], Coroutine[Any, Any, str]]
    """Waits until each server is ready or has failed once; returns why the client must not go on, or ""."""

    async def settled(self, attachment: Attachment) -> str:
        """As `settle`, but not longer than the session lives, which must be there: servers may ask while they start.

        A session that ends meanwhile is no reason not to go on: the client attaches again.
        """
        settling = asyncio.ensure_future(self.settle(attachment))
        await first(settling, attachment.ended())
        return settling.result() if settling.done() and not settling.cancelled() else ""


START_WITHIN = 30.0
"""Seconds that connecting waits for servers that a daemon is just starting."""
_log = logging.getLogger("mcp_multi_server")


@asynccontextmanager
async def own_fleet(
    config: Config, path: str, *, is_strict: bool, abilities: frozenset[str]
) -> AsyncIterator[FleetSource]:
    """Run the servers of a config in this process; `path` is its file, "" where there is none.

    `abilities`: what servers are told that they may ask. `is_strict`: a server that cannot be reached is a reason not
    to go on.
    """
    known = identity(path) if path else None
    fleet = Fleet(config, events=Events(_log_event), path=path, abilities=abilities)

    async def dial() -> sockets.socket:
        ours, theirs = sockets.socketpair()
        fleet.gateway.adopt(theirs)
        return ours

    async def settle(attachment: Attachment) -> str:
        failures = await _first_attempts(fleet)
        await attachment.refresh()
        return "; ".join(failures) if is_strict else ""

    async with anyio.create_task_group() as tasks:
        await tasks.start(fleet.run)
        if path:
            tasks.start_soon(watch, path, known, fleet.reloads.config_may_have_changed)
        yield FleetSource(dial, settle)
        fleet.gateway.close("the client is closed")
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def daemon_fleet(path: str | os.PathLike[str] | None) -> AsyncIterator[FleetSource]:
    """The fleet of the daemon at this socket, or at the first usual one. Raises ConnectionError where there is none."""
    candidates = (os.fspath(path),) if path else _usual_sockets()

    async def dial() -> sockets.socket:
        failures = []
        for candidate in candidates:
            connected = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM | sockets.SOCK_NONBLOCK)
            try:
                await asyncio.get_running_loop().sock_connect(connected, candidate)
            except OSError as failure:
                connected.close()
                failures.append(f"{candidate} ({failure.strerror or failure})")
            else:
                return connected
        raise ConnectionError(f"the daemon cannot be reached at {' or '.join(failures)}")

    first: sockets.socket | None = await dial()  # at once, so that no daemon is an error of entering

    async def dial_again() -> sockets.socket:
        nonlocal first
        connected, first = first, None
        return connected or await dial()

    yield FleetSource(dial_again, _settle)


async def _settle(attachment: Attachment) -> str:
    """Wait for a daemon's servers, within bounds: that one does not start is the daemon's concern, not the client's."""
    with anyio.move_on_after(START_WITHIN):
        await attachment.settled()
    return ""


async def _first_attempts(fleet: Fleet) -> list[str]:
    """Wait until each server is ready or has failed once; what went wrong with which."""
    failures = []
    for server in fleet.snapshot.servers.values():
        with anyio.move_on_after(server.config.start_timeout + server.config.stop_timeout):
            await server.attempted.wait()
        if server.live is None:
            reason = server.status.failure.message if server.status.failure else "not ready in time"
            failures.append(f"server {server.name!r}: {reason}")
    return failures


def _log_event(event: Event) -> None:
    """Log an event in the program's own log; a call only where it logs that much."""
    if type(event) is RequestDone and not _log.isEnabledFor(logging.DEBUG):
        return
    entry = describe(event)
    _log.log(entry.level, "%s", entry)


def _usual_sockets() -> tuple[str, ...]:
    return socket_candidates(os.environ, os.geteuid(), temporary_directory(os.environ))


async def first(*waits: Any) -> None:
    """Wait for the first of these to end, and cancel the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
