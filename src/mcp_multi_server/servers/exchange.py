"""Messages over one transport: our requests and the answers to them, and what the other side says of its own accord."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import anyio
import msgspec

from ..core import jsonrpc, protocol
from ..core.config.settings import SERVER_LINE
from ..core.flood import FloodLimit
from ..core.jsonrpc import ABSENT, Buffer, InvalidMessage, Members, Message, TooDeep
from ..core.lifecycle import Failure, Lost, Reason
from ..core.lines import Lines, Oversize
from ..transport import Receiver, Transport
from .pending import NO_WORK, AwaitedAnswer, PendingRequests, Waiter

FLOOD_LINES = 100
"""Invalid lines within one second that end the exchange."""
NEVER_CANCELLED = frozenset({"initialize", "server/discover"})
"""Requests that must not be cancelled (basic/patterns/cancellation)."""
LONGEST_NUMBER = 18
"""Digits of an id, token or error code; Python refuses to read thousands, and none of ours has as many."""


class ExchangeOwner(Protocol):
    """Whose exchange it is. Called on the event loop; must not block."""

    def stderr_line(self, line: str) -> None:
        """The server wrote a line to its stderr."""

    def invalid_line(self, problem: str) -> None:
        """The other side sent a line that is no message, or no answer to anything."""

    def peculiar(self, what: str) -> None:
        """The other side does something otherwise than the protocol has it, and was understood all the same."""

    def request_failed(self, exchange: Exchange, failure: Failure) -> None:
        """A request was lost on its way out or its way back; the transport lives."""

    def request_unanswered(self, exchange: Exchange, id: int) -> None:
        """The time of the request with this id has passed, and nothing at all was heard since it was sent."""

    def answered_late(self) -> None:
        """An answer came to a request that had been given up."""

    def exchange_ended(self, failure: Failure) -> None:
        """It is over. Called before those who wait for answers are told."""


class Withdrawable(Protocol):
    """Something that the other side asked and waits for."""

    def withdraw(self, reason: str) -> None:
        """The other side does not wait for it any more."""


class _NotOpen:
    """The transport of an exchange before there is one: a server that speaks too early gets no answer."""

    kind = ""
    pid: int | None = None
    last_status: int | None = None

    def send(self, parts: Sequence[Buffer]) -> None:
        """Drop the line."""


class Exchange:
    """Requests, answers and notifications over one transport.

    A handshake makes it, opens the transport with its `receiver`, and leaves it to the session that comes of the
    handshake. It ends once: with the transport, or by `end`.
    """

    def __init__(self, owner: ExchangeOwner, take: Callable[[Message], None]) -> None:
        self.transport: Transport = _NotOpen()
        self.take = take
        """Takes the requests and notifications of the other side: the handshake at first, then the session."""
        self.envelope: Mapping[str, Any] = {}
        """What each message of our own carries in its `_meta`: nothing, unless a modern era was agreed on."""
        self.pending = PendingRequests(self._given_up, late=self._is_late)
        self.input_requests: dict[bytes, Withdrawable] = {}
        """What the other side asked and waits for, by its ids."""
        self.loss: Failure | None = None
        """Why it ended."""
        self.ended = asyncio.Event()
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self.last_answer = self._loop.time()
        """Loop time of the last answer or progress."""
        self._last_answered = 0
        """The id of the newest request when that was heard."""
        self._given_up_at = -math.inf
        self._given_up_work = NO_WORK
        """When a call was last given up, and until when the server may be silent for the sake of those given up."""
        self._invalid_lines = FloodLimit(FLOOD_LINES)

    @property
    def receiver(self) -> Receiver:
        """What the transport is opened with."""
        return Receiver(line=self._line, stderr=self._owner.stderr_line, failed=self._failed, lost=self.end)

    @property
    def work_until(self) -> float:
        """Until when calls are a reason for the other side to be silent, those included that were given up.

        `NO_WORK` where it has no call: it may be working on one that was given up until it answers anything.
        """
        given_up = self._given_up_work if self._given_up_at >= self.last_answer else NO_WORK
        return max(given_up, self.pending.work_until())

    # -- what goes out -------------------------------------------------------------------------------------------

    def send(self, id: int, method: str, params: Buffer) -> None:
        """Send the request that `pending.add` gave this id."""
        self.transport.send(jsonrpc.request(id, method, params))

    def answer(self, id: bytes, payload: Buffer) -> None:
        """Answer what the other side asked; dropped when the exchange has ended."""
        if self.loss is None:
            self.transport.send(jsonrpc.result(id, payload))

    def answer_error(self, id: bytes, payload: Buffer) -> None:
        """Answer it with an error object, already encoded."""
        if self.loss is None:
            self.transport.send(jsonrpc.error(id, payload))

    def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Send a notification; dropped when the exchange has ended."""
        if self.loss is None:
            self.transport.send(jsonrpc.notification(method, None if params is None else jsonrpc.encode(params)))

    def cancel(self, id: int, reason: str) -> None:
        """Give up a request: its waiter is told nothing more, the other side is told why."""
        if (waiter := self.pending.take(id)) is not None:
            self._given_up(id, waiter, reason)

    async def ask(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        timeout: float,
        progress: Callable[[Members], None] | None = None,
    ) -> msgspec.Raw:
        """Send a request of our own and wait; `progress` is told of what the other side reports meanwhile.

        Raises RpcError as the other side answered, Lost with the exchange, TimeoutError after `timeout` seconds.
        """
        if self.loss is not None:
            raise Lost(self.loss)
        awaited = AwaitedAnswer(progress)
        id = self.pending.add(awaited)
        try:
            token = id if progress is not None else None
            self.send(id, method, jsonrpc.encode(self._with_meta(params, token)))
            with anyio.fail_after(timeout):
                return await awaited.answer
        finally:
            # Still in the table: the caller was cancelled or ran out of time, so nobody wants the answer any more.
            if self.pending.take(id) is not None and method not in NEVER_CANCELLED:
                self._tell_cancelled(id, "given up")

    def end(self, failure: Failure) -> None:
        """The transport ended or must end: everyone who waits is told."""
        if self.loss is not None:
            return
        self.loss = failure
        self.ended.set()
        # The owner first: who is told that a call failed may look at the server's state.
        self._owner.exchange_ended(failure)
        self.pending.fail_all(failure)
        for request in list(self.input_requests.values()):  # a copy: each takes itself out
            request.withdraw("the server is gone")

    # -- what comes in -------------------------------------------------------------------------------------------

    def _line(self, line: bytes | Oversize) -> None:
        if self.loss is not None:
            return  # who waited has been told; a flood that goes on must cost nothing more
        if isinstance(line, Oversize):
            self._too_long(line)
            return
        try:
            message = jsonrpc.decode(line)
        except InvalidMessage as problem:
            if (answer := jsonrpc.decode_answer(line)) is None:
                self._unreadable(line, problem.message)
                return
            message = answer
        if not message.method:
            self._answered(message)
        elif message.id is ABSENT and message.method == "notifications/progress":
            self._progressed(message)
        else:
            self.take(message)

    def _answered(self, message: Message) -> None:
        id = _number(bytes(message.id))
        waiter = None if id is None else self.pending.take(id)
        if waiter is None and (id is None or not self.pending.was_issued(id)):
            id = self._meant(message.id, "answers")
            waiter = None if id is None else self.pending.take(id)
        if waiter is None:
            if id is None or not self.pending.was_issued(id):
                self._count_invalid("an answer to no request")
            else:  # given up before, or answered twice
                self._heard()
                self._owner.answered_late()
            return
        self._heard()
        try:
            if (fault := self._fault(message)) is None:
                waiter.settle(message)
                return
        except TooDeep:
            fault = "an answer that is nested too deeply"
        self._count_invalid(fault)
        waiter.fail(Failure(Reason.PROTOCOL, f"sent {fault}"))

    def _progressed(self, message: Message) -> None:
        try:
            params = jsonrpc.members(message.params) if message.params is not ABSENT else {}
        except TooDeep:
            self._count_invalid("nested too deeply")
            return
        token = params.get("progressToken", ABSENT)
        id = _number(bytes(token))
        if id is None and token is not ABSENT:
            id = self._meant(token, "reports progress")
        if id is None or not self.pending.was_issued(id):
            return
        owes_answer = self._given_up_at >= self.last_answer
        self._heard()
        if (waiter := self.pending.get(id)) is not None:
            waiter.progress(params)
        elif owes_answer:  # it is still at work on what nobody waits for any more
            self._given_up_at = self._given_up_work = self.last_answer

    def _meant(self, raw: msgspec.Raw, does: str) -> int | None:
        """The id of ours that is meant by one of another type: all of ours are numbers, so it can be no other's."""
        id = jsonrpc.meant_number(raw) if len(memoryview(raw)) <= LONGEST_NUMBER + 2 else None
        if id is None or not self.pending.was_issued(id):
            return None
        self._owner.peculiar(f"it {does} with an id of another type than was sent: {_type(raw)} for a whole number")
        return id

    def _fault(self, message: Message) -> str | None:
        """What is wrong with an answer, if anything."""
        if message.error is not ABSENT:
            if bytes(message.error) != b"null" or message.result is ABSENT:
                return None if _is_error(message.error) else "an error without code and message"
            self._owner.peculiar('it answers with "error": null beside a result')
            message.error = ABSENT
        if message.result is ABSENT or not jsonrpc.is_object(message.result):
            return "a result that is not an object"
        return None

    def _heard(self) -> None:
        self.last_answer, self._last_answered = self._loop.time(), self.pending.newest

    def _is_late(self, id: int) -> None:
        """The deadline of a request has passed; the server may be slow with it alone, or silent altogether."""
        if id > self._last_answered:  # not heard since it was sent: ids grow, so they tell before and after
            self._owner.request_unanswered(self, id)

    def _unreadable(self, line: bytes, problem: str) -> None:
        """A line that is no message; where it was meant as an answer, its waiter need not wait for the deadline."""
        self._count_invalid(problem)
        id = _number(jsonrpc.salvage_id(line[: Lines.KEEP], line[-Lines.KEEP :]) or b"")
        if id is not None and (waiter := self.pending.take(id)) is not None:
            waiter.fail(Failure(Reason.PROTOCOL, f"sent an answer that cannot be read: {problem}"))

    def _too_long(self, line: Oversize) -> None:
        """A line over the limit is gone. If it shows what it answers, only that request ends, else all might wait."""
        problem = f"sent a line of {line.size} bytes, more than {SERVER_LINE} allows"
        id = _number(jsonrpc.salvage_id(line.head, line.tail) or b"")
        if id is None or not self.pending.was_issued(id):
            self.end(Failure(Reason.PROTOCOL, problem))
            return
        self._heard()
        self._count_invalid(problem)
        if (waiter := self.pending.take(id)) is not None:  # else nobody waits for it any more
            waiter.fail(Failure(Reason.PROTOCOL, problem))

    def _count_invalid(self, problem: str) -> None:
        self._owner.invalid_line(problem)
        if self._invalid_lines.is_exceeded(self._loop.time()):
            self.end(Failure(Reason.PROTOCOL, f"sent more than {FLOOD_LINES} invalid lines within a second"))

    def _failed(self, id: int, failure: Failure) -> None:
        if (waiter := self.pending.take(id)) is not None:
            waiter.fail(failure)
            self._owner.request_failed(self, failure)

    def _given_up(self, id: int, waiter: Waiter, reason: str) -> None:
        """Nobody waits for the answer any more; the other side may still work on it."""
        if waiter.silent_until != NO_WORK:
            if self._given_up_at < self.last_answer:
                self._given_up_work = NO_WORK  # what was given up before that has been seen to be no obstacle
            self._given_up_at = self._loop.time()
            self._given_up_work = max(self._given_up_work, waiter.silent_until)
        self._tell_cancelled(id, reason)

    def _tell_cancelled(self, id: int, reason: str) -> None:
        self.notify("notifications/cancelled", self._with_meta({"requestId": id, "reason": reason}))

    def _with_meta(self, params: Mapping[str, Any], token: int | None = None) -> Mapping[str, Any]:
        """`params` with what the era and a wish for progress put into their `_meta`."""
        meta = dict(self.envelope)
        if token is not None:
            meta[protocol.PROGRESS_TOKEN] = token
        # Ours last: what a caller puts there must not change what was agreed on.
        return {**params, "_meta": {**params.get("_meta", {}), **meta}} if meta else params


def _number(text: bytes) -> int | None:
    """The id, where `text` could be one of ours."""
    return int(text) if text.isdigit() and len(text) <= LONGEST_NUMBER else None


def _type(raw: msgspec.Raw) -> str:
    return "text" if bytes(memoryview(raw)[:1]) == b'"' else "a number with a point"


def _is_error(error: msgspec.Raw) -> bool:
    if not jsonrpc.is_object(error):
        return False
    body = jsonrpc.members(error)
    code = bytes(body.get("code", b""))
    return _number(code.removeprefix(b"-")) is not None and jsonrpc.text(body.get("message")) is not None
