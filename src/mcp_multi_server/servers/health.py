"""Finds out whether a server that is ready still answers: probes it where nothing else tells."""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

import anyio

from ..core import lifecycle
from ..core.config.config import ServerConfig
from ..core.errors import RpcError
from ..core.lifecycle import ROUTED, Failure, Happening, Lost, Reason, State, Status
from ..core.protocol import Era
from .exchange import Exchange
from .pending import NO_WORK
from .session import ServerSession

PROBE_EVERY = 15.0
"""Seconds that a server may be idle before it is probed, more or less by PROBE_SPREAD."""
PROBE_SPREAD = 0.1
PROBE_WHEN_DEGRADED = 2.0
"""Seconds between two probes of a server that is degraded. One that is busy answers late or not at all, so it is asked
as seldom as an idle one: what it has not read fills its pipe."""
PROBE_DEADLINE = 5.0
"""Seconds that a probe may take."""
HUNG = Failure(Reason.HANG, f"missed {lifecycle.FALL} probes in a row")


class HealthOwner(Protocol):
    """Whose health it is."""

    @property
    def config(self) -> ServerConfig:
        """The entry: how long a busy server may be silent."""

    @property
    def status(self) -> Status:
        """The present state and what led to it."""

    def step(self, happening: Happening) -> None:
        """Change the state as this asks for."""

    def probed(self, good: bool) -> None:
        """A probe was answered, or was not."""

    def spread(self, seconds: float, share: float) -> float:
        """`seconds`, more or less by up to this share, at random."""


class Health:
    """Watches one server over all its sessions, and moves its state between ready and degraded.

    The server makes it, and runs `watch` as long as it has a session that is ready.
    """

    def __init__(self, owner: HealthOwner) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._probe_wanted = asyncio.Event()
        self._request_failed_at = -math.inf
        self._busy_at = -math.inf
        self._busy_with = 0
        """When the server was last found to be busy, and the id of its newest request then."""

    def probe_now(self) -> None:
        """Have the server probed at once."""
        self._probe_wanted.set()

    def request_failed(self, exchange: Exchange) -> None:
        """A request was lost on its way: several in a row make a server degraded."""
        if self._owner.status.state not in ROUTED:
            return
        if exchange.last_answer > self._request_failed_at:
            # What failed before was not in a row with this. Answers are not told one by one: it would cost every call.
            self._owner.step(lifecycle.Answered())
        self._request_failed_at = self._loop.time()
        self._owner.step(lifecycle.TransportFailed())
        if self._owner.status.state is State.DEGRADED:
            self.probe_now()  # calls go on and fail: what is true must come out soon

    def request_unanswered(self, exchange: Exchange, id: int) -> None:
        """A request was not answered in its time, nor was anything else since it was sent: as good as a probe."""
        status = self._owner.status
        if status.state is State.READY:
            self._owner.step(lifecycle.Unanswered(self._call_due(exchange)))
        elif status.call_due is not None and id > self._busy_with:
            self._owner.step(lifecycle.WaitedInVain())
            if self._is_hung():
                # Not at once: other calls that are late in this moment are told of that first.
                self._loop.call_soon(exchange.end, self._hang())
                return
        self.probe_now()

    def answered_late(self) -> None:
        """What was given up is answered all the same: as good as a probe, and the sign that it is busy no more."""
        if self._owner.status.state is State.DEGRADED:
            self._owner.step(lifecycle.Answered(probe=True))

    async def watch(self, session: ServerSession) -> None:
        """Probe a server that is idle, degraded or in doubt, and end the session of one that hangs."""
        while True:
            await self._probe_is_due(session)
            if self._is_hung():  # a call may have waited in vain meanwhile
                session.end(self._hang())
                return
            failure = await _probe(session)
            if session.loss is not None:
                return  # the end cut the probe off, which says nothing of the server's health
            self._owner.probed(failure is None)
            self._owner.step(self._outcome(session.exchange, failure))
            if self._is_hung():
                session.end(self._hang() if failure in (None, HUNG) else failure)

    async def _probe_is_due(self, session: ServerSession) -> None:
        """Wait until nothing else tells how the server is: it neither answers nor has been asked.

        One that works on a call may not be able to answer a probe before it is done, and has the call's time for it.
        """
        status, exchange = self._owner.status, session.exchange
        if status.state is State.DEGRADED:
            if status.call_due is None:
                await anyio.sleep(PROBE_WHEN_DEGRADED)
            else:
                await self._is_wanted_within(min(PROBE_EVERY, max(0.0, self._busy_until() - self._loop.time())))
            return
        while not await self._is_wanted_within(self._owner.spread(PROBE_EVERY, PROBE_SPREAD)):
            now = self._loop.time()
            # A call has a time of its own, also where its client has given it up before.
            if now - exchange.last_answer >= PROBE_EVERY and exchange.work_until <= now:
                return

    def _outcome(self, exchange: Exchange, failure: Failure | None) -> Happening:
        """What a probe means that failed so, or did not. Only one that is not answered may be for want of time."""
        if failure is None:
            return lifecycle.Answered(probe=True)
        return lifecycle.Unanswered(self._call_due(exchange) if failure is HUNG else None)

    def _call_due(self, exchange: Exchange) -> float | None:
        """When the time of the calls was, or will be, up that the server may be busy with; None where it has none."""
        status = self._owner.status
        if status.call_due is not None and exchange.last_answer < self._busy_at:
            return status.call_due  # it is as silent as before, and calls that come later give it no more time
        due = exchange.work_until
        if due == NO_WORK:
            return None
        self._busy_at, self._busy_with = self._loop.time(), exchange.pending.newest
        return due

    @property
    def _patience(self) -> float:
        """Seconds that a busy server may be silent beyond the time of its calls."""
        hang = self._owner.config.hang
        return math.inf if hang == "off" else hang

    def _busy_until(self) -> float:
        """Loop time at which a busy server is taken for one that hangs."""
        return lifecycle.busy_until(self._owner.status, self._patience)

    def _is_hung(self) -> bool:
        return lifecycle.is_hung(self._owner.status, now=self._loop.time(), patience=self._patience)

    def _hang(self) -> Failure:
        """Why the session of a server that hangs is ended."""
        status = self._owner.status
        if status.call_due is None:
            return HUNG
        silent = f"answered nothing for {self._loop.time() - status.call_due:.3g} s after the time of a call was up"
        return Failure(Reason.HANG, f"{silent}, while another call waited for it" if status.waited else silent)

    async def _is_wanted_within(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await self._probe_wanted.wait()
        is_wanted = self._probe_wanted.is_set()  # it may be set just as the time is up
        self._probe_wanted.clear()
        return is_wanted


async def _probe(session: ServerSession) -> Failure | None:
    """Why the server does not answer, if it does not; an error is an answer. Modern servers know no ping."""
    is_modern = session.negotiated.era is Era.MODERN
    try:
        await session.ask("server/discover" if is_modern else "ping", {}, timeout=PROBE_DEADLINE)
    except RpcError:
        return None  # whoever refuses is alive
    except TimeoutError:
        return HUNG
    except Lost as lost:
        return lost.failure
    return None
