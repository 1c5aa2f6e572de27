"""`stdio`: this process's stdin and stdout, joined to the daemon's socket byte for byte.

It lets a host that can only start a program (an editor, a desktop application) use the daemon. Nothing is read as JSON,
so whatever the two ends speak goes through. Each direction holds one chunk at most: an end that does not take it holds
up the other end, and nothing else.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .failures import CommandFailed

CHUNK = 64 * 1024
LINGER = 5.0
"""Seconds without a byte after which the session is over, once the client has left."""
_GONE = select.POLLERR | select.POLLHUP | select.POLLRDHUP | select.POLLNVAL


class _Direction:
    """Copies bytes from one descriptor to another, a chunk at a time. `join` makes two; it ends with them."""

    def __init__(self, source: int, sink: int) -> None:
        self.source = source
        self.sink = sink
        self.waiting = memoryview(b"")
        self.ended = False
        """Whether nothing more will come from the source."""
        self.broken = False
        """Whether the sink takes nothing any more."""
        self.abandoned = False
        """Whether the writer of the source has left; bytes of its may still wait there."""

    @property
    def wants_more(self) -> bool:
        return not (self.waiting or self.ended or self.broken)

    @property
    def done(self) -> bool:
        return self.ended and not self.waiting

    def read(self) -> bool:
        """Take a chunk from the source and write it; returns whether there was anything."""
        try:
            data = os.read(self.source, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.ended = self.abandoned = True
            return False
        self.waiting = memoryview(data)
        self.write()
        return True

    def write(self) -> bool:
        """Write as much as the sink takes; returns whether that was anything."""
        try:
            sent = os.write(self.sink, self.waiting)
        except BlockingIOError:
            return False
        except OSError:
            self.broken = True
            self.waiting = memoryview(b"")
            return False
        self.waiting = self.waiting[sent:]
        return True


def join(connection: socket.socket, stdin: int, stdout: int) -> None:
    """Copy in both directions until the client ends the session.

    Raises:
        CommandFailed: the daemon ended it first.

    """
    connection.setblocking(False)
    up, down = _Direction(stdin, connection.fileno()), _Direction(connection.fileno(), stdout)
    with _non_blocking(stdin), _non_blocking(stdout):
        _copy(up, down, connection)
    if not (up.abandoned or down.broken):
        raise CommandFailed("the daemon closed the connection")


def _copy(up: _Direction, down: _Direction, connection: socket.socket) -> None:
    deadline: float | None = None
    told = moved = False
    while not (down.broken or down.done):
        if up.done and not told:
            # Half the connection only: the daemon may still have answers to what it was sent.
            told = True
            _end_writing(connection)
        # The last answers may take their time: the wait begins anew with each byte.
        if (up.abandoned or up.broken) and (moved or deadline is None):
            deadline = time.monotonic() + LINGER
        if deadline is not None and time.monotonic() >= deadline:
            return
        moved = _turn(up, down, deadline)


def _turn(up: _Direction, down: _Direction, deadline: float | None) -> bool:
    """Wait until a descriptor is ready, then copy what can be copied; returns whether a byte moved."""
    ready = _poll(_wanted(up, down), deadline)
    moved = False
    for direction in (up, down):
        # Errors and hang-ups count as ready: the attempt to write or read finds out what it is.
        if direction.waiting and ready.get(direction.sink, 0) & ~select.POLLIN:
            moved |= direction.write()
        elif direction.wants_more and ready.get(direction.source, 0) & ~select.POLLOUT:
            moved |= direction.read()
    if ready.get(up.source, 0) & _GONE:
        up.abandoned = True
    if ready.get(down.sink, 0) & _GONE:
        down.broken = True
    return moved


def _wanted(up: _Direction, down: _Direction) -> dict[int, int]:
    """What to wait for. A descriptor that wants nothing is left out: poll would report its end again and again."""
    wanted = {down.sink: select.POLLOUT if down.waiting else 0}
    for direction in (up, down):
        if direction.wants_more:
            wanted[direction.source] = select.POLLIN
    if up.waiting:
        wanted[up.sink] = wanted.get(up.sink, 0) | select.POLLOUT
        if not up.abandoned:
            wanted[up.source] = select.POLLRDHUP  # not read now, but whether the client left is to be known
    return wanted


def _poll(wanted: dict[int, int], deadline: float | None) -> dict[int, int]:
    poller = select.poll()
    for descriptor, events in wanted.items():
        poller.register(descriptor, events)
    timeout_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
    return dict(poller.poll(timeout_ms))


def _end_writing(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        # The daemon is gone already. The other direction sees that, and ends.
        return


@contextmanager
def _non_blocking(descriptor: int) -> Iterator[None]:
    """Have a descriptor not block until left.

    Pipes and sockets only: a terminal shares the flag with the shell, and a file never blocks.
    """
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        yield
        return
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)) or not os.get_blocking(descriptor):
        yield
        return
    os.set_blocking(descriptor, False)
    try:
        yield
    finally:
        os.set_blocking(descriptor, True)
