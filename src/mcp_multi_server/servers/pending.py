"""Requests sent to one server and not answered yet: rows in a table, one timer for all their deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec

from ..core import jsonrpc
from ..core.errors import RpcError
from ..core.jsonrpc import ABSENT, Members, Message
from ..core.lifecycle import Failure, Lost


class Waiter(Protocol):
    """Who waits for an answer. Exactly one of `settle`, `fail` and `expire` is called, and nothing after it."""

    deadline: float
    """Loop time at which `expire` is called; may move while waiting."""

    def settle(self, message: Message) -> None:
        """The server answered, with a result or an error."""

    def fail(self, failure: Failure) -> None:
        """The request or its answer was lost on the way."""

    def expire(self) -> None:
        """The deadline passed."""

    def progress(self, params: Members) -> None:
        """The server reported progress; `params` are its notification's."""


class Ask:
    """A request of our own, waited for by a task, which keeps the time itself."""

    deadline = float("inf")

    def __init__(self, progress: Callable[[Members], None] | None = None) -> None:
        self.answer: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        self.wants_progress = progress is not None
        self._progress = progress

    def settle(self, message: Message) -> None:
        """See Waiter."""
        if self.answer.done():
            return
        if message.error is not ABSENT:
            self.answer.set_exception(_rpc_error(message.error))
        else:
            self.answer.set_result(message.result)

    def fail(self, failure: Failure) -> None:
        """See Waiter."""
        if not self.answer.done():
            self.answer.set_exception(Lost(failure))

    def expire(self) -> None:
        """See Waiter; it has no deadline there."""

    def progress(self, params: Members) -> None:
        """See Waiter."""
        if self._progress is not None:
            self._progress(params)


class PendingRequests:
    """The table.

    `cancel` is told the id of each request that is given up, so that the server can be told; `late`, the id of the
    newest one whose deadline has just passed.
    """

    def __init__(self, cancel: Callable[[int, str], None], *, late: Callable[[int], None] = lambda id: None) -> None:
        self._cancel = cancel
        self._late = late
        self._rows: dict[int, Waiter] = {}
        self._last = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._rows)

    def waiters(self) -> list[Waiter]:
        """All rows, the oldest first."""
        return list(self._rows.values())

    @property
    def due(self) -> int:
        """How many must be answered in time; a standing subscription has no deadline and is none of them."""
        return sum(waiter.deadline < float("inf") for waiter in self._rows.values())

    def add(self, waiter: Waiter) -> int:
        """Take up a request; its id, never used before on this connection."""
        self._last += 1
        self._rows[self._last] = waiter
        if self._timer is None or waiter.deadline < self._timer.when():
            self._arm(waiter.deadline)
        return self._last

    @property
    def newest(self) -> int:
        """The id of the last request, 0 before the first."""
        return self._last

    def hasten(self, when: float) -> None:
        """A deadline has moved to an earlier time."""
        if self._rows and (self._timer is None or when < self._timer.when()):
            self._arm(when)

    def was_issued(self, id: int) -> bool:
        """Whether a request ever had this id."""
        return 0 < id <= self._last

    def get(self, id: int) -> Waiter | None:
        """The row with this id, which stays."""
        return self._rows.get(id)

    def take(self, id: int) -> Waiter | None:
        """The row with this id, which is removed."""
        return self._rows.pop(id, None)

    def fail_all(self, failure: Failure) -> None:
        """End every row; there is no connection any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rows, self._rows = self._rows, {}
        for waiter in rows.values():
            waiter.fail(failure)

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._expire) if when != float("inf") else None

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time()
        overdue = [id for id, waiter in self._rows.items() if waiter.deadline <= now]
        if overdue:
            self._late(max(overdue))  # before the waiters are told, whose errors tell what it means for the server
        for id in overdue:
            if (waiter := self.take(id)) is not None:
                self._cancel(id, "deadline exceeded")
                waiter.expire()
        if self._rows:
            self._arm(min(waiter.deadline for waiter in self._rows.values()))


def _rpc_error(error: msgspec.Raw) -> RpcError:
    body = jsonrpc.members(error)
    return RpcError(int(bytes(body["code"])), jsonrpc.text(body["message"]) or "", _value_or_none(body.get("data")))


def _value_or_none(raw: msgspec.Raw | None) -> object:
    """The value, or None for what is JSON and yet no value to Python: a number too big, nesting too deep."""
    try:
        return None if raw is None else jsonrpc.value(raw)
    except msgspec.DecodeError:
        return None
