"""The fleets that a client can connect to: one of its own, run in this process from a config, or a daemon's."""

from __future__ import annotations

import asyncio
import logging
import os
import socket as sockets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from ..core.config.config import Config
from ..core.config.settings import LimitsConfig
from ..core.config.values import MAX_BYTES
from ..core.events import Event, RequestDone, Stderr
from ..core.paths import socket_candidates, temporary_directory
from ..daemon.fleet import Fleet
from ..daemon.watcher import identity, watch
from ..telemetry.describe import describe
from ..telemetry.events import Events
from .session import ANSWER_WITHIN, Dial, FleetSession

CONNECT_WITHIN = 5.0
"""Seconds in which a daemon must have answered a program that connects to it, unless the program says otherwise."""
START_WITHIN = 30.0
"""Seconds that connecting waits for servers that a daemon is just starting."""
KNOCK_EVERY = 0.05
"""Seconds between attempts to connect to a daemon whose queue of new clients is full."""
OUTGOING = 4 * MAX_BYTES
PARTIAL_LINE = 3600.0
"""What holds in place of the daemon's defaults where a program runs its own servers: bytes, and seconds."""
_log = logging.getLogger("mcp_multi_server.client")
_stderr_log = logging.getLogger("mcp_multi_server.stderr")
"""Of the servers' own lines, so that a program can leave them out or send them elsewhere."""


@dataclass(frozen=True, slots=True)
class FleetAccess:
    """How a client gets at a fleet, its own or a daemon's: over a socket. `own_fleet` or `daemon_fleet` makes it."""

    dial: Dial
    settle: Callable[[FleetSession], Coroutine[Any, Any, str]]
    """Waits until each server is ready or has failed once. Returns why the client must not go on, or ""."""
    connect_within: float | None = ANSWER_WITHIN
    """Seconds in which it must have answered the first time."""
    is_daemon: bool = False
    """Whether it lives in another process, which may go, or hang, or come back."""


@asynccontextmanager
async def own_fleet(
    config: Config, path: str, *, is_strict: bool, abilities: frozenset[str]
) -> AsyncIterator[FleetAccess]:
    """Run the servers of a config in this process, until left; edits of the file `path` ("" for none) are applied.

    `is_strict`: the client must not go on if one server cannot be reached. `abilities`: the input requests that
    servers are told they may make.
    """
    known = identity(path) if path else None
    fleet = Fleet(config, events=Events(_log_event), path=path, abilities=abilities, limits=_own_limits)

    async def dial() -> sockets.socket:
        # The client talks to its own fleet as to a daemon's: one way through the code for both.
        ours, theirs = sockets.socketpair()
        fleet.gateway.adopt(theirs)
        return ours

    async def settle(session: FleetSession) -> str:
        failures = await _first_attempts(fleet)
        await session.refresh()  # so that what the servers offer is listed when connecting returns
        return "; ".join(failures) if is_strict else ""

    async with anyio.create_task_group() as tasks:
        await tasks.start(fleet.run)
        if path:
            tasks.start_soon(watch, path, known, fleet.reloads.config_may_have_changed)
        yield FleetAccess(dial, settle)
        fleet.gateway.close("the client is closed")
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def daemon_fleet(path: str | os.PathLike[str] | None, within: float | None) -> AsyncIterator[FleetAccess]:
    """Use the servers of the daemon at this socket, or at the usual ones; it must answer within so many seconds."""
    candidates = (os.fspath(path),) if path else _usual_sockets()

    async def dial() -> sockets.socket:
        failures = []
        for candidate in candidates:
            try:
                return await _connected(candidate)
            except OSError as failure:
                failures.append(f"{candidate} ({failure.strerror or failure})")
        raise ConnectionError(f"the daemon cannot be reached at {' or '.join(failures)}")

    yield FleetAccess(dial, _settle, within, is_daemon=True)


async def _connected(path: str) -> sockets.socket:
    """A socket connected to this path; waits while the queue of those who connect is full. Raises OSError."""
    connected = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM | sockets.SOCK_NONBLOCK)
    try:
        while True:
            try:
                connected.connect(path)  # never in progress: on a Unix socket it is done, or refused, at once
                return connected
            except BlockingIOError:
                # asyncio's `sock_connect` would take a full queue for a connection that is being made.
                await asyncio.sleep(KNOCK_EVERY)
    except BaseException:
        connected.close()
        raise


async def _settle(session: FleetSession) -> str:
    """Wait for the daemon's servers, not for ever; one that does not start never keeps a client from going on."""
    with anyio.move_on_after(START_WITHIN):
        await session.settled()
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


def _own_limits(config: Config) -> LimitsConfig:
    """The limits of the config; where it sets none on a message, there is none to speak of.

    A daemon's limits keep strangers from hurting one another. Here every message is the program's own, or is from a
    server that it chose.
    """
    limits, given = config.daemon.limits, config.daemon.limits.model_fields_set
    outgoing = limits.outgoing if "outgoing" in given else OUTGOING
    longest = min(MAX_BYTES, outgoing)  # one message must not be enough to cut off its reader
    own = {"client_line": longest, "server_line": longest, "outgoing": outgoing, "partial_line": PARTIAL_LINE}
    return limits.model_copy(update={key: value for key, value in own.items() if key not in given})


def _log_event(event: Event) -> None:
    """Log an event of the client's own fleet, as the daemon would."""
    # Most events are of this type, and wanted by nobody: their text is not even made.
    if type(event) is RequestDone and not _log.isEnabledFor(logging.DEBUG):
        return
    entry = describe(event)
    (_stderr_log if isinstance(event, Stderr) else _log).log(entry.level, "%s", entry)


def _usual_sockets() -> tuple[str, ...]:
    return socket_candidates(os.environ, os.geteuid(), temporary_directory(os.environ))
