"""A client's lasting connection to its fleet: one session after another, as the daemon is restarted."""

from __future__ import annotations

import asyncio
import math
import socket as sockets
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import msgspec

from ..core.errors import INTERNAL_ERROR, RpcError
from ..core.jsonrpc import Members
from ..core.lifecycle import Lost
from .callbacks import Callbacks
from .fleets import FleetAccess
from .input_requests import InputRequestHandler
from .log_delivery import LogDelivery
from .session import FleetSession, open_session
from .time_limits import TimeLimits

RECONNECT_EVERY = 0.2
RECONNECT_WITHIN = 10.0
"""Seconds between attempts to reach a daemon that is gone, and how long a call waits for it to come back."""
IN_FLIGHT = 240
"""Calls of one client at a time, further ones wait: a daemon refuses more than `limits.inFlight` (256) requests."""


class FleetConnection:
    """Keeps a client in session with its fleet: opens a session, and another one when a daemon comes back.

    `MultiServerClient` makes one each time it is entered, and closes it when it is left. Everything happens in one
    task, which enters the fleet and leaves it; others ask over the present session.
    """

    def __init__(
        self, *, callbacks: Callbacks, limits: TimeLimits, changed: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self.session: FleetSession | None = None
        """The present session, or the last one; None before the first and after the end."""
        self._callbacks = callbacks
        self._limits = limits
        self._changed = changed
        self._in_session = asyncio.Event()
        self._stop = asyncio.Event()
        self._places = asyncio.Semaphore(IN_FLIGHT)
        self._task: asyncio.Task[None] | None = None
        self.log_level: str | None = None
        """What each session asks the servers to log, from this level on."""

    @property
    def is_open(self) -> bool:
        """Whether it has been opened and not ended."""
        return self._task is not None and not self._task.done()

    async def open(self, fleet: AbstractAsyncContextManager[FleetAccess]) -> None:
        """Enter the fleet and open the first session; returns when each server is ready or has failed once.

        Raises ConnectionError, and what entering the fleet raises. The caller must close it then, too.
        """
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(fleet, opened), name="mcp-multi-server client")
        try:
            await opened
        except BaseException:
            self._task.cancel()
            raise

    async def close(self) -> BaseException | None:
        """End the session and leave the fleet; returns what had ended it before that, if anything had."""
        self._stop.set()
        if self._task is None:
            return None
        with anyio.CancelScope(shield=True):  # whoever is cancelled still waits until the servers have ended
            await asyncio.wait([self._task])
        return None if self._task.cancelled() else self._task.exception()

    async def ask(
        self, method: str, params: Mapping[str, Any], progress: Callable[[Members], None] | None
    ) -> msgspec.Raw:
        """A request's result, waited for without a limit. Raises RpcError, and Lost if the session ends meanwhile."""
        async with self._places:
            session = await self._present_session()
            return await session.ask(method, params, timeout=math.inf, progress=progress)

    async def _present_session(self) -> FleetSession:
        """The session, waited for while a daemon is being restarted. Raises RpcError."""
        if self.session is None or self.session.loss is not None:
            # Whoever keeps the sessions may not have seen the loss yet: what is set is then about the lost one.
            self._in_session.clear()
            with anyio.move_on_after(RECONNECT_WITHIN):
                await _first(self._in_session.wait(), self._stop.wait())
        if self._stop.is_set():
            raise RpcError(INTERNAL_ERROR, "the client is closed")
        if self.session is None or self.session.loss is not None:
            raise RpcError(INTERNAL_ERROR, "the daemon cannot be reached")
        return self.session

    async def _run(self, fleet: AbstractAsyncContextManager[FleetAccess], opened: asyncio.Future[None]) -> None:
        """Be connected until closed. What keeps it from being opened is raised from `opened`."""
        try:
            async with fleet as access:
                refusal = await self._stay_in_session(access, opened)
            if refusal:
                raise ConnectionError(refusal)
        except BaseException as failure:
            if opened.done():
                raise  # nobody waits in `open` any more: `close` returns it
            opened.set_exception(_only(failure))
        finally:
            self.session = None
            self._stop.set()

    async def _stay_in_session(self, access: FleetAccess, opened: asyncio.Future[None]) -> str:
        """Open a session, and another one whenever it is lost; why the first must not go on, or ""."""
        while not self._stop.is_set():
            try:
                async with self._new_session(await access.dial()) as session:
                    if not opened.done():
                        refusal = await self._settle(access, session)
                        self._changed({"event": "lists"})
                        if refusal:
                            return refusal
                        opened.set_result(None)
                    await _first(self._stop.wait(), session.ended())
            except (OSError, Lost, RpcError, TimeoutError):
                # Once a session was open, a daemon that is away is waited for, whatever is wrong with it.
                if not opened.done():
                    raise ConnectionError("the daemon does not answer") from None
            self._in_session.clear()
            await _first(self._stop.wait(), asyncio.sleep(RECONNECT_EVERY))  # a pause that closing ends
        return ""

    async def _settle(self, access: FleetAccess, session: FleetSession) -> str:
        """Wait for the servers, no longer than the session lives: one may ask something before it is ready."""
        settling = asyncio.ensure_future(access.settle(session))
        await _first(settling, session.ended())
        return settling.result() if settling.done() and not settling.cancelled() else ""

    @asynccontextmanager
    async def _new_session(self, connected: sockets.socket) -> AsyncIterator[FleetSession]:
        handler, logs = InputRequestHandler(self._callbacks, self._limits), LogDelivery(self._callbacks.logging)
        async with open_session(connected, handler=handler, logs=logs, changed=self._changed) as session:
            if self.log_level is not None:
                await session.ask("logging/setLevel", {"level": self.log_level})
            self.session = session
            # First the lists, then those who wait for the session: they may look up a name in them.
            self._changed({"event": "lists"})
            self._in_session.set()
            yield session


async def _first(*waits: Coroutine[Any, Any, object] | asyncio.Future[Any]) -> None:
    """Wait for the first of these to end, and cancel the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _only(failure: BaseException) -> BaseException:
    """The failure inside a group of one: task groups wrap what programs are to catch by its class."""
    while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
        failure = failure.exceptions[0]
    return failure
