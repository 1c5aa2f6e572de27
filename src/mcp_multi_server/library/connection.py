"""A client's lasting connection to its fleet: one session after another, as the daemon goes and comes back."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import msgspec

from ..core.errors import RpcError
from ..core.jsonrpc import Members
from ..core.lifecycle import Failure, Lost
from ..servers.clock import iso
from .away import Away, event
from .callbacks import Callbacks
from .errors import client_closed, daemon_away, daemon_lost, timed_out
from .fleets import FleetAccess
from .input_requests import InputRequestHandler
from .log_delivery import LogDelivery
from .progress import ProgressFnT, delivery
from .session import ANSWER_WITHIN, FleetSession, open_session
from .time_limits import TimeLimits, told

HOLD = 5.0
"""Seconds that a request which was not sent waits for a daemon that is away."""
DIAL_EVERY = 0.2
"""Seconds between attempts to reach a daemon that is away."""
DIAL_LATER = 0.8
TURNED_AWAY = 30.0
"""As many more while no request waits for it, and where it has refused the client: it logs each refusal."""
IN_FLIGHT = 240
"""Calls of one client at a time, further ones wait: a daemon refuses more than `limits.inFlight` (256) requests."""
_NO_SESSION = (OSError, Lost, RpcError, TimeoutError)


class FleetConnection:
    """Keeps a client in session with its fleet: opens a session, and another one whenever it is lost, until closed.

    `MultiServerClient` makes one each time it is entered, and closes it when it is left. Everything happens in one
    task, which enters the fleet and leaves it; others ask over the present session. `may_be_at`: whether a request for
    what has this name may be carried out by that server. `changed` is called with each event of the fleet, and when the
    daemon has gone or is back.
    """

    def __init__(
        self,
        callbacks: Callbacks,
        limits: TimeLimits,
        may_be_at: Callable[[str | None, str], bool],
        *,
        changed: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self.session: FleetSession | None = None
        """The present session, or the last one; None before the first and after the end."""
        self.away: Away | None = None
        """Since when there is no session, and why; None while there is one."""
        self.log_level: str | None = None
        """What each session asks the servers to log, from this level on."""
        self._callbacks = callbacks
        self._limits = limits
        self._may_be_at = may_be_at
        self._changed = changed
        self._scope = anyio.CancelScope()
        self._is_closed = False
        self._news = asyncio.Event()
        """Set while there is a session, and when there will be none any more."""
        self._held = 0
        self._wanted = asyncio.Event()
        """Set while requests are held."""
        self._unreachable = "the client is not connected yet"
        """What was wrong with the daemon the last time."""
        self._pause = DIAL_LATER
        self._places = asyncio.Semaphore(IN_FLIGHT)
        self._task: asyncio.Task[None] | None = None

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
        self._end()
        self._scope.cancel()
        if self._task is None:
            return None
        with anyio.CancelScope(shield=True):  # whoever is cancelled still waits until the servers have ended
            await asyncio.wait([self._task])
        return None if self._task.cancelled() else self._task.exception()

    def _end(self) -> None:
        self._is_closed = True
        self._news.set()

    # -- requests ------------------------------------------------------------------------------------------------

    async def request(
        self, method: str, params: Mapping[str, Any], within: float | None, progress: ProgressFnT | None
    ) -> msgspec.Raw:
        """A request's result. Raises RpcError, also when its time is over or the session was lost.

        `within`: the seconds that the program gives it, None for what the fleet gives it. `progress` is awaited for
        each report of progress.
        """
        may_be_at = partial(self._may_be_at, params.get("name"))
        try:
            async with delivery(progress) as report:
                # Waiting for a place, and for a daemon that is away, is within the limit too.
                with self._limits.within(within, may_be_at):
                    return await self._ask(method, told(params, within), report)
        except TimeoutError:
            raise timed_out(method, within, self.away) from None

    async def _ask(
        self, method: str, params: Mapping[str, Any], progress: Callable[[Members], None] | None
    ) -> msgspec.Raw:
        """A request's result, waited for without a limit. Raises RpcError.

        It is sent once. As long as it was not, it is held for a daemon that is away, up to `HOLD`.
        """
        until = math.inf
        while True:
            if (session := self._present) is None:
                until = min(until, anyio.current_time() + HOLD)
                session = await self._hold(until)
            try:
                async with self._places:
                    return await session.ask(method, params, timeout=math.inf, progress=progress)
            except Lost as lost:
                if not lost.failure.undone:
                    raise self._underway(lost.failure) from None

    @property
    def _present(self) -> FleetSession | None:
        """The session that a request can be sent on now."""
        return self.session if self.away is None and not self._is_closed else None

    async def _hold(self, until: float) -> FleetSession:
        """Wait for a session, till this time of the loop. Raises RpcError."""
        self._held += 1
        self._wanted.set()
        try:
            with anyio.CancelScope(deadline=until):
                await self._news.wait()
        finally:
            self._held -= 1
            if not self._held:
                self._wanted.clear()
        if self._is_closed:
            raise client_closed(sent=False)
        if (session := self._present) is None:
            raise daemon_away(self._unreachable)
        return session

    def _underway(self, failure: Failure) -> RpcError:
        """The error of a request that was sent and will not be answered."""
        return client_closed(sent=True) if self._is_closed else daemon_lost(failure.message)

    # -- sessions ------------------------------------------------------------------------------------------------

    async def _run(self, fleet: AbstractAsyncContextManager[FleetAccess], opened: asyncio.Future[None]) -> None:
        """Be connected until closed. What keeps it from being opened is raised from `opened`."""
        refusal = "the client was closed while it connected"
        try:
            async with fleet as access:
                # Only what is in here is cancelled by closing: leaving a fleet takes its time.
                with self._scope:
                    refusal = await self._stay_in_session(access, opened)
            if not opened.done():
                raise ConnectionError(refusal)
        except BaseException as failure:
            if opened.done():
                raise  # nobody waits in `open` any more: `close` returns it
            opened.set_exception(_only(failure))
        finally:
            self.session = None
            self._end()

    async def _stay_in_session(self, access: FleetAccess, opened: asyncio.Future[None]) -> str:
        """Open a session, and another one whenever it is lost; why the first must not go on."""
        try:
            async with self._new_session(access, access.connect_within) as session:
                if refusal := await self._settle(access, session):
                    return refusal
                opened.set_result(None)
                await session.ended()
        except _NO_SESSION as failure:
            if not opened.done():
                raise ConnectionError(_unreachable(failure)) from None
        while True:
            await self._dial_again(access)

    async def _dial_again(self, access: FleetAccess) -> None:
        """One more session, if one can be had now: a daemon that is away is waited for, whatever is wrong with it."""
        await asyncio.sleep(DIAL_EVERY)
        with anyio.move_on_after(self._pause):
            await self._wanted.wait()
        self._pause = DIAL_LATER
        try:
            async with self._new_session(access, ANSWER_WITHIN) as session:
                await session.ended()
        except _NO_SESSION as failure:
            self._unreachable = _unreachable(failure)
            if isinstance(failure, RpcError):
                self._pause = TURNED_AWAY

    async def _settle(self, access: FleetAccess, session: FleetSession) -> str:
        """Wait for the servers, no longer than the session lives: one may ask something before it is ready."""
        settling = asyncio.ensure_future(access.settle(session))
        await _first(settling, session.ended())
        self._changed({"event": "lists"})
        return settling.result() if settling.done() and not settling.cancelled() else ""

    @asynccontextmanager
    async def _new_session(self, access: FleetAccess, within: float | None) -> AsyncIterator[FleetSession]:
        async with open_session(
            access.dial,
            within,
            may_be_mute=access.is_daemon,
            handler=InputRequestHandler(self._callbacks, self._limits),
            logs=LogDelivery(self._callbacks.logging),
            changed=self._changed,
            ended=self._lost,
        ) as session:
            if self.log_level is not None:
                await session.ask("logging/setLevel", {"level": self.log_level})
            was_away, self.away, self.session = self.away is not None, None, session
            if was_away:
                self._changed(event(None))
            # First the lists, then those who wait for the session: they may look up a name in them.
            self._changed({"event": "lists"})
            self._news.set()
            yield session

    def _lost(self, failure: Failure) -> None:
        """A session has ended. This comes before the callers are told, who may look at the status then."""
        if self._present is None:
            return  # it never was the present one, or it ends because the client is closed
        self._news.clear()
        self._unreachable = failure.message
        self.away = Away(iso(time.time()), failure.message)
        self._changed(event(self.away))


async def _first(*waits: Coroutine[Any, Any, object] | asyncio.Future[Any]) -> None:
    """Wait for the first of these to end, and cancel the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _unreachable(failure: BaseException) -> str:
    """Why there is no session, for errors; what `dial` raises says it by itself."""
    if isinstance(failure, RpcError):
        return f"the daemon turned this client away: {failure}"
    why = str(failure) or "it answers too slowly"  # a TimeoutError of something that was asked says nothing
    return why if isinstance(failure, ConnectionError) else f"the daemon cannot be reached: {why}"


def _only(failure: BaseException) -> BaseException:
    """The failure inside a group of one: task groups wrap what programs are to catch by its class."""
    while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
        failure = failure.exceptions[0]
    return failure
