"""The daemon's process: a fleet with its log, metrics, signals and watched config, begun in order, ended in reverse."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Hashable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

import anyio

from ..clients.listener import Listener, SocketUnusable, inherit, listen
from ..core.config.config import AccessConfig, Config
from ..core.errors import ConfigError, Problem
from ..core.events import DaemonFailed, DaemonListening, DaemonStopping, DaemonWarning, InternalError
from ..core.paths import SOCKET_VARIABLE, catalog_cache_file, daemon_socket, temporary_directory
from ..processes.children_file import ChildrenFile
from ..processes.reaper import Reaper
from ..telemetry import tracing
from ..telemetry.events import Events
from ..telemetry.log import LogObserver
from ..telemetry.log_lines import Format, Level
from ..telemetry.log_settings import LogSettings
from . import config_file
from .fleet import Fleet
from .metrics import FleetMetrics
from .systemd import Service
from .watcher import identity, watch

EXIT_FAILED = 1
EXIT_CONFIG = 78
"""As in sysexits.h: the unit file tells systemd not to start again on it."""
STOP_MARGIN = 10.0
"""Seconds for killing what did not stop, and what that left behind, and for our own end."""


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
        known = identity(path)  # before the file is read: the watcher then sees an edit made in between
        loaded = config_file.load(path)
    except ConfigError as unusable:
        if path is not None:
            _complain(f"the config {path} cannot be used:")
        for problem in unusable.problems:
            _complain(str(problem))
        return EXIT_CONFIG

    log = LogSettings(loaded.daemon.log, level=log_level, form=log_format)
    try:
        listener = _listener(socket, shared=_is_shared(loaded.daemon.access))
    except SocketUnusable as unusable:
        _complain(str(unusable))
        return EXIT_FAILED
    try:
        return anyio.run(partial(Daemon.main, path, loaded, known=known, listener=listener, log=log))
    except Exception as bug:
        LogObserver()(DaemonFailed(_stack(bug)))
        return EXIT_FAILED
    finally:
        listener.close()


def _stack(bug: BaseException) -> str:
    """The stack of a bug; of several at once, those of each, without the task groups that they came through."""
    if isinstance(bug, BaseExceptionGroup):
        return "".join(map(_stack, bug.exceptions))
    return "".join(traceback.format_exception(bug))


def _complain(message: str) -> None:
    with suppress(OSError):  # a full disk must not change the exit code
        sys.stderr.write(f"mcp-multi-server: {message}\n")


def _listener(named: str | None, *, shared: bool) -> Listener:
    """The socket that systemd passed, or one that we make. Raises SocketUnusable."""
    named = named or os.environ.get(SOCKET_VARIABLE)
    passed = inherit(os.environ, named)
    path = named or daemon_socket(os.environ, os.geteuid(), temporary_directory(os.environ))
    return passed or listen(path, shared=shared)


class Daemon:
    """A fleet as a process: with its log, metrics, signals and watched config.

    `main` makes it on the running loop, runs it and ends it.
    """

    @classmethod
    async def main(cls, path: str, config: Config, *, known: Hashable, listener: Listener, log: LogSettings) -> int:
        """Run until a signal says stop. `known`: the file's `identity` before it was read."""
        daemon = cls(path, config, listener, log)
        await daemon._begin()
        try:
            await daemon._run(known)
        finally:
            await daemon._end()
        return 0

    def __init__(self, path: str, config: Config, listener: Listener, log: LogSettings) -> None:
        self._listener = listener
        self._log = log
        self._stop = anyio.Event()
        self._events = events = Events()
        self._log_observer = LogObserver()
        events.add(self._log_observer)  # first, so that what the other parts warn of is logged
        self._service = Service(os.environ, tell=events.tell)
        events.add(self._service)
        self._children = ChildrenFile(listener.path, partial(self._warn, "children"))
        self._reaper = Reaper(tell=events.tell, noted=self._children.note)
        self._fleet = Fleet(
            config,
            events=events,
            path=path,
            applied=self._applied,
            reloading=self._service.reloading,
            catalog_cache=catalog_cache_file(os.environ, os.path.expanduser("~"), path),
            reaper=self._reaper,
            log=log,
        )
        self._metrics = FleetMetrics(self._fleet)
        events.add(self._metrics.count)

    async def _begin(self) -> None:
        """Listen to signals, and end what a daemon before us left: no server starts beside its own predecessor."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._callback_failed)
        # Before the sweep, which takes time: a stop that comes meanwhile is not lost.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop, signal.Signals(number).name)
        self._reaper.adopt()
        left = self._children.take_over(self._reaper.run)
        if left is not None:
            await self._reaper.sweep(left)
        self._children.note(())

    async def _end(self) -> None:
        """Leave nothing, in whatever way the daemon came to its end."""
        # Ctrl-C or a bug may have cancelled this task: the processes must end all the same.
        with anyio.CancelScope(shield=True):
            await self._reaper.end_abandoned()
        self._children.remove()  # last: if we are killed before, the next start ends what the file names
        self._log_observer.flush()

    async def _run(self, known: Hashable) -> None:
        fleet, listener, tell = self._fleet, self._listener, self._events.tell
        reload_soon = fleet.reloads.config_may_have_changed
        async with anyio.create_task_group() as tasks:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, tasks.start_soon, reload_soon)
            tasks.start_soon(self._log_observer.run)
            tasks.start_soon(self._reaper.keep)
            if tracing.wanted(os.environ):
                tasks.start_soon(self._trace)
            await tasks.start(fleet.run)  # before `listen`: the first client must find the servers known
            fleet.gateway.listen(listener.socket)
            address = await self._metrics.serve(tasks, ready=self._is_ready, tell=tell)
            tell(DaemonListening(listener.path, fleet.reloads.path, address))
            tasks.start_soon(watch, fleet.reloads.path, known, reload_soon)
            tasks.start_soon(self._service.run, fleet)  # last: it says READY=1
            await self._stop.wait()
            if listener.is_passed:
                fleet.gateway.stop_accepting()  # systemd keeps who comes now for the next daemon
            await fleet.close("the daemon stops")
            tasks.cancel_scope.cancel()

    async def _trace(self) -> None:
        """Have spans made of forwarded requests and sent, until cancelled."""
        async with tracing.tracer(os.environ, tell=self._events.tell) as tracer:
            self._fleet.router.trace(tracer)
            await anyio.sleep_forever()

    def _is_ready(self) -> bool:
        return not self._stop.is_set()

    def _applied(self, before: Config, after: Config) -> None:
        self._log.follow(after.daemon.log)
        for problem in _waits_for_restart(before, after, passed=self._listener.is_passed):
            self._warn("config", str(problem))

    def _told_to_stop(self, name: str) -> None:
        if self._stop.is_set():
            self._reaper.kill()  # _exit() runs no `finally`, so the servers are killed here
            os._exit(EXIT_FAILED)  # a second signal is immediate; what it leaves of files the next start sees to
        self._stop.set()
        self._service.stopping(name, _longest_stop(self._fleet.snapshot.config))
        self._events.tell(DaemonStopping(name))

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Something that no task waits for has raised. What the system refused is no bug of ours."""
        bug = context.get("exception")
        if isinstance(bug, Exception) and not isinstance(bug, OSError):
            self._events.tell(InternalError("event loop", _stack(bug)))
        else:
            loop.default_exception_handler(context)

    def _warn(self, subject: str, message: str) -> None:
        self._events.tell(DaemonWarning(subject, message))


def _is_shared(access: AccessConfig) -> bool:
    """Whether other users than the daemon's own and root may connect."""
    return bool(access.users or access.groups or access.admins)


def _longest_stop(config: Config) -> float:
    """Seconds after which a stop that goes on is no longer what the config asks for."""
    servers = (server.stop_timeout for server in config.servers.values())
    return config.daemon.drain + max(servers, default=0.0) + STOP_MARGIN


def _waits_for_restart(before: Config, after: Config, *, passed: bool) -> Iterable[Problem]:
    """What a new config wants that the running process cannot give. `passed`: the socket's mode is systemd's."""
    message = "takes effect when the daemon is started again"
    if before.daemon.metrics != after.daemon.metrics:
        yield Problem("daemon.metrics", message)
    if _is_shared(after.daemon.access) and not (passed or _is_shared(before.daemon.access)):
        yield Problem("daemon.access", f"for other users, {message}")
