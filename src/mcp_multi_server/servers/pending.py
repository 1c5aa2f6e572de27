"""Requests that were sent and not answered yet: rows in a table, with one timer for all their deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec

from ..core import jsonrpc
from ..core.errors import RpcError
from ..core.jsonrpc import ABSENT, Members, Message
from ..core.lifecycle import Failure, Lost

NO_WORK = float("-inf")
"""For requests that a server answers at once, or never has to: they are no reason to be silent."""


class Waiter(Protocol):
    """Who waits for the answer to one request: a forwarded call, or a task of ours.

    Exactly one of `settle`, `fail` and `expire` is called, once, and nothing after it.
    """

    deadline: float
    """Loop time at which `expire` is called. It may move while the request waits: see `PendingRequests.hasten`."""

    @property
    def silent_until(self) -> float:
        """Loop time until which the server may be silent because it works on this; `NO_WORK` where it is no work."""

    def settle(self, message: Message) -> None:
        """The server answered, with a result or an error."""

    def fail(self, failure: Failure) -> None:
        """The request or its answer was lost on the way."""

    def expire(self) -> None:
        """The deadline passed."""

    def progress(self, params: Members) -> None:
        """The server reported progress; `params` are its notification's."""


class AwaitedAnswer:
    """Has a task of ours wait for an answer. The task sets itself a time limit, so there is no deadline here."""

    deadline = float("inf")
    silent_until = NO_WORK

    def __init__(self, progress: Callable[[Members], None] | None = None) -> None:
        self.answer: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        self._progress = progress

    def settle(self, message: Message) -> None:
        """Wake the task with the result, or with RpcError."""
        if self.answer.done():
            return  # the task was cancelled, and has not run yet
        if message.error is not ABSENT:
            self.answer.set_exception(_rpc_error(message.error))
        else:
            self.answer.set_result(message.result)

    def fail(self, failure: Failure) -> None:
        """Wake the task with Lost."""
        if not self.answer.done():
            self.answer.set_exception(Lost(failure))

    def expire(self) -> None:
        """Do nothing: without a deadline this is never called."""

    def progress(self, params: Members) -> None:
        """Pass the report on to who asked for it."""
        if self._progress is not None:
            self._progress(params)


class IgnoredAnswer:
    """Keeps the place of a request whose answer changes nothing, so that the answer is not taken for a stray one."""

    silent_until = NO_WORK

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline

    def settle(self, message: Message) -> None:
        """Do nothing."""

    def fail(self, failure: Failure) -> None:
        """Do nothing."""

    def expire(self) -> None:
        """Do nothing."""

    def progress(self, params: Members) -> None:
        """Do nothing."""


class PendingRequests:
    """Requests sent on one exchange and not answered, by id. The exchange makes it and ends it with `fail_all`.

    `give_up` is called with each request whose deadline has passed and the reason, so that the server can be told;
    `late`, before that, with the newest id of those whose whole time has passed: some clients give less of it.
    """

    def __init__(self, give_up: Callable[[int, Waiter, str], None], *, late: Callable[[int], None]) -> None:
        self._give_up = give_up
        self._late = late
        self._rows: dict[int, Waiter] = {}
        self._last = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._rows)

    def waiters(self) -> list[Waiter]:
        """All who wait, the oldest request first."""
        return list(self._rows.values())

    @property
    def due(self) -> int:
        """How many must be answered in time. A subscription waits for ever and is not counted."""
        return sum(waiter.deadline < float("inf") for waiter in self._rows.values())

    def work_until(self) -> float:
        """Until when the requests that wait are a reason for the server to be silent; `NO_WORK` where none is."""
        return max((waiter.silent_until for waiter in self._rows.values()), default=NO_WORK)

    def add(self, waiter: Waiter) -> int:
        """Enter a request that is about to be sent. Returns its id, which was never used before on this exchange."""
        self._last += 1  # never reused: an answer that comes late must meet nobody else's request
        self._rows[self._last] = waiter
        # Mostly false: calls that come later end later, so the timer is set once for many of them.
        if self._timer is None or waiter.deadline < self._timer.when():
            self._arm(waiter.deadline)
        return self._last

    @property
    def newest(self) -> int:
        """The id of the last request, 0 before the first."""
        return self._last

    def hasten(self, when: float) -> None:
        """Make sure that the timer runs out by `when`: a deadline has moved to an earlier time.

        One that moves to a later time need not be told: the timer finds nothing overdue and is set anew.
        """
        if self._rows and (self._timer is None or when < self._timer.when()):
            self._arm(when)

    def was_issued(self, id: int) -> bool:
        """Whether a request ever had this id."""
        return 0 < id <= self._last

    def get(self, id: int) -> Waiter | None:
        """Who waits for this id; it stays in the table."""
        return self._rows.get(id)

    def take(self, id: int) -> Waiter | None:
        """Who waits for this id; it is removed from the table."""
        return self._rows.pop(id, None)

    def fail_all(self, failure: Failure) -> None:
        """Tell all who wait that nothing will come any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rows, self._rows = self._rows, {}  # emptied first: who is told may send again, on another session
        for waiter in rows.values():
            waiter.fail(failure)

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._expire) if when != float("inf") else None

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time()
        # Looked for here and not kept in order: deadlines move with each progress, and few requests wait at a time.
        overdue = [id for id, waiter in self._rows.items() if waiter.deadline <= now]
        late = [id for id in overdue if self._rows[id].silent_until <= now]
        if late:
            self._late(max(late))  # before the waiters are told: their errors name the server's state
        for id in overdue:
            if (waiter := self.take(id)) is not None:  # one that expired before may have taken it out
                self._give_up(id, waiter, "deadline exceeded")
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
