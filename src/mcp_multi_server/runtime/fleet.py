"""Servers and clients of one config, put together: what the daemon and a program with servers of its own share."""

from __future__ import annotations

import os
import random
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup, TaskStatus

from ..core.config import Config, parse
from ..core.errors import ConfigError, Problem
from ..core.events import ConfigReloaded, DaemonWarning, Event, InternalError, Observer
from ..core.plan import Plan
from . import config_file
from .connection import Connection
from .control import Control
from .gateway import Gateway
from .link import Flusher
from .opener import TransportOpener
from .router import Router
from .session import Session
from .snapshot import Snapshot
from .status import Reload, iso, wall
from .supervisor import Supervisor

DRAIN_LOOK_EVERY = 0.02


class Fleet:
    """Runs the servers of a config for the clients of its gateway; carries out what control methods ask (see Actions).

    `config_path` is the file that `reload` reads; "" where the config came from elsewhere. `applied` is told of each
    config that took the place of another. `abilities`: see Router.
    """

    def __init__(
        self,
        config_path: str,
        config: Config,
        *,
        observe: Observer,
        applied: Callable[[Config, Config], None] = lambda before, after: None,
        environ: Mapping[str, str] = os.environ,
        abilities: frozenset[str] | None = None,
    ) -> None:
        self.config_path = config_path
        self.started_at = time.time()
        outcome = "partial" if config.broken else "applied"
        self.last_reload = Reload(outcome, self.started_at, self.started_at, problems_of(config))
        self._tell = observe
        self._applied = applied
        self._reloading = anyio.Lock()
        self._tasks: TaskGroup | None = None
        flusher = Flusher()
        opener = TransportOpener(lambda: self.snapshot.config.daemon.limits, flusher, dict(environ))
        router = Router(
            lambda: self.snapshot, observe=self.observe, wall=lambda time: iso(wall(time)), abilities=abilities
        )
        self._supervisor = Supervisor(
            config, open_transport=opener, observe=self.observe, luck=random.random, host=router
        )
        self._supervisor.listeners.append(router.changed)
        self.gateway = Gateway(self._supervisor, router, Control(self), observe=self.observe, flusher=flusher)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run every server until cancelled; then stop all of them at once."""
        async with anyio.create_task_group() as self._tasks:
            await self._tasks.start(self._supervisor.run)
            self._tell_doubts(*problems_of(self.snapshot.config), *self.snapshot.config.notes)
            task_status.started()
            await anyio.sleep_forever()

    async def drain(self) -> None:
        """Let running calls end, for as long as the config says; new ones are still taken and count."""
        for _ in range(round(self.snapshot.config.daemon.drain / DRAIN_LOOK_EVERY)):
            if not any(session.waits_for_server for session in self.clients()):
                return
            await anyio.sleep(DRAIN_LOOK_EVERY)

    def observe(self, event: Event) -> None:
        """Tell the observer, and the clients that follow events."""
        self._tell(event)
        self.gateway.spread(event)

    # -- what the control methods have done (see Actions) ----------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        """See Actions."""
        return self._supervisor.snapshot

    def clients(self) -> Iterable[Session]:
        """See Actions."""
        return list(self.gateway.sessions.values())

    def later(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """See Actions."""
        if self._tasks is not None:
            self._tasks.start_soon(self._contained, work)

    async def reload(self) -> tuple[Reload, Plan]:
        """See Actions; a config that cannot be used leaves everything as it is."""
        async with self._reloading:
            before = self.snapshot.config
            try:
                config = await anyio.to_thread.run_sync(self._read)
            except ConfigError as unusable:
                return self._reloaded("rejected", unusable.problems, Plan())
            if config.keeping(before) == before:
                return self._reloaded("unchanged", problems_of(config), Plan(keep=tuple(before.servers)))
            outcome, plan = await self._supervisor.apply(config.keeping(before))
            self._tell_doubts(*config.notes)
            self._applied(before, config)
            return self._reloaded(outcome, problems_of(config), plan)

    async def restart(self, server: str) -> Connection:
        """See Actions."""
        connection = self.snapshot.connections[server]
        connection.restart()
        with anyio.move_on_after(connection.config.start_timeout + connection.config.stop_timeout):
            await connection.attempted.wait()
        return connection

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

    async def config_may_have_changed(self) -> None:
        """Reload; a bug of ours in it costs its outcome and nothing else."""
        await self._contained(self.reload)

    def _read(self) -> Config:
        if not self.config_path:
            raise ConfigError((Problem("", "there is no config file to read"),))
        return config_file.load(self.config_path)

    def _reloaded(self, outcome: str, problems: tuple[Problem, ...], plan: Plan) -> tuple[Reload, Plan]:
        changed = {step: names for step in ("start", "stop", "replace", "update") if (names := getattr(plan, step))}
        now = time.time()
        in_force = outcome in ("applied", "partial")
        reload = Reload(outcome, now, now if in_force else self.last_reload.loaded_at, problems)
        if outcome != "unchanged" or self.last_reload.outcome == "rejected":
            self.last_reload = reload
        self.observe(ConfigReloaded(outcome, self.snapshot.generation, problems, changed))
        return reload, plan

    async def _contained(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except Exception:
            self.observe(InternalError("fleet", traceback.format_exc()))

    def _tell_doubts(self, *doubts: Problem) -> None:
        for doubt in doubts:
            self.observe(DaemonWarning("config", str(doubt)))


def problems_of(config: Config) -> tuple[Problem, ...]:
    """All that is wrong with the entries of a config."""
    return tuple(problem for problems in config.broken.values() for problem in problems)
