"""A program's session with a fleet over a socket, whether the fleet is its own or a daemon's."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import msgspec

from ..core import jsonrpc
from ..core.catalog import Catalog, Kind
from ..core.errors import RpcError
from ..core.input_requests import params_of
from ..core.jsonrpc import Buffer, Members, Message
from ..core.lifecycle import Failure, Lost, Reason, State
from ..core.lines import Lines
from ..core.protocol import Era
from ..servers.catalog_reading import read_catalog
from ..servers.exchange import Exchange
from ..servers.handshake import Handshake
from ..servers.session import ServerSession
from ..transport import Receiver
from ..transport.link import Flusher, Link
from .input_requests import InputRequestHandler
from .log_delivery import LogDelivery

EVENT_METHOD = "notifications/daemon/event"
LINE_CAP = 256 * 1024 * 1024
"""Bytes of one line from the daemon, which has limits of its own; a list of all servers may be long."""
OUT_CAP = 256 * 1024 * 1024
"""Bytes that may wait to be sent; a daemon that takes no more is given up."""
ANSWER_WITHIN = 30.0
"""Seconds for what the fleet answers by itself."""
SOON = 0.02
"""Seconds in which several changes become one reading of the lists."""
AGAIN_AFTER = 0.5
"""Seconds until lists that could not be read are asked for again."""


class SocketTransport:
    """A connected socket as a `Transport`. `open_session` makes it, and closes it at the end."""

    kind = "unix"
    pid: int | None = None
    last_status: int | None = None

    def __init__(self, connected: socket.socket, receiver: Receiver) -> None:
        self._receiver = receiver
        self._lines = Lines(LINE_CAP)
        descriptor = connected.detach()  # the link closes it, and the socket object must not do so again
        self._link = Link(descriptor, descriptor, feed=self._feed, lost=self._lost, flusher=Flusher(), cap=OUT_CAP)

    def send(self, parts: Sequence[Buffer]) -> None:
        """Queue one line; never waits, never raises."""
        self._link.send(parts)

    def close(self) -> None:
        """Close the socket."""
        self._link.close()

    def _feed(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            self._receiver.line(line)

    def _lost(self, reason: str) -> None:
        self._receiver.lost(Failure(Reason.CLOSED, f"the connection to the daemon: {reason}"))


class Incoming:
    """Takes what a fleet asks of this program and tells it: requests are answered, events and logs passed on.

    `open_session` makes it, with the task group in which it answers. `changed` is called with each event.
    """

    def __init__(
        self,
        tasks: anyio.abc.TaskGroup,
        handler: InputRequestHandler,
        logs: LogDelivery,
        changed: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self.news = asyncio.Event()
        """Set when status or lists may have changed."""
        self.changed = changed
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
                session.answer(id, await self._handler.answer(message))
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

    def request_unanswered(self) -> None:
        """Do nothing: who asked sees that its time is up."""

    def exchange_ended(self, failure: Failure) -> None:
        """Do nothing: who waits for the end of the session sees it."""


class FleetSession:
    """Asks a fleet, and knows what it lists and how its servers are.

    `open_session` makes it and ends it. The program is a legacy client: only such a one can be asked at any time, by
    servers of both eras, and says once what it wants to be told.
    """

    def __init__(self, session: ServerSession, incoming: Incoming) -> None:
        self.catalog = Catalog()
        self.status: dict[str, Any] = {}
        """The last `daemon/status`."""
        self._session = session
        self._incoming = incoming
        self._refreshed = asyncio.Event()

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
        """A request's result. Raises RpcError, Lost, TimeoutError."""
        return await self._session.ask(method, params, timeout=timeout, progress=progress)

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
            await self.ask("daemon/events", {}, timeout=math.inf)
        except Lost:
            return


@asynccontextmanager
async def open_session(
    connected: socket.socket,
    *,
    handler: InputRequestHandler,
    logs: LogDelivery,
    changed: Callable[[Mapping[str, Any]], None],
) -> AsyncIterator[FleetSession]:
    """A session over this socket, until left. It knows status and lists from the start, and keeps them current.

    `changed` is called with each event, and when lists were read again. Raises Lost, RpcError, TimeoutError.
    """
    raised: Exception | None = None
    async with anyio.create_task_group() as tasks:
        incoming = Incoming(tasks, handler, logs, changed)
        handshake = Handshake(incoming, handler.capabilities)
        transport = SocketTransport(connected, handshake.exchange.receiver)
        try:
            tasks.start_soon(logs.run)
            with anyio.fail_after(ANSWER_WITHIN):
                session = FleetSession(await handshake.agree(transport, Era.LEGACY), incoming)
                await session.refresh()
            tasks.start_soon(session.keep_current)
            tasks.start_soon(session.follow)
            incoming.news.set()  # for what changed between reading and following
            yield session
        except Exception as error:  # raised again below, since the group would wrap it
            raised = error
        finally:
            tasks.cancel_scope.cancel()
            handshake.exchange.end(Failure(Reason.CLOSED, "detached"))
            transport.close()
    if raised is not None:
        raise raised


def _is_starting(row: Mapping[str, Any]) -> bool:
    """Whether a server, as the status has it, is connecting for the first time: it neither failed nor was ready."""
    return row["state"] == State.CONNECTING and not row["consecutiveFailures"] and row["refreshedAt"] is None


_OF_SERVERS = frozenset({"server", "server_replaced", "server_removed", "config", "collision"})
