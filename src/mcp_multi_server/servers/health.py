"""Whether a server that is ready still answers: probes where nothing else tells, and what missing them means."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import anyio

from ..core import lifecycle
from ..core.errors import RpcError
from ..core.lifecycle import ROUTED, Failure, Happening, Lost, Reason, State, Status
from ..core.protocol import Era
from .session import ServerSession

PROBE_EVERY = 15.0
PROBE_SPREAD = 0.1
PROBE_WHEN_DEGRADED = 2.0
PROBE_DEADLINE = 5.0
HUNG = Failure(Reason.HANG, f"missed {lifecycle.FALL} probes in a row")


class Health:
    """Watches over one connection, whose state it reads by `status` and moves by `happen`.

    `probed` is told of each probe. `spread` makes seconds more or less by a share, as luck has it.
    """

    def __init__(
        self,
        *,
        status: Callable[[], Status],
        happen: Callable[[Happening], None],
        probed: Callable[[bool], None],
        spread: Callable[[float, float], float],
    ) -> None:
        self._status = status
        self._happen = happen
        self._probed = probed
        self._spread = spread
        self._loop = asyncio.get_running_loop()
        self._doubted = asyncio.Event()
        self._request_failed_at = -math.inf

    def doubt(self) -> None:
        """Have the server probed at once."""
        self._doubted.set()

    def request_failed(self, session: ServerSession) -> None:
        """A request was lost on its way."""
        if self._status().state not in ROUTED:
            return
        if session.last_answer > self._request_failed_at:
            self._happen(lifecycle.Answered())  # what failed before was not in a row with this
        self._request_failed_at = self._loop.time()
        self._happen(lifecycle.TransportFailed())
        if self._status().state is State.DEGRADED:
            self.doubt()

    def request_unanswered(self) -> None:
        """A request was not answered by its deadline, nor was anything else since it was sent: as good as a probe."""
        if self._status().state is State.READY:
            self._happen(lifecycle.Unanswered())
        self.doubt()

    async def keep(self, session: ServerSession) -> None:
        """Probe a server that is idle, degraded or doubted; end the connection of one that hangs."""
        while True:
            await self._probe_is_due(session)
            failure = await _probe(session)
            if session.loss is not None:
                return
            self._probed(failure is None)
            self._happen(lifecycle.Answered(probe=True) if failure is None else lifecycle.Unanswered())
            if lifecycle.is_hung(self._status()):
                session.lose(failure or HUNG)

    async def _probe_is_due(self, session: ServerSession) -> None:
        """Wait until nothing else tells how the server is: it neither answers nor has been asked.

        One that works on a call may not be able to answer a probe before it is done, and has the call's time for it.
        """
        if self._status().state is State.DEGRADED:
            await anyio.sleep(PROBE_WHEN_DEGRADED)
            return
        while not await self._is_doubted_within(self._spread(PROBE_EVERY, PROBE_SPREAD)):
            if self._loop.time() - session.last_answer >= PROBE_EVERY and not session.pending.due:
                return

    async def _is_doubted_within(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await self._doubted.wait()
        doubted = self._doubted.is_set()
        self._doubted.clear()
        return doubted


async def _probe(session: ServerSession) -> Failure | None:
    """Why the server does not answer, if it does not; an error is an answer. Modern servers know no ping."""
    is_modern = session.negotiated is not None and session.negotiated.era is Era.MODERN
    try:
        await session.ask("server/discover" if is_modern else "ping", {}, timeout=PROBE_DEADLINE)
    except RpcError:
        return None
    except TimeoutError:
        return HUNG
    except Lost as lost:
        return lost.failure
    return None
