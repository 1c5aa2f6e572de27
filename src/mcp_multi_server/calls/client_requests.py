"""Requests that are sent to one legacy client, because a server needs input: rows in a table until it answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..core import jsonrpc
from ..core.errors import INTERNAL_ERROR, RpcError
from ..core.jsonrpc import Buffer, Message

MOST_OPEN = 64
"""Requests that one client has to answer at a time."""
LONGEST_NUMBER = 18
"""Digits of an id; none of ours has as many, and Python refuses to read thousands."""
FIRST_ID_BELOW = 1 << 48
"""Far below the integers that JavaScript cannot tell apart."""


class _Row(NamedTuple):
    answered: Callable[[Message], None]
    lost: Callable[[], None]


class ClientRequests:
    """The table of one client. Its session makes it and ends it; `send` queues a line to the client."""

    def __init__(self, send: Callable[[Sequence[Buffer]], None]) -> None:
        self._send = send
        self._rows: dict[int, _Row] = {}
        # Not from 1: a client that a bridge connects to one daemon after another may answer an earlier one's question.
        self._last = random.randrange(FIRST_ID_BELOW)
        self._is_over = False

    def __len__(self) -> int:
        return len(self._rows)

    def ask(self, method: str, params: Buffer, *, answered: Callable[[Message], None], lost: Callable[[], None]) -> int:
        """Send a request and return its id.

        One of both is called later, once, unless the request is cancelled before: `answered` with the client's result
        or error, whatever it is, or `lost` where the client can answer no more. Raises RpcError where it cannot be
        asked.
        """
        if self._is_over:
            raise RpcError(INTERNAL_ERROR, "the client is gone")
        if len(self._rows) >= MOST_OPEN:
            raise RpcError(INTERNAL_ERROR, f"the client has {MOST_OPEN} input requests to answer")
        self._last += 1
        self._rows[self._last] = _Row(answered, lost)
        self._send(jsonrpc.request(self._last, method, params))
        return self._last

    def cancel(self, id: int, reason: str) -> None:
        """Tell the client that its answer is not needed any more, unless it has given it."""
        if self._rows.pop(id, None) is not None:
            told = {"requestId": id, "reason": reason}
            self._send(jsonrpc.notification("notifications/cancelled", jsonrpc.encode(told)))

    def answered(self, message: Message) -> None:
        """Take a response from the client; one that answers no request is ignored."""
        id = bytes(message.id)
        row = self._rows.pop(int(id), None) if id.isdigit() and len(id) <= LONGEST_NUMBER else None
        if row is not None:
            row.answered(message)

    def end(self) -> None:
        """The client can answer no more: everybody who waits for it is told."""
        self._is_over = True
        # Emptied first: who is told may look at the table, or ask again and be refused.
        rows, self._rows = self._rows, {}
        for row in rows.values():
            row.lost()
