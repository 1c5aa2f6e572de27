"""Finds out whether a server that is ready still answers: probes it where nothing else tells."""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

import anyio

from ..core import lifecycle
from ..core.errors import RpcError
from ..core.lifecycle import ROUTED, Failure, Happening, Lost, Reason, State, Status
from ..core.protocol import Era
from .exchange import Exchange
from .session import ServerSession

PROBE_EVERY = 15.0
"""Seconds that a server may be idle before it is probed, more or less by PROBE_SPREAD."""
PROBE_SPREAD = 0.1
PROBE_WHEN_DEGRADED = 2.0
"""Seconds between two probes of a server that is degraded."""
PROBE_DEADLINE = 5.0
"""Seconds that a probe may take."""
HUNG = Failure(Reason.HANG, f"missed {lifecycle.FALL} probes in a row")


class HealthOwner(Protocol):
    """Whose health it is."""

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

    def request_unanswered(self) -> None:
        """A request was not answered by its deadline, nor was anything else since it was sent: as good as a probe."""
        if self._owner.status.state is State.READY:
            self._owner.step(lifecycle.Unanswered())
        self.probe_now()

    async def watch(self, session: ServerSession) -> None:
        """Probe a server that is idle, degraded or in doubt, and end the session of one that hangs."""
        while True:
            await self._probe_is_due(session)
            failure = await _probe(session)
            if session.loss is not None:
                return  # the end cut the probe off, which says nothing of the server's health
            self._owner.probed(failure is None)
            self._owner.step(lifecycle.Answered(probe=True) if failure is None else lifecycle.Unanswered())
            if lifecycle.is_hung(self._owner.status):
                session.end(failure or HUNG)

    async def _probe_is_due(self, session: ServerSession) -> None:
        """Wait until nothing else tells how the server is: it neither answers nor has been asked.

        One that works on a call may not be able to answer a probe before it is done, and has the call's time for it.
        """
        if self._owner.status.state is State.DEGRADED:
            await anyio.sleep(PROBE_WHEN_DEGRADED)
            return
        while not await self._is_wanted_within(self._owner.spread(PROBE_EVERY, PROBE_SPREAD)):
            # A call under way has a deadline of its own, and passing it counts as a bad probe.
            if self._loop.time() - session.exchange.last_answer >= PROBE_EVERY and not session.pending.due:
                return

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
