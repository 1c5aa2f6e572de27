"""What an HTTP transport holds between the two sides: messages that wait, and the way back to the receiver."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import anyio

from ..core import jsonrpc
from ..core.jsonrpc import Buffer
from ..core.lifecycle import Failure, Reason
from . import Receiver

MAX_OPEN = 1024
MAX_HELD = 64 * 1024 * 1024
"""Messages, and bytes of them, that may wait to be sent or answered."""
_HEAD = 256
"""Bytes in which the id of a request of ours is found."""


@dataclass(slots=True, eq=False)
class Posting:
    """One line on its way to the server, and what became of it."""

    line: bytes
    message: jsonrpc.Message
    id: int | None
    """None where no answer is due: a notification, or an answer of ours."""
    failure: Failure | None = None
    """Why the last HTTP response holds no word of the server's own; goes before whatever the SDK makes of it."""
    done: bool = False
    """Answered, failed or cancelled: nothing that still comes for it is passed on."""
    abandoned: bool = False
    scope: anyio.CancelScope | None = None
    """Of whoever waits on the network for its answer."""

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        self.abandoned = True
        if self.scope is not None:
            self.scope.cancel()


@contextmanager
def while_wanted(posting: Posting | None) -> Iterator[None]:
    """Wait on the network inside; ends early once the posting is abandoned.

    A server that never answers would otherwise cost a connection for each call that was given up.
    """
    with anyio.CancelScope() as scope:
        if posting is not None:
            posting.scope = scope
            if posting.abandoned:
                scope.cancel()
        yield


posted: ContextVar[Posting | None] = ContextVar("posted", default=None)
"""What the running task posts. The SDK runs each request in the context of the task that handed it over."""


class Gate:
    """Passes on what a transport brings, until it is lost or left."""

    def __init__(self, receiver: Receiver, *, announced: bool) -> None:
        self._receiver = receiver
        self._announced = announced
        self.failure: Failure | None = None
        self.ended = anyio.Event()

    @property
    def open(self) -> bool:
        """Whether the transport is neither lost nor left."""
        return not self.ended.is_set()

    def announce(self) -> None:
        """From here on a loss is told to the receiver; before, whoever opens the transport raises it."""
        self._announced = True

    def line(self, line: bytes) -> None:
        """One line from the server."""
        if self.open:
            self._receiver.line(line)

    def note(self, text: str) -> None:
        """A remark for whoever reads the server's log."""
        if self.open:
            self._receiver.stderr(text)

    def failed(self, id: int, failure: Failure) -> None:
        """One request failed."""
        if self.open:
            self._receiver.failed(id, failure)

    def lost(self, failure: Failure) -> None:
        """The connection is over; the first reason counts."""
        if not self.open:
            return
        self.failure = failure
        self.ended.set()
        if self._announced:
            self._receiver.lost(failure)

    def close(self) -> None:
        """The transport is being left."""
        self.ended.set()


class Outbox:
    """The messages that wait to be sent or answered, capped in number and bytes."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._queue: asyncio.Queue[Posting] = asyncio.Queue()
        self._requests: dict[int, Posting] = {}
        self._open = 0
        self._held = 0

    def put(self, parts: Sequence[Buffer]) -> None:
        """Queue one line. Over the cap a request fails and anything else is dropped.

        The failure is told in the loop's next turn, when whoever sends has noted what it waits for.
        """
        line = b"".join(parts)
        try:
            message = jsonrpc.decode(line)
        except jsonrpc.InvalidMessage:
            self._refuse(jsonrpc.salvage_id(line[:_HEAD], b""), "not sent: no valid JSON-RPC")
            return
        posting = Posting(line, message, int(message.id) if message.method and message.id else None)
        if (cancelled := self.find(cancelled_id(message))) is not None:
            self.settle(cancelled)
            cancelled.abandon()
        if self._open >= MAX_OPEN or self._held + len(line) > MAX_HELD:
            self._refuse(message.id if message.method else None, "not sent: too many messages wait for the server")
            return
        self._open += 1
        self._held += len(line)
        if posting.id is not None:
            self._requests[posting.id] = posting
        self._queue.put_nowait(posting)

    def _refuse(self, id: Buffer | None, why: str) -> None:
        if id:
            failure = Failure(Reason.UNREACHABLE, why)
            asyncio.get_running_loop().call_soon(self._gate.failed, int(bytes(id)), failure)

    async def get(self) -> Posting:
        """The next message that someone still wants sent."""
        while True:
            posting = await self._queue.get()
            if not posting.done:
                return posting

    def find(self, id: int | str | None) -> Posting | None:
        """The request with this id that waits for its answer."""
        return self._requests.get(id) if isinstance(id, int) else None

    def settle(self, posting: Posting) -> bool:
        """Be done with a message. False where that was so before."""
        if posting.done:
            return False
        posting.done = True
        self._open -= 1
        self._held -= len(posting.line)
        if posting.id is not None:
            del self._requests[posting.id]
        return True

    def fail(self, posting: Posting, failure: Failure) -> None:
        """Be done with a message that did not get through."""
        if self.settle(posting) and posting.id is not None:
            self._gate.failed(posting.id, failure)


def cancelled_id(message: jsonrpc.Message) -> int | None:
    """The id that a `notifications/cancelled` names; None for any other message. Requests of ours have numbers."""
    if message.method != "notifications/cancelled" or not message.params:
        return None
    id = bytes(jsonrpc.members(message.params).get("requestId", b""))
    return int(id) if id.isdigit() else None
