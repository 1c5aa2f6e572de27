"""A client's side of the daemon's socket: what a program sees of a fleet, its own or another process's."""

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
from ..core.catalog import Catalog
from ..core.errors import RpcError
from ..core.input_requests import params_of
from ..core.jsonrpc import Buffer, Lines, Members, Message
from ..core.lifecycle import Failure, Lost, Reason, State
from ..core.protocol import Era
from ..servers.session import ServerSession
from ..transport import Receiver
from ..transport.link import Flusher, Link
from .input_requests import InputRequestHandler
from .log_delivery import LogDelivery

EVENT_METHOD = "notifications/daemon/event"
LINE_CAP = 256 * 1024 * 1024
"""Bytes of one line from the daemon, which has limits of its own; a list of all servers may be long."""
OUT_CAP = 256 * 1024 * 1024
ANSWER_WITHIN = 30.0
"""Seconds for what the daemon answers by itself."""
SOON = 0.02
"""Seconds in which several changes become one reading of the lists."""

AGAIN_AFTER = 0.5
"""Seconds until lists that could not be read are asked for again."""


class SocketTransport:
    """A connected socket as a `Transport`."""

    kind = "unix"
    pid: int | None = None
    last_status: int | None = None

    def __init__(self, connected: socket.socket, receiver: Receiver) -> None:
        self._receiver = receiver
        self._lines = Lines(LINE_CAP)
        descriptor = connected.detach()
        self._link = Link(descriptor, descriptor, feed=self._feed, lost=self._lost, flusher=Flusher(), cap=OUT_CAP)

    def send(self, parts: Sequence[Buffer]) -> None:
        """See Transport."""
        self._link.send(parts)

    def close(self) -> None:
        """Close the socket."""
        self._link.close()

    def _feed(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            self._receiver.line(line)

    def _lost(self, reason: str) -> None:
        self._receiver.lost(Failure(Reason.CLOSED, f"the connection to the daemon: {reason}"))


class Attachment:
    """One connection to a fleet: asks it, answers it, and knows what it lists and how its servers are.

    It begins as a legacy client does: only such a one can be asked at any time, by servers of both eras, and says once
    what it wants to be told.
    """

    def __init__(
        self, changed: Callable[[Mapping[str, Any]], None], handler: InputRequestHandler, logs: LogDelivery
    ) -> None:
        self.catalog = Catalog()
        self.status: dict[str, Any] = {}
        """The last `daemon/status`."""
        self._changed = changed
        self._handler = handler
        self._logs = logs
        self._answering: dict[bytes, anyio.CancelScope] = {}
        self._tasks: anyio.abc.TaskGroup | None = None
        self._stirred = asyncio.Event()
        self._refreshed = asyncio.Event()
        self._session = ServerSession(
            invalid=lambda problem: None,
            changed=lambda kind: self._stirred.set(),
            failed=lambda failure: None,
            lost=lambda failure: None,
            told=self._told,
            asked=self._asked,
            capabilities=handler.capabilities,
        )

    @property
    def loss(self) -> Failure | None:
        """Why the connection ended."""
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

    @asynccontextmanager
    async def over(self, connected: socket.socket) -> AsyncIterator[None]:
        """Talk over this socket, knowing status and lists from the start and keeping them current."""
        session = self._session
        transport = SocketTransport(connected, session.receiver(lambda line: None))
        session.transport = transport
        raised: Exception | None = None
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._logs.run)
                try:
                    await self._begin(self._tasks)
                    yield
                except Exception as error:  # raised again below, since the group would wrap it
                    raised = error
                self._tasks.cancel_scope.cancel()
            if raised is not None:
                raise raised
        finally:
            session.lose(Failure(Reason.CLOSED, "detached"))
            transport.close()

    async def _begin(self, tasks: anyio.abc.TaskGroup) -> None:
        with anyio.fail_after(ANSWER_WITHIN):
            await self._session.negotiate(Era.LEGACY)
            await self.refresh()
        tasks.start_soon(self._keep_current)
        tasks.start_soon(self._follow)
        self._stirred.set()  # for what changed between reading and following

    async def ended(self) -> None:
        """Wait for the end of the connection."""
        await self._session.ended.wait()

    async def settled(self) -> None:
        """Wait until each server is up or has failed once."""
        while any(_is_starting(row) for row in self.status["servers"]):
            self._refreshed.clear()
            await self._refreshed.wait()

    async def refresh(self) -> None:
        """Read status and lists again."""
        status = jsonrpc.value(await self.ask("daemon/status", {}))
        self.catalog = await self._session.read_catalog(timeout=ANSWER_WITHIN)
        self.status = status
        self._refreshed.set()

    async def _keep_current(self) -> None:
        while True:
            await self._stirred.wait()
            await anyio.sleep(SOON)
            self._stirred.clear()
            try:
                await self.refresh()
            except (Lost, TimeoutError, RpcError):  # RpcError: busy with as many requests as it takes at a time
                self._stirred.set()
                await anyio.sleep(AGAIN_AFTER)
                continue
            self._changed({"event": "lists"})

    async def _follow(self) -> None:
        """Be told of events, for as long as the connection lives."""
        try:
            await self.ask("daemon/events", {}, timeout=math.inf)
        except Lost:
            return

    def _asked(self, message: Message) -> None:
        assert self._tasks is not None
        self._tasks.start_soon(self._answer, message)

    async def _answer(self, message: Message) -> None:
        """Have the program answer, until the daemon takes the question back."""
        id = bytes(message.id)
        with anyio.CancelScope() as self._answering[id]:
            try:
                self._session.answer(id, await self._handler.answer(message))
            except RpcError as refusal:
                self._session.answer_error(id, jsonrpc.error_object(refusal))
            finally:
                del self._answering[id]

    def _told(self, message: Message) -> None:
        if message.method == EVENT_METHOD:
            event = jsonrpc.value(message.params)
            if event.get("event") in _OF_SERVERS:
                self._stirred.set()
                self._changed(event)
        elif message.method == "notifications/message":
            self._logs.add(message)
        elif message.method == "notifications/cancelled":
            scope = self._answering.get(bytes(params_of(message.params).get("requestId", b"")))
            if scope is not None:
                scope.cancel()


def _is_starting(row: Mapping[str, Any]) -> bool:
    """Whether a server, as the status has it, is connecting for the first time."""
    return row["state"] == State.CONNECTING and not row["consecutiveFailures"] and row["refreshedAt"] is None


_OF_SERVERS = frozenset({"server", "server_replaced", "server_removed", "config", "collision"})
