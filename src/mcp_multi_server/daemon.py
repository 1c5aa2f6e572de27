"""The process: composes the parts, starts them in order, listens to signals, stops them in reverse."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable
from functools import partial
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from .core.config import AccessConfig, Config, LogConfig, parse
from .core.errors import ConfigError, Problem
from .core.events import ConfigReloaded, DaemonListening, DaemonStopping, DaemonWarning, Event, InternalError
from .core.paths import daemon_socket, temporary_directory
from .core.plan import Plan
from .runtime import config_file, metrics_http
from .runtime.connection import Connection
from .runtime.control import Control
from .runtime.gateway import Gateway
from .runtime.link import Flusher
from .runtime.listener import Listener, SocketUnusable, listen
from .runtime.log_lines import Format, Level
from .runtime.metrics import FleetSample, LoopLag, Metrics
from .runtime.opener import TransportOpener
from .runtime.router import Router
from .runtime.session import Session
from .runtime.snapshot import Snapshot
from .runtime.status import Reload, fleet_sample, iso, wall
from .runtime.supervisor import Supervisor
from .runtime.telemetry import Telemetry, configure
from .runtime.watcher import identity, watch

EXIT_FAILED = 1
DRAIN_LOOK_EVERY = 0.02
EXIT_CONFIG = 78
"""As in sysexits.h: the unit file tells systemd not to start again on it."""
Logging: TypeAlias = Callable[[LogConfig], None]
"""Has the log be as a config wants it."""


def run(
    *,
    config: str | None,
    socket: str | None,
    log_level: Level | None = None,
    log_format: Format | None = None,
) -> int:
    """Run the daemon until it is told to stop; its exit code."""
    path = None
    try:
        path = config_file.find(config)
        known = identity(path)
        loaded = config_file.load(path)
    except ConfigError as unusable:
        if path is not None:
            _complain(f"the config {path} cannot be used:")
        for problem in unusable.problems:
            _complain(str(problem))
        return EXIT_CONFIG

    def log_as(log: LogConfig) -> None:
        """The command line is stronger than the config, at a reload too."""
        configure(log_level or log.level, log_format or log.format)

    log_as(loaded.daemon.log)
    try:
        path_of_socket = socket or daemon_socket(os.environ, os.geteuid(), temporary_directory(os.environ))
        listener = listen(path_of_socket, shared=_is_shared(loaded.daemon.access))
    except SocketUnusable as unusable:
        _complain(str(unusable))
        return EXIT_FAILED
    try:
        return anyio.run(partial(Daemon.main, path, loaded, known=known, listener=listener, log_as=log_as))
    finally:
        listener.close()


def _complain(message: str) -> None:
    sys.stderr.write(f"mcp-multi-server: {message}\n")


class Daemon:
    """Everything that lives in the process, made on the running loop."""

    @classmethod
    async def main(cls, path: str, config: Config, *, known: Hashable, listener: Listener, log_as: Logging) -> int:
        """Run until a signal says stop. `known`: the file's `identity` before it was read."""
        return await cls(path, config, log_as)._run(listener, known)

    def __init__(self, path: str, config: Config, log_as: Logging) -> None:
        self.config_path = path
        self._log_as = log_as
        self.started_at = time.time()
        outcome = "partial" if config.broken else "applied"
        self.last_reload = Reload(outcome, self.started_at, self.started_at, _problems(config))
        self._telemetry = Telemetry()
        self._lag = LoopLag()
        self._metrics = Metrics(self._sample)
        self._flusher = Flusher()
        self._reloading = anyio.Lock()
        self._stop = anyio.Event()
        self._stopping = False
        self._tasks: TaskGroup | None = None
        opener = TransportOpener(lambda: self.snapshot.config.daemon.limits, self._flusher, dict(os.environ))
        self._supervisor = Supervisor(config, open_transport=opener, observe=self._observe, luck=random.random)
        self._router = Router(
            lambda: self._supervisor.snapshot, observe=self._observe, wall=lambda time: iso(wall(time))
        )
        self._supervisor.listeners.append(self._router.changed)
        self._gateway = Gateway(
            self._supervisor, self._router, Control(self), observe=self._observe, flusher=self._flusher
        )

    async def _run(self, listener: Listener, known: Hashable) -> int:
        loop = asyncio.get_running_loop()
        for number, action in ((signal.SIGTERM, self._told_to_stop), (signal.SIGINT, self._told_to_stop)):
            loop.add_signal_handler(number, action, signal.Signals(number).name)
        loop.add_signal_handler(signal.SIGHUP, self._reload_soon)
        async with anyio.create_task_group() as self._tasks:
            self._tasks.start_soon(self._telemetry.start)
            await self._tasks.start(self._supervisor.run)
            self._gateway.listen(listener.socket)
            address = await self._serve_metrics(self._tasks)
            self._observe(DaemonListening(listener.path, self.config_path, address))
            self._tell_doubts(*_problems(self.snapshot.config), *self.snapshot.config.notes)
            self._tasks.start_soon(watch, self.config_path, known, self._config_may_have_changed)
            await self._stop.wait()
            await self._drain()
            self._gateway.close("the daemon stops")
            self._tasks.cancel_scope.cancel()
        self._telemetry.flush()
        return 0

    # -- what the control methods have done (see Actions) ----------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        """See Actions."""
        return self._supervisor.snapshot

    def clients(self) -> Iterable[Session]:
        """See Actions."""
        return list(self._gateway.sessions.values())

    def later(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """See Actions."""
        if self._tasks is not None:
            self._tasks.start_soon(self._contained, work)

    async def reload(self) -> tuple[Reload, Plan]:
        """See Actions; a config that cannot be used leaves everything as it is."""
        async with self._reloading:
            before = self.snapshot.config
            try:
                config = await anyio.to_thread.run_sync(config_file.load, self.config_path)
            except ConfigError as unusable:
                return self._reloaded("rejected", unusable.problems, Plan())
            if config.keeping(before) == before:
                return self._reloaded("unchanged", _problems(config), Plan(keep=tuple(before.servers)))
            outcome, plan = await self._supervisor.apply(config.keeping(before))
            self._log_as(config.daemon.log)
            self._tell_doubts(*config.notes, *_waits_for_restart(before, config))
            return self._reloaded(outcome, _problems(config), plan)

    async def restart(self, server: str) -> Connection:
        """See Actions."""
        connection = self.snapshot.connections[server]
        connection.restart()
        with anyio.move_on_after(connection.config.start_timeout + connection.config.stop_timeout):
            await connection.attempted.wait()
        return connection

    async def plan(self, config: bytes | None) -> tuple[Plan, tuple[Problem, ...]]:
        """See Actions."""
        if config is None:
            read = partial(config_file.load, self.config_path)
        else:
            read = partial(parse, config, config_file.lookup_in(os.path.dirname(self.config_path)))
        try:
            after = await anyio.to_thread.run_sync(read)
        except ConfigError as unusable:
            return Plan(), unusable.problems
        before = self.snapshot.config
        return Plan.between(before, after.keeping(before)), _problems(after)

    def _reloaded(self, outcome: str, problems: tuple[Problem, ...], plan: Plan) -> tuple[Reload, Plan]:
        changed = {step: names for step in ("start", "stop", "replace", "update") if (names := getattr(plan, step))}
        now = time.time()
        in_force = outcome in ("applied", "partial")
        reload = Reload(outcome, now, now if in_force else self.last_reload.loaded_at, problems)
        if outcome != "unchanged" or self.last_reload.outcome == "rejected":
            self.last_reload = reload
        self._observe(ConfigReloaded(outcome, self.snapshot.generation, problems, changed))
        return reload, plan

    async def _config_may_have_changed(self) -> None:
        await self._contained(self.reload)

    async def _contained(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do it; a bug of ours in it costs its outcome and nothing else."""
        try:
            await work()
        except Exception:
            self._observe(InternalError("daemon", traceback.format_exc()))

    def _tell_doubts(self, *doubts: Problem) -> None:
        for doubt in doubts:
            self._observe(DaemonWarning("config", str(doubt)))

    # -- metrics ---------------------------------------------------------------------------------------------------

    async def _serve_metrics(self, tasks: TaskGroup) -> str:
        """Serve /metrics where the config wants it; where that cannot be had, the daemon does without."""
        settings = self.snapshot.config.daemon.metrics
        tasks.start_soon(self._lag.run)
        serve = partial(
            metrics_http.serve,
            settings.listen,
            self._metrics,
            ready=lambda: not self._stopping,
            allowed_hosts=settings.allowed_hosts,
            observe=self._observe,
        )
        try:
            return str(await tasks.start(serve))
        except metrics_http.CannotListen as unusable:
            self._observe(DaemonWarning("metrics", str(unusable)))
            return "off"

    def _sample(self) -> FleetSample:
        return fleet_sample(
            self.snapshot, self.last_reload, clients=len(self._gateway.sessions), loop_lag=self._lag.take()
        )

    # -- signals, start, stop --------------------------------------------------------------------------------------

    def _told_to_stop(self, name: str) -> None:
        if self._stopping:
            os._exit(EXIT_FAILED)  # a second signal is immediate; the kernel ends the children with us
        self._stopping = True
        self._observe(DaemonStopping(name))
        self._stop.set()

    def _reload_soon(self) -> None:
        self.later(self._config_may_have_changed)

    async def _drain(self) -> None:
        """Let running calls end, for a while; new ones are still taken and count."""
        for _ in range(round(self.snapshot.config.daemon.drain / DRAIN_LOOK_EVERY)):
            if not any(session.waits_for_server for session in self.clients()):
                return
            await anyio.sleep(DRAIN_LOOK_EVERY)

    def _observe(self, event: Event) -> None:
        self._telemetry(event)
        self._metrics(event)
        self._gateway.spread(event)


def _is_shared(access: AccessConfig) -> bool:
    """Whether other users than the daemon's own and root may connect."""
    return bool(access.users or access.groups or access.admins)


def _waits_for_restart(before: Config, after: Config) -> Iterable[Problem]:
    """What a new config wants that the running process cannot give."""
    message = "takes effect when the daemon is started again"
    if before.daemon.metrics != after.daemon.metrics:
        yield Problem("daemon.metrics", message)
    if _is_shared(after.daemon.access) and not _is_shared(before.daemon.access):
        yield Problem("daemon.access", f"for other users, {message}")


def _problems(config: Config) -> tuple[Problem, ...]:
    return tuple(problem for problems in config.broken.values() for problem in problems)
