"""Requests to a client, which are questions of servers: rows in a table until the client answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..core import jsonrpc
from ..core.errors import INTERNAL_ERROR, RpcError
from ..core.jsonrpc import Buffer, Message

MOST = 64
"""Questions that one client has open at a time."""
LONGEST_NUMBER = 18
"""Digits of an id; none of ours has as many, and Python refuses to read thousands."""


class Asker(Protocol):
    """Who waits for the client. One of these is called, once, unless the question is taken back before."""

    def answered(self, message: Message) -> None:
        """The client answered, with a result or an error, whatever they are."""

    def lost(self) -> None:
        """The client can answer no more."""


class ClientRequests:
    """The table of one client. `send` queues a line to it."""

    def __init__(self, send: Callable[[Sequence[Buffer]], None]) -> None:
        self._send = send
        self._rows: dict[int, Asker] = {}
        self._last = 0
        self._over = False

    def __len__(self) -> int:
        return len(self._rows)

    def ask(self, method: str, params: Buffer, asker: Asker) -> int:
        """Send a request; its id. Raises RpcError where the client cannot be asked."""
        if self._over:
            raise RpcError(INTERNAL_ERROR, "the client is gone")
        if len(self._rows) >= MOST:
            raise RpcError(INTERNAL_ERROR, f"the client has {MOST} questions to answer")
        self._last += 1
        self._rows[self._last] = asker
        self._send(jsonrpc.request(self._last, method, params))
        return self._last

    def take_back(self, id: int, reason: str) -> None:
        """Tell the client that its answer is not needed any more, unless it has given it."""
        if self._rows.pop(id, None) is not None:
            told = {"requestId": id, "reason": reason}
            self._send(jsonrpc.notification("notifications/cancelled", jsonrpc.encode(told)))

    def answered(self, message: Message) -> None:
        """A response from the client; what answers no question is let pass."""
        id = bytes(message.id)
        asker = self._rows.pop(int(id), None) if id.isdigit() and len(id) <= LONGEST_NUMBER else None
        if asker is not None:
            asker.answered(message)

    def end(self) -> None:
        """The client can answer no more."""
        self._over = True
        rows, self._rows = self._rows, {}
        for asker in rows.values():
            asker.lost()
