"""The bytes of a program's session with a fleet: one socket."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from ..core.config.values import MAX_BYTES
from ..core.jsonrpc import Buffer
from ..core.lifecycle import Failure, Reason
from ..core.lines import Lines
from ..transport import Receiver
from ..transport.link import Flusher, Link

LINE_CAP = 4 * MAX_BYTES
"""Bytes of one line from the fleet, which has limits of its own; a list of all servers may be long."""
OUT_CAP = 4 * MAX_BYTES
"""Bytes that may wait to be sent. They are the program's own; a daemon that takes no more is given up."""


class SocketTransport:
    """A connected socket as a `Transport`. `open_session` makes it, and closes it at the end.

    It knows what the other side cannot have carried out: messages of which it never got the end.
    """

    kind = "unix"
    pid: int | None = None
    last_status: int | None = None

    def __init__(self, connected: socket.socket, receiver: Receiver) -> None:
        self.reads = 0
        """How often something was read."""
        self.sent = 0
        """How many messages were taken to be sent."""
        self._receiver = receiver
        self._lines = Lines(LINE_CAP)
        self._takes_messages = True
        descriptor = connected.detach()  # the link closes it, and the socket object must not do so again
        self._link = Link(
            descriptor,
            descriptor,
            feed=self._feed,
            lost=self._lost,
            unwritable=self._unwritable,
            flusher=Flusher(),
            cap=OUT_CAP,
        )

    @property
    def received(self) -> int:
        """How many of the messages, from the first on, the other side may have got, now that the socket is closed."""
        written = self.sent - self._link.unwritten
        # What it left unread includes the end of what was written last: either a whole message, or part of one that
        # counts as unwritten already.
        return written - 1 if self._link.is_reset and not self._link.unwritten else written

    def send(self, parts: Sequence[Buffer]) -> None:
        """Queue one line; never waits, never raises."""
        if self._takes_messages:
            self.sent += 1
            self._link.send(parts)

    def close(self) -> None:
        """Close the socket."""
        self._takes_messages = False
        self._link.close()

    def _feed(self, data: bytes) -> None:
        self.reads += 1
        for line in self._lines.feed(data):
            self._receiver.line(line)

    def _unwritable(self, reason: str) -> None:
        # The other side has gone; the link reads what it said before that, and then comes to the end by itself.
        self._takes_messages = False

    def _lost(self, reason: str) -> None:
        self._takes_messages = False
        self._receiver.lost(Failure(Reason.CLOSED, f"the connection to the daemon: {reason}"))
