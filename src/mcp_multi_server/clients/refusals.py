"""Clients that are turned away: each is told why in answer to its first request, and then hung up on.

An error that answers nothing is lost in most clients, which show a closed connection instead. So a client has a moment
to say its first request; one that does not, or comes when many others are in that moment, is told at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from ..core import jsonrpc
from ..core.errors import RpcError
from ..core.jsonrpc import ABSENT, InvalidMessage
from ..core.lines import Lines

FIRST_REQUEST = 0.5
"""Seconds that a client has for its first request."""
MOST_WAITING = 64
"""Clients that have their moment at a time."""
READ_SIZE = 64 * 1024
"""Bytes that are read of what a client says: enough to find the id of a request of any length."""


class Refusals:
    """The gateway makes one, and closes it."""

    def __init__(self) -> None:
        self._waiting: set[_Refusal] = set()

    def add(
        self,
        connection: socket.socket,
        failure: RpcError,
        *,
        patience: float = FIRST_REQUEST,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        """Tell a client why it is turned away, within `patience` seconds, then close its connection and call `done`."""

        def ended() -> None:
            self._waiting.discard(refusal)
            done()

        refusal = _Refusal(connection, failure, ended)
        self._waiting.add(refusal)
        refusal.begin(patience if len(self._waiting) <= MOST_WAITING else 0.0)

    def close(self) -> None:
        """Tell everybody at once."""
        for refusal in list(self._waiting):
            refusal.tell(b"null")


class _Refusal:
    """One client that is turned away."""

    def __init__(self, connection: socket.socket, failure: RpcError, ended: Callable[[], None]) -> None:
        self._connection = connection
        self._error = jsonrpc.error_object(failure)
        self._ended = ended
        self._said = b""
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    def begin(self, patience: float) -> None:
        """Look whether the client has said something; if not, wait for it."""
        self._connection.setblocking(False)
        self._read()
        if self._is_over:
            return
        if not patience:
            self.tell(b"null")
            return
        self._timer = self._loop.call_later(patience, self.tell, b"null")
        self._loop.add_reader(self._connection, self._read)

    def tell(self, id: bytes) -> None:
        """Answer the request with that id, and hang up."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
            self._loop.remove_reader(self._connection)
        with self._connection, contextlib.suppress(OSError):
            # It fits into the socket's buffer, or the client is not one to wait for.
            self._connection.send(b"".join(jsonrpc.error(id, self._error)))
        self._ended()

    def _read(self) -> None:
        try:
            data = self._connection.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._said += data or b"\n"
        *lines, rest = self._said.split(b"\n")
        ids = [id for line in lines if line.strip() and (id := _id_of(line)) is not None]
        if ids:
            self.tell(ids[0])
        elif not data:
            self.tell(b"null")
        elif len(self._said) >= READ_SIZE:
            self.tell(jsonrpc.salvage_id(rest[: Lines.KEEP], b"") or b"null")


def _id_of(line: bytes) -> bytes | None:
    """The id that the error carries: null for what is no message, None for a notification, which gets no answer."""
    try:
        message = jsonrpc.decode(line)
    except InvalidMessage as invalid:
        return invalid.id
    return None if message.id is ABSENT else bytes(message.id)
