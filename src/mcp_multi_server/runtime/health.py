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
from .conversation import Conversation

PROBE_EVERY = 15.0
PROBE_SPREAD = 0.1
PROBE_WHEN_DEGRADED = 2.0
PROBE_DEADLINE = 5.0


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

    def request_failed(self, conversation: Conversation) -> None:
        """A request was lost on its way."""
        if self._status().state not in ROUTED:
            return
        if conversation.last_answer > self._request_failed_at:
            self._happen(lifecycle.Answered())  # what failed before was not in a row with this
        self._request_failed_at = self._loop.time()
        self._happen(lifecycle.TransportFailed())

    def request_late(self, conversation: Conversation) -> None:
        """A request was not answered in time; where nothing else was, the server may hang."""
        if self._loop.time() - conversation.last_answer >= PROBE_DEADLINE:
            self.doubt()

    async def keep(self, conversation: Conversation) -> None:
        """Probe a server that is silent, degraded or doubted; end the connection of one that hangs."""
        while True:
            await self._probe_is_due(conversation)
            good = await _probe(conversation)
            if conversation.loss is not None:
                return
            self._probed(good)
            self._happen(lifecycle.Answered(probe=True) if good else lifecycle.Unanswered())
            if lifecycle.is_hung(self._status()):
                conversation.lose(Failure(Reason.HANG, f"missed {lifecycle.FALL} probes in a row"))

    async def _probe_is_due(self, conversation: Conversation) -> None:
        """Wait for as long as other answers do for a probe's."""
        if self._status().state is State.DEGRADED:
            await anyio.sleep(PROBE_WHEN_DEGRADED)
            return
        while not await self._is_doubted_within(self._spread(PROBE_EVERY, PROBE_SPREAD)):
            if self._loop.time() - conversation.last_answer >= PROBE_EVERY:
                return

    async def _is_doubted_within(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await self._doubted.wait()
        doubted = self._doubted.is_set()
        self._doubted.clear()
        return doubted


async def _probe(conversation: Conversation) -> bool:
    """Whether the server answers at all; an error is an answer. Modern servers know no ping."""
    is_modern = conversation.negotiated is not None and conversation.negotiated.era is Era.MODERN
    try:
        await conversation.ask("server/discover" if is_modern else "ping", {}, timeout=PROBE_DEADLINE)
    except RpcError:
        return True
    except (Lost, TimeoutError):
        return False
    return True
