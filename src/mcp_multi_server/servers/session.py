"""One negotiated session with a server: what calls are sent on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from ..core import jsonrpc, protocol
from ..core.catalog.catalog import Kind
from ..core.jsonrpc import ABSENT, Buffer, Members, Message
from ..core.lifecycle import Failure
from ..core.protocol import Era, Negotiated
from .exchange import Exchange, ExchangeOwner
from .pending import IgnoredAnswer

LOG_LEVEL_WITHIN = 10.0
"""Seconds that a server may take to answer `logging/setLevel`, whose answer changes nothing."""


class SessionOwner(ExchangeOwner, Protocol):
    """Whose session it is: a server, or the library's attachment. Called on the event loop; must not block."""

    def list_changed(self, kind: Kind) -> None:
        """The other side says that this list has changed."""

    def asked(self, session: ServerSession, message: Message) -> None:
        """The other side asks something; it is answered by `session.answer` or `answer_error`, at once or later."""

    def told(self, session: ServerSession, message: Message) -> None:
        """A notification came that is not about lists or progress."""


class ServerSession:
    """What was agreed with a server, and the messages under that agreement.

    `Handshake.agree` makes it. It ends with its exchange, that is with the transport or by `end`.
    """

    def __init__(
        self, exchange: Exchange, negotiated: Negotiated, owner: SessionOwner, capabilities: Mapping[str, Any]
    ) -> None:
        self.exchange = exchange
        self.transport = exchange.transport
        self.pending = exchange.pending
        """Requests that were sent and not answered."""
        self.input_requests = exchange.input_requests
        """What the server asked and waits for, by its ids."""
        self.negotiated = negotiated
        self.capabilities = capabilities
        """What we declared that the server may ask."""
        self._owner = owner
        self._log_level: str | None = None
        exchange.take = self._take  # from here on the handshake hears nothing more
        if negotiated.era is Era.MODERN:
            exchange.envelope = protocol.own_envelope(capabilities)

    @property
    def loss(self) -> Failure | None:
        """Why it ended; None while it lives."""
        return self.exchange.loss

    def send(self, id: int, method: str, params: Buffer) -> None:
        """Send the request that `pending.add` gave this id."""
        self.transport.send(jsonrpc.request(id, method, params))

    def answer(self, id: bytes, payload: Buffer) -> None:
        """Answer what the server asked; dropped when the session has ended."""
        self.exchange.answer(id, payload)

    def answer_error(self, id: bytes, payload: Buffer) -> None:
        """Answer it with an error object, already encoded."""
        self.exchange.answer_error(id, payload)

    def cancel(self, id: int, reason: str) -> None:
        """Give up a request: its waiter is told nothing more, the server is told why."""
        self.exchange.cancel(id, reason)

    async def ask(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        timeout: float,
        progress: Callable[[Members], None] | None = None,
    ) -> msgspec.Raw:
        """Send a request of our own and wait for its result. Raises RpcError, Lost, TimeoutError (seconds)."""
        return await self.exchange.ask(method, params, timeout=timeout, progress=progress)

    def set_log_level(self, level: str) -> None:
        """Have a legacy server that logs send messages from `level` on; a modern one hears the level in each call."""
        is_told = self.negotiated.era is Era.LEGACY and self.negotiated.has("logging")
        if level == self._log_level or not is_told:
            return
        self._log_level = level  # not after the answer: a server that refuses the level is not asked again and again
        id = self.pending.add(IgnoredAnswer(asyncio.get_running_loop().time() + LOG_LEVEL_WITHIN))
        self.send(id, "logging/setLevel", jsonrpc.encode({"level": level}))

    def end(self, failure: Failure) -> None:
        """End it: everyone who waits is told, and the transport is left."""
        self.exchange.end(failure)

    def _take(self, message: Message) -> None:
        """A request or a notification of the server's."""
        if message.id is not ABSENT:
            self._requested(message)
        elif kinds := [kind for kind in Kind if message.method == kind.list_changed]:
            for kind in kinds:  # one notification stands for resources and their templates
                self._owner.list_changed(kind)
        else:
            self._owner.told(self, message)

    def _requested(self, message: Message) -> None:
        if self.negotiated.era is Era.MODERN:
            return  # it must not ask over the transport (transports/stdio), and gets no answer
        if message.method == "ping":
            self.answer(bytes(message.id), b"{}")
        else:
            self._owner.asked(self, message)
