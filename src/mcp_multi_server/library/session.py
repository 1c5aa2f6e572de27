"""A program's session with a fleet over a socket, whether the fleet is its own or a daemon's."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeAlias

import anyio
import anyio.abc
import msgspec

from ..core import jsonrpc
from ..core.catalog.catalog import Catalog, Kind
from ..core.config.settings import CLIENT_LINE
from ..core.config.values import MAX_BYTES
from ..core.errors import INTERNAL_ERROR, RpcError
from ..core.input_requests import params_of
from ..core.jsonrpc import Members, Message
from ..core.lifecycle import Failure, Lost, Reason, State
from ..core.protocol import DAEMON_EXTENSION, LONGEST, Era, Negotiated
from ..servers.catalog_reading import read_catalog
from ..servers.exchange import Exchange
from ..servers.handshake import Handshake
from ..servers.pending import IgnoredAnswer
from ..servers.session import ServerSession
from .errors import check_length
from .input_requests import InputRequestHandler
from .log_delivery import LogDelivery
from .socket_transport import SocketTransport

Dial: TypeAlias = Callable[[], Awaitable[socket.socket]]
"""Gives a connected socket. Raises OSError if nobody listens."""

EVENT_METHOD = "notifications/daemon/event"
ANSWER_WITHIN = 30.0
"""Seconds for what the fleet answers by itself."""
SOON = 0.02
"""Seconds in which several changes become one reading of the lists."""
AGAIN_AFTER = 0.5
"""Seconds until lists that could not be read are asked for again."""
LOOKS = 10
PINGED_AT = 3
LOOK_EVERY = 1.0
"""A daemon that was asked something is looked after every so many seconds: at the fourth look without a sign of life it
is pinged, and after the last it is given up."""
QUIET = 15.0
"""Seconds after which a daemon that is asked nothing is looked after, too."""


class Incoming:
    """Takes what a fleet asks of this program and tells it: requests are answered, events and logs passed on.

    `open_session` makes it, with the task group in which it answers. `changed` is called with each event, `ended` when
    the session has ended.
    """

    def __init__(
        self,
        tasks: anyio.abc.TaskGroup,
        handler: InputRequestHandler,
        logs: LogDelivery,
        *,
        changed: Callable[[Mapping[str, Any]], None],
        ended: Callable[[Failure], None],
    ) -> None:
        self.news = asyncio.Event()
        """Set when status or lists may have changed."""
        self.changed = changed
        self._ended = ended
        self._tasks = tasks
        self._handler = handler
        self._logs = logs
        self._answering: dict[bytes, anyio.CancelScope] = {}

    def list_changed(self, kind: Kind) -> None:
        """Have the lists read again."""
        self.news.set()

    def asked(self, session: ServerSession, message: Message) -> None:
        """Answer in a task of its own."""
        self._tasks.start_soon(self._answer, session, message)

    def told(self, session: ServerSession, message: Message) -> None:
        """Take an event, a log message, or word that a request is not waited for any more."""
        if message.method == EVENT_METHOD:
            event = jsonrpc.value(message.params)
            # Others, of clients and log levels, change nothing that a program sees.
            if event.get("event") in _OF_SERVERS:
                self.news.set()
                self.changed(event)
        elif message.method == "notifications/message":
            self._logs.add(message)
        elif message.method == "notifications/cancelled":
            scope = self._answering.get(bytes(params_of(message.params).get("requestId", b"")))
            if scope is not None:
                scope.cancel()

    async def _answer(self, session: ServerSession, message: Message) -> None:
        """Have the program answer, until the fleet takes the request back."""
        id = bytes(message.id)
        with anyio.CancelScope() as self._answering[id]:
            try:
                answer = await self._handler.answer(message)
                if len(answer) > (most := _longest(session.negotiated)):
                    raise RpcError(INTERNAL_ERROR, f"the answer has {len(answer)} bytes, {CLIENT_LINE} allows {most}")
                session.answer(id, answer)
            except RpcError as refusal:
                session.answer_error(id, jsonrpc.error_object(refusal))
            finally:
                del self._answering[id]

    def stderr_line(self, line: str) -> None:
        """Never called: a socket has no stderr."""

    def invalid_line(self, problem: str) -> None:
        """Do nothing: the line is dropped, and a flood of them ends the session."""

    def peculiar(self, what: str) -> None:
        """Never called: the daemon keeps to the protocol."""

    def request_failed(self, exchange: Exchange, failure: Failure) -> None:
        """Never called: on a socket a request is lost only with the session."""

    def request_unanswered(self, exchange: Exchange, id: int) -> None:
        """Do nothing: who asked sees that its time is up."""

    def answered_late(self) -> None:
        """Do nothing: nobody waits for it any more."""

    def exchange_ended(self, failure: Failure) -> None:
        """Tell whoever keeps the sessions, before those who wait for answers are told."""
        self._ended(failure)


class FleetSession:
    """Asks a fleet, and knows what it lists and how its servers are.

    `open_session` makes it and ends it. The program is a legacy client: only such a one can be asked at any time, by
    servers of both eras, and says once what it wants to be told.
    """

    def __init__(self, session: ServerSession, transport: SocketTransport, incoming: Incoming) -> None:
        self.catalog = Catalog()
        self.status: dict[str, Any] = {}
        """The last `daemon/status`."""
        self._session = session
        self._transport = transport
        self._longest = _longest(session.negotiated)
        self._incoming = incoming
        self._refreshed = asyncio.Event()
        self._unanswered = 0
        self._asked = asyncio.Event()

    @property
    def loss(self) -> Failure | None:
        """Why the session ended; None while it lives."""
        return self._session.loss

    async def ask(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        timeout: float = ANSWER_WITHIN,
        progress: Callable[[Members], None] | None = None,
    ) -> msgspec.Raw:
        """A request's result. Raises RpcError, Lost, TimeoutError.

        Lost says whether it is certain that the request was not carried out.
        """
        check_length(method, params, self._longest)
        # The next message is this request: nothing is awaited before it is sent.
        number = self._transport.sent + 1
        self._unanswered += 1
        self._asked.set()
        try:
            return await self._session.ask(method, params, timeout=timeout, progress=progress)
        except Lost as lost:
            raise Lost(replace(lost.failure, undone=number > self._transport.received)) from None
        finally:
            self._unanswered -= 1

    async def ended(self) -> None:
        """Wait for the end of the session."""
        await self._session.exchange.ended.wait()

    async def settled(self) -> None:
        """Wait until each server is up or has failed once."""
        while any(_is_starting(row) for row in self.status["servers"]):
            self._refreshed.clear()
            await self._refreshed.wait()

    async def refresh(self) -> None:
        """Read status and lists again."""
        status = jsonrpc.value(await self.ask("daemon/status", {}))
        # Both are kept only when both are read: a listing is made of the two, and they must fit together.
        self.catalog = await read_catalog(self._session, timeout=ANSWER_WITHIN)
        self.status = status
        self._refreshed.set()

    async def keep_current(self) -> None:
        """Read status and lists again whenever they may have changed, until cancelled."""
        news = self._incoming.news
        while True:
            await news.wait()
            await anyio.sleep(SOON)
            news.clear()  # before reading: what changes while it is read is read once more
            try:
                await self.refresh()
            except (Lost, TimeoutError, RpcError):  # RpcError: the fleet has as many requests of ours as it takes
                news.set()
                await anyio.sleep(AGAIN_AFTER)
                continue
            self._incoming.changed({"event": "lists"})

    async def follow(self) -> None:
        """Be told of events, for as long as the session lives."""
        try:
            await self._session.ask("daemon/events", {}, timeout=math.inf)
        except Lost:
            return

    async def look_after(self) -> None:
        """End the session when the daemon has become mute: stopped, or hanging. Until cancelled."""
        while await self._shows_life():
            if not self._unanswered:
                with anyio.move_on_after(QUIET):
                    await self._asked.wait()
            self._asked.clear()
        self.end(Failure(Reason.HANG, f"the daemon has not answered anything for {LOOKS * LOOK_EVERY:g} s"))

    async def _shows_life(self) -> bool:
        """Whether anything comes from the daemon; it is pinged if nothing does."""
        reads = self._transport.reads
        # Looks and no clock: while the program keeps its loop busy, or is stopped itself, nobody can hear the daemon.
        for look in range(LOOKS):
            if look == PINGED_AT:
                self._ping()
            await anyio.sleep(LOOK_EVERY)
            if self._transport.reads != reads:
                return True
        return False

    def _ping(self) -> None:
        id = self._session.pending.add(IgnoredAnswer(math.inf))
        self._session.send(id, "ping", b"{}")

    def end(self, failure: Failure) -> None:
        """End the session: whoever waits for an answer is told."""
        self._transport.close()  # first, as it then knows what was never sent
        self._session.end(failure)


@asynccontextmanager
async def open_session(
    dial: Dial,
    within: float | None,
    *,
    may_be_mute: bool,
    handler: InputRequestHandler,
    logs: LogDelivery,
    changed: Callable[[Mapping[str, Any]], None],
    ended: Callable[[Failure], None],
) -> AsyncIterator[FleetSession]:
    """A session with a fleet, until left. It knows status and lists from the start, and keeps them current.

    `within`: seconds in which the fleet must have taken the connection and answered the first request. `may_be_mute`:
    whether it lives in another process, which can stop or hang. `changed` is called with each event, and when lists
    were read again; `ended` before those who wait for answers are told of the end. Raises OSError, Lost, RpcError,
    TimeoutError.
    """
    raised: Exception | None = None
    async with anyio.create_task_group() as tasks:
        incoming = Incoming(tasks, handler, logs, changed=changed, ended=ended)
        try:
            async with _agreed(dial, within, incoming, handler.capabilities) as session:
                tasks.start_soon(logs.run)
                if may_be_mute:
                    tasks.start_soon(session.look_after)
                await session.refresh()
                tasks.start_soon(session.keep_current)
                tasks.start_soon(session.follow)
                incoming.news.set()  # for what changed between reading and following
                yield session
        except Exception as error:  # raised again below, since the group would wrap it
            raised = error
        finally:
            tasks.cancel_scope.cancel()
    if raised is not None:
        raise raised


def _longest(negotiated: Negotiated) -> int:
    """Bytes that the fleet takes of one message, as it said in the handshake."""
    extensions = negotiated.capabilities.get("extensions") or {}
    said = (extensions.get(DAEMON_EXTENSION) or {}).get(LONGEST)
    return said if isinstance(said, int) else MAX_BYTES


@asynccontextmanager
async def _agreed(
    dial: Dial, within: float | None, incoming: Incoming, capabilities: Mapping[str, Any]
) -> AsyncIterator[FleetSession]:
    """Dial, and agree on a session within so many seconds; it is ended when this is left."""
    handshake = Handshake(incoming, capabilities)
    transport: SocketTransport | None = None
    try:
        try:
            with anyio.fail_after(within):
                transport = SocketTransport(await dial(), handshake.exchange.receiver)
                session = await handshake.agree(transport, Era.LEGACY)
        except Lost as lost:
            # What the daemon answered says more than that it refused: a client may be turned away for its user, say.
            raise (lost.__cause__ if isinstance(lost.__cause__, RpcError) else lost) from None
        except TimeoutError:
            raise TimeoutError(f"it did not answer within {within:g} s") from None
        yield FleetSession(session, transport, incoming)
    finally:
        if transport is not None:
            transport.close()
        handshake.exchange.end(Failure(Reason.CLOSED, "the client has left"))


def _is_starting(row: Mapping[str, Any]) -> bool:
    """Whether a server, as the status has it, is connecting for the first time: it neither failed nor was ready."""
    return row["state"] == State.CONNECTING and not row["consecutiveFailures"] and row["refreshedAt"] is None


_OF_SERVERS = frozenset({"server", "server_replaced", "server_removed", "config", "collision"})
