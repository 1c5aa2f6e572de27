"""A handshake over a scripted transport, and the session that comes of it, with all that they tell their owner."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import anyio
import pytest

from mcp_multi_server.core import jsonrpc, protocol
from mcp_multi_server.core.catalog.catalog import Kind
from mcp_multi_server.core.input_requests import unsupported
from mcp_multi_server.core.jsonrpc import Message
from mcp_multi_server.core.lifecycle import Failure, Lost
from mcp_multi_server.core.protocol import Era, Negotiated
from mcp_multi_server.servers.exchange import Exchange
from mcp_multi_server.servers.handshake import Handshake
from mcp_multi_server.servers.session import ServerSession

from ..scripted import SOON, Answer, Json, Recorded, Script


class Owner:
    """A `SessionOwner` that keeps what it is told, and can be asked nothing."""

    def __init__(self) -> None:
        self.invalid: list[str] = []
        self.changed: list[Kind] = []
        self.failed: list[Failure] = []
        self.ends: list[Failure] = []
        self.unanswered = 0
        self.late = 0
        self.peculiarities: list[str] = []
        self.heard: list[str] = []

    def stderr_line(self, line: str) -> None: ...

    def invalid_line(self, problem: str) -> None:
        self.invalid.append(problem)

    def peculiar(self, what: str) -> None:
        self.peculiarities.append(what)

    def request_failed(self, exchange: Exchange, failure: Failure) -> None:
        self.failed.append(failure)

    def request_unanswered(self, exchange: Exchange, id: int) -> None:
        self.unanswered += 1

    def answered_late(self) -> None:
        self.late += 1

    def exchange_ended(self, failure: Failure) -> None:
        self.ends.append(failure)

    def list_changed(self, kind: Kind) -> None:
        self.changed.append(kind)

    def asked(self, session: ServerSession, message: Message) -> None:
        session.answer_error(bytes(message.id), jsonrpc.error_object(unsupported(message.method)))

    def told(self, session: ServerSession, message: Message) -> None:
        self.heard.append(message.method)


class Talk:
    """A transport on which nothing is agreed yet."""

    def __init__(self, answers: dict[str, Answer] | None = None) -> None:
        self.owner = Owner()
        self.handshake = Handshake(self.owner, {})
        self.exchange = self.handshake.exchange
        self.server = Script(answers or {}, self.exchange.receiver)
        self.exchange.transport = self.server
        self.agreed: Negotiated | None = None

    async def agree(self, era: Era | None = None) -> Negotiated:
        with anyio.fail_after(SOON):
            self.agreed = (await self.handshake.agree(self.server, era)).negotiated
        return self.agreed

    async def lost(self, work: Awaitable[Any]) -> Failure:
        """The failure with which `work` ends."""
        with anyio.fail_after(SOON), pytest.raises(Lost) as caught:
            await work
        return caught.value.failure

    def call(self) -> tuple[Recorded, Json]:
        """A call on its way, and the request that the server got."""
        waiter = Recorded()
        self.exchange.send(self.exchange.pending.add(waiter), "tools/call", b'{"name":"t"}')
        return waiter, self.server.sent[-1]


class Agreed(Talk):
    """A session in this era with a server of these capabilities, as if both had agreed."""

    def __init__(self, answers: dict[str, Answer], era: Era, **capabilities: Any) -> None:
        super().__init__(answers)
        version = protocol.MODERN_VERSION if era is Era.MODERN else protocol.LATEST_LEGACY
        self.session = ServerSession(self.exchange, Negotiated(era, version, capabilities), self.owner, {})
