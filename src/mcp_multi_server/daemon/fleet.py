"""Servers and clients of one config, put together: what the daemon and a program with servers of its own share."""

from __future__ import annotations

import os
import random
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup, TaskStatus

from ..calls.router import Router
from ..clients.control import Control
from ..clients.gateway import Gateway
from ..clients.session import FRESH, ClientSession
from ..core.config import Config, parse
from ..core.errors import ConfigError, Problem
from ..core.events import ConfigReloaded, DaemonWarning, Event, InternalError, Observer, Woke
from ..core.lifecycle import Failure
from ..core.plan import Plan
from ..core.suspend import Clocks
from ..processes.reaper import Reaper
from ..servers.catalog_cache import CatalogCache
from ..servers.clock import iso, wall
from ..servers.opener import TransportOpener
from ..servers.replacement import SUPERSEDED, Replacement
from ..servers.server import Server
from ..servers.snapshot import Snapshot, Snapshots
from ..servers.status import Reload
from ..servers.supervisor import Supervisor
from ..telemetry.log_settings import LogSettings
from ..telemetry.tracing import Tracer
from ..transport.link import Flusher
from . import config_file, suspend

DRAIN_LOOK_EVERY = 0.02


class Fleet:
    """Runs the servers of a config for the clients of its gateway; carries out what control methods ask (see Actions).

    `config_path` is the file that `reload` reads; "" where the config came from elsewhere. `applied` is told of each
    config that took the place of another; `reloading` is entered for as long as a reload takes. `memory`: the file in
    which catalogs outlive the process; "" for none. `household` keeps account of the processes, `clocks` tell of a
    suspend. `log` is None where the process is somebody else's, and its log too. `abilities`: see Router.
    """

    def __init__(
        self,
        config_path: str,
        config: Config,
        *,
        tell: Observer,
        applied: Callable[[Config, Config], None] = lambda before, after: None,
        reloading: Callable[[], AbstractContextManager[None]] = nullcontext,
        environ: Mapping[str, str] = os.environ,
        memory: str = "",
        reaper: Reaper | None = None,
        log: LogSettings | None = None,
        clocks: Callable[[], Clocks] = suspend.clocks,
        abilities: frozenset[str] | None = None,
    ) -> None:
        self.config_path = config_path
        self.started_at = time.time()
        self.log = log
        outcome = "partial" if config.broken else "applied"
        self.last_reload = Reload(outcome, self.started_at, self.started_at, problems_of(config))
        self._observer = tell
        self._applied = applied
        self._clocks = clocks
        self._reloading = anyio.Lock()
        self._is_queued = False
        self._reloads = self._last_told = 0
        """How many reloads were begun, and the number of the one that `last_reload` tells of."""
        self._around_reload = reloading
        self._tasks: TaskGroup | None = None
        flusher = Flusher()
        self._snapshots = Snapshots(config)
        opener = TransportOpener(lambda: self.snapshot.config.daemon.limits, flusher, dict(environ), reaper)
        self._catalog_cache = CatalogCache(memory, lambda: self.snapshot, tell=self.tell) if memory else None
        self._router = router = Router(
            lambda: self.snapshot, tell=self.tell, wall=lambda time: iso(wall(time)), abilities=abilities
        )
        self._supervisor = Supervisor(
            self._snapshots,
            open_transport=opener,
            tell=self.tell,
            jitter=random.random,
            host=router,
            recall=self._catalog_cache.recall if self._catalog_cache else None,
        )
        self._snapshots.listeners.append(router.changed)
        self.gateway = Gateway(self._supervisor, router, Control(self), tell=self.tell, flusher=flusher)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run every server until cancelled; then stop all of them at once."""
        async with anyio.create_task_group() as self._tasks:
            if self._catalog_cache is not None:
                self._catalog_cache.read()
                self._snapshots.listeners.append(self._catalog_cache.published)
                self._tasks.start_soon(self._catalog_cache.run)
            await self._tasks.start(self._supervisor.run)
            self._tell_doubts(*problems_of(self.snapshot.config), *self.snapshot.config.notes)
            self._tasks.start_soon(suspend.watch, self._woke, self._clocks)
            task_status.started()
            await anyio.sleep_forever()

    async def drain(self) -> None:
        """Let running calls end, for as long as the config says, and those who have just come say their first words.

        New calls are still taken and count.
        """
        patience = self.snapshot.config.daemon.drain
        for look in range(round(max(patience, FRESH) / DRAIN_LOOK_EVERY)):
            has_time = look * DRAIN_LOOK_EVERY < patience
            if not any(client.is_fresh or (has_time and client.waits_for_server) for client in self.clients()):
                return
            await anyio.sleep(DRAIN_LOOK_EVERY)

    async def remember(self) -> None:
        """Keep the catalogs of the servers, while they still run, for the daemon that starts next."""
        if self._catalog_cache is not None:
            await self._catalog_cache.close()

    def _woke(self, seconds: float) -> None:
        self.tell(Woke(seconds))
        for server in self.snapshot.servers.values():
            server.check_now()

    def trace(self, tracer: Tracer | None) -> None:
        """Have spans made of the requests that are forwarded from here on."""
        self._router.trace(tracer)

    def tell(self, event: Event) -> None:
        """See Actions: the observer, and the clients that follow events."""
        self._observer(event)
        self.gateway.spread(event)

    # -- what the control methods have done (see Actions) ----------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        """See Actions."""
        return self._supervisor.snapshot

    def clients(self) -> Iterable[ClientSession]:
        """See Actions."""
        return list(self.gateway.sessions.values())

    def later(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """See Actions."""
        if self._tasks is not None:
            self._tasks.start_soon(self._contained, work)

    async def reload(self) -> tuple[Reload, Plan]:
        """See Actions; a config that cannot be used leaves everything as it is.

        Reading and applying are done one reload at a time. Waiting for replacements is not: a later edit need not wait
        for a server that never gets ready, and may be what stops the waiting.
        """
        self._reloads += 1
        number = self._reloads
        with ExitStack() as shown:
            async with self._reloading:
                self._is_queued = False
                shown.enter_context(self._around_reload())
                before = self.snapshot.config
                try:
                    config = await anyio.to_thread.run_sync(self._read)
                except ConfigError as unusable:
                    return self._reloaded(number, "rejected", unusable.problems, Plan())
                if config.keeping(before) == before:
                    return self._reloaded(number, "unchanged", problems_of(config), Plan(keep=tuple(before.servers)))
                plan, replacements = self._supervisor.apply(config.keeping(before))
                self._tell_doubts(*config.notes)
                self._applied(before, config)
            for replacement in replacements:
                await replacement.decided.wait()
            problems = (*problems_of(config), *_failures_of(replacements))
            return self._reloaded(number, "partial" if problems else "applied", problems, plan)

    async def restart(self, server: str) -> tuple[Server, Failure | None]:
        """See Actions."""
        replacement = self._supervisor.restart(server)
        await replacement.decided.wait()
        return self.snapshot.servers.get(server, replacement.server), replacement.failure

    async def plan(self, config: bytes | None) -> tuple[Plan, tuple[Problem, ...]]:
        """See Actions."""
        directory = os.path.dirname(self.config_path)
        read = self._read if config is None else partial(parse, config, config_file.lookup_in(directory))
        try:
            after = await anyio.to_thread.run_sync(read)
        except ConfigError as unusable:
            return Plan(), unusable.problems
        before = self.snapshot.config
        return Plan.between(before, after.keeping(before)), problems_of(after)

    async def feel_heartbeat(self) -> None:
        """Return once the supervisor's own task has answered."""
        await self._supervisor.heartbeat.feel()

    async def config_may_have_changed(self) -> None:
        """Have it read again soon: what is said while one reload waits to begin is said by that one too."""
        if not self._is_queued:
            self._is_queued = True
            self.later(self._reload_unasked)

    async def _reload_unasked(self) -> None:
        await self.reload()

    def _read(self) -> Config:
        if not self.config_path:
            raise ConfigError((Problem("", "there is no config file to read"),))
        return config_file.load(self.config_path)

    def _reloaded(self, number: int, outcome: str, problems: tuple[Problem, ...], plan: Plan) -> tuple[Reload, Plan]:
        """Keep and tell how a reload went; what a later one said is not overwritten."""
        changed = {step: names for step in ("start", "stop", "replace", "update") if (names := getattr(plan, step))}
        now = time.time()
        in_force = outcome in ("applied", "partial")
        reload = Reload(outcome, now, now if in_force else self.last_reload.loaded_at, problems)
        if number > self._last_told and (outcome != "unchanged" or self.last_reload.outcome == "rejected"):
            self.last_reload, self._last_told = reload, number
        self.tell(ConfigReloaded(outcome, self.snapshot.generation, problems, changed))
        return reload, plan

    async def _contained(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except Exception:
            self.tell(InternalError("fleet", traceback.format_exc()))

    def _tell_doubts(self, *doubts: Problem) -> None:
        for doubt in doubts:
            self.tell(DaemonWarning("config", str(doubt)))


def _failures_of(replacements: Iterable[Replacement]) -> Iterator[Problem]:
    """What is to be said of the servers whose new connection is not ready."""
    for replacement in replacements:
        server, failure = replacement.server, replacement.failure
        if failure is SUPERSEDED:
            yield Problem(f"mcpServers.{server.name}", failure.message, server.name)
        elif failure is not None:
            goes_on = "it is tried again" if server.is_current else "the old server goes on"
            yield Problem(f"mcpServers.{server.name}", f"its new server: {failure.message}; {goes_on}", server.name)


def problems_of(config: Config) -> tuple[Problem, ...]:
    """All that is wrong with the entries of a config."""
    return tuple(problem for problems in config.broken.values() for problem in problems)
