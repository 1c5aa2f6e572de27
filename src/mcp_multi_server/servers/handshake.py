"""Finds out which era a server speaks and agrees with it on a session."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from ..core import jsonrpc, protocol
from ..core.errors import UNSUPPORTED_PROTOCOL_VERSION, RpcError
from ..core.input_requests import unsupported
from ..core.jsonrpc import ABSENT, Message
from ..core.lifecycle import Failure, Lost, Reason
from ..core.protocol import Era, Negotiated
from ..transport import Transport
from .exchange import Exchange
from .session import ServerSession, SessionOwner

PROBE_PATIENCE = 3.0
"""Seconds that a server may ignore `server/discover` before it is sent `initialize` as well."""


class Handshake:
    """What is said on a transport until both sides have agreed on an era and a version.

    A server, or the library's attachment, makes one for each transport. It is over when `agree` returns the session
    or raises. `capabilities`: what we declare that the server may ask of us.
    """

    def __init__(self, owner: SessionOwner, capabilities: Mapping[str, Any]) -> None:
        self.exchange = Exchange(owner, self._take)
        self.is_probing = False
        """Whether the server has been asked what it speaks and has not said."""
        self._owner = owner
        self._capabilities = capabilities

    async def agree(self, transport: Transport, era: Era | None) -> ServerSession:
        """The session on `transport`, in the era given or else in the one that the server turns out to speak.

        Raises Lost where the server speaks no revision of ours or the transport ended.
        """
        self.exchange.transport = transport  # before anything is awaited: the pid is to be seen from now on
        if era is Era.LEGACY:
            negotiated = await self._initialize()
        elif era is Era.MODERN:
            negotiated = await self._discover_modern()
        else:
            negotiated = await self._probe()
        self.is_probing = False
        session = ServerSession(self.exchange, negotiated, self._owner, self._capabilities)
        if negotiated.era is Era.LEGACY:
            # Only now: the server may ask as soon as it hears this, and there must be a session that answers.
            self.exchange.notify("notifications/initialized")
        return session

    def _take(self, message: Message) -> None:
        """Answer a ping and refuse other requests: before `initialized` a server may send no others.

        Notifications can be dropped: lists are read after this, and nobody has been told a log level yet.
        """
        if message.id is ABSENT:
            return
        if message.method == "ping":
            self.exchange.answer(bytes(message.id), b"{}")
        else:
            self.exchange.answer_error(bytes(message.id), jsonrpc.error_object(unsupported(message.method)))

    async def _probe(self) -> Negotiated:
        """Ask a modern question; whatever is not a modern answer means legacy (stdio, "Backward Compatibility")."""
        discover = asyncio.create_task(self._discover())  # a task, as it may go on beside `initialize`
        self.is_probing = True
        try:
            await asyncio.wait([discover], timeout=PROBE_PATIENCE)
            # A server that ends instead of answering stays "probing": its end may be its answer.
            self.is_probing = not discover.done() or self.exchange.loss is not None
            if discover.done():
                return self._modern_answer(discover) or await self._initialize()
            return await self._race(discover)
        finally:
            await _discard(discover)

    async def _race(self, discover: asyncio.Task[msgspec.Raw]) -> Negotiated:
        """A server that has not answered the probe is asked to initialize as well: the first usable answer counts."""
        initialize = asyncio.create_task(self._initialize())
        try:
            await asyncio.wait([discover, initialize], return_when=asyncio.FIRST_COMPLETED)
            if discover.done() and (found := self._modern_answer(discover)) is not None:
                return found
            if initialize.done() and initialize.exception() is not None and not discover.done():
                # A modern server that is slow to start may refuse `initialize` first and answer the probe after it.
                await asyncio.wait([discover])
                if (found := self._modern_answer(discover)) is not None:
                    return found
            return await initialize
        finally:
            await _discard(initialize)

    async def _discover(self) -> msgspec.Raw:
        envelope = {"_meta": protocol.own_envelope(self._capabilities)}
        return await self.exchange.ask("server/discover", envelope, timeout=float("inf"))

    def _modern_answer(self, discover: asyncio.Task[msgspec.Raw]) -> Negotiated | None:
        """What the finished probe found: None for a legacy server."""
        match discover.exception():
            case None:
                return protocol.from_discover(discover.result())
            # An error as only a modern server makes it, and no legacy revision among those that it speaks.
            case RpcError(code=code, data=data) if code == UNSUPPORTED_PROTOCOL_VERSION and not _names_legacy(data):
                raise Lost(Failure(Reason.PROTOCOL, "speaks none of our protocol versions", permanent=True))
            # Lost with the transport; a probe that was lost alone is no answer, and `initialize` may get one.
            case Lost() as lost if self.exchange.loss is not None:
                raise lost
            case _:
                return None

    async def _discover_modern(self) -> Negotiated:
        try:
            found = protocol.from_discover(await self._discover())
        except RpcError as refused:
            raise Lost(Failure(Reason.PROTOCOL, f"refused server/discover: error {refused.code}")) from None
        if found is None:
            raise Lost(Failure(Reason.PROTOCOL, f"does not speak {protocol.MODERN_VERSION}", permanent=True))
        return found

    async def _initialize(self) -> Negotiated:
        params = protocol.initialize_params(self._capabilities)
        try:
            return protocol.from_initialize(await self.exchange.ask("initialize", params, timeout=float("inf")))
        except RpcError as refused:
            raise Lost(Failure(Reason.PROTOCOL, f"refused initialize: error {refused.code}")) from refused
        except ValueError as unusable:
            raise Lost(Failure(Reason.PROTOCOL, str(unusable), permanent=True)) from None


def _names_legacy(data: object) -> bool:
    """Whether the data of an "unsupported version" error offers a revision that begins with `initialize`."""
    supported = data.get("supported") if isinstance(data, dict) else None
    return isinstance(supported, list) and any(version in protocol.LEGACY_VERSIONS for version in supported)


async def _discard(task: asyncio.Task[Any]) -> None:
    """End a task whose outcome does not matter any more."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # asyncio complains of exceptions that nobody looked at
