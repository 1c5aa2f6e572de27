"""Servers and clients of one config, put together: for the daemon, for a program with its own servers, for tests."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import anyio
from anyio.abc import TaskStatus

from ..calls.router import Router
from ..clients.followers import EventFollowers, LogFollowers
from ..clients.gateway import Gateway
from ..clients.session import ClientSession
from ..core.config.config import Config
from ..core.config.settings import LimitsConfig
from ..core.events import Woke
from ..core.suspend import Clocks
from ..processes.reaper import Reaper
from ..servers.catalog_cache import CatalogCache
from ..servers.clock import iso, wall
from ..servers.opener import TransportOpener
from ..servers.server import Opener
from ..servers.snapshot import Snapshot, Snapshots
from ..servers.supervisor import Supervisor
from ..telemetry.events import Events
from ..telemetry.log_settings import LogSettings
from ..transport.link import Flusher
from . import suspend
from .control import Control
from .reload import Reloads


class Fleet:
    """Runs the servers of a config for the clients of its gateway: the one place where those parts are put together.

    The daemon, or a program with servers of its own, makes it on the running loop; `run` is its task. Each part is
    given those that it needs, which are made before it.

    `events`: the door for all that happens. `path`: the file that the config came from and is read from again, "" for
    none. `applied` is told of each config that took the place of another; `reloading` is entered for as long as a
    reload takes. `catalog_cache`: the file in which catalogs outlive the process; "" for none. `reaper` keeps account
    of the processes. `log` is None where the process is somebody else's, and its log too. `abilities`: what the one
    client of a program's own servers can be asked, None for a daemon's. `limits`: those that hold under a config. Tests
    give an opener, jitter and clocks of their own.
    """

    def __init__(
        self,
        config: Config,
        *,
        events: Events,
        path: str = "",
        applied: Callable[[Config, Config], None] = lambda before, after: None,
        reloading: Callable[[], AbstractContextManager[None]] = nullcontext,
        catalog_cache: str = "",
        reaper: Reaper | None = None,
        log: LogSettings | None = None,
        abilities: frozenset[str] | None = None,
        limits: Callable[[Config], LimitsConfig] = lambda config: config.daemon.limits,
        opener: Opener | None = None,
        jitter: Callable[[], float] = random.random,
        clocks: Callable[[], Clocks] = suspend.clocks,
    ) -> None:
        self.events = events
        self._clocks = clocks
        self._limits = limits
        flusher = Flusher()
        self._snapshots = snapshots = Snapshots(config)
        self._catalog_cache = cache = (
            CatalogCache(catalog_cache, snapshots.present, tell=events.tell) if catalog_cache else None
        )
        self.router = Router(
            snapshots.present, tell=events.tell, wall=lambda time: iso(wall(time)), abilities=abilities
        )
        self.supervisor = Supervisor(
            snapshots,
            open_transport=opener or TransportOpener(self._present_limits, flusher, dict(os.environ), reaper),
            tell=events.tell,
            jitter=jitter,
            clients=self.router,
            prepare=cache.offer_to if cache else None,
        )
        self.reloads = Reloads(path, self.supervisor, tell=events.tell, applied=applied, shown=reloading)
        self.event_followers = EventFollowers(snapshots.present)
        self.log_followers = LogFollowers(snapshots.present)
        sessions: dict[int, ClientSession] = {}  # the gateway fills it, `daemon/status` lists it
        self.control = Control(
            self.supervisor,
            self.reloads,
            sessions=sessions,
            events=self.event_followers,
            stderr=self.log_followers,
            log=log,
            tell=events.tell,
        )
        self.gateway = Gateway(
            snapshots,
            self.router,
            sessions=sessions,
            control=self.control.serve,
            tell=events.tell,
            flusher=flusher,
            limits=limits,
        )
        events.add(self.log_followers)
        events.add(self.event_followers)
        # Calls that wait for a server are sent before anybody hears of the change.
        snapshots.listeners += [self.router.changed, self.gateway.published]
        if cache is not None:
            snapshots.listeners.append(cache.published)

    @property
    def snapshot(self) -> Snapshot:
        """What clients see of the servers now."""
        return self._snapshots.present()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run every server until cancelled; then stop all of them at once."""
        async with anyio.create_task_group() as tasks:
            if self._catalog_cache is not None:
                self._catalog_cache.read()  # before any server starts, as each is offered its lists then
                tasks.start_soon(self._catalog_cache.run)
            await tasks.start(self.supervisor.run)  # first: reloads and restarts act on a supervisor that runs
            await tasks.start(self.reloads.run)
            await tasks.start(self.control.run)
            tasks.start_soon(suspend.watch, self._woke, self._clocks)
            task_status.started()
            await anyio.sleep_forever()

    async def close(self, reason: str) -> None:
        """Let running calls end, for as long as the config says, and part with the clients.

        The servers run on, until `run` is cancelled: what they offer is kept for the daemon that starts next.
        """
        await self.gateway.drain(self.snapshot.config.daemon.drain)
        self.gateway.close(reason)
        if self._catalog_cache is not None:
            await self._catalog_cache.close()

    def _present_limits(self) -> LimitsConfig:
        return self._limits(self.snapshot.config)

    def _woke(self, seconds: float) -> None:
        """The machine was suspended: connections may have died meanwhile."""
        self.events.tell(Woke(seconds))
        for server in self.snapshot.servers.values():
            server.check_now()
