"""Lines that wait to be written: how far each has got, and whether the reader has read what it was sent."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice, takewhile

from ..core.bridge.bridge import BARRIER
from ..core.bridge.envelope import read

MOST_PARTS = 64
"""Lines of one write."""
BARRIER_PATIENCE = 0.05
"""Seconds that a reader has to read what was written before a barrier. Most take a fraction of a millisecond."""
BARRIER_LOOK_EVERY = 0.001
_UNREAD_IN_PIPE, _UNREAD_IN_SOCKET = 0x541B, 0x5411
"""FIONREAD and SIOCOUTQ of ioctl(2)."""


class Outgoing:
    """The shell of the bridge makes one for each end, and a new one for each connection."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: deque[bytes | memoryview] = deque()
        self._first = b""
        """The first line, where a part of it is written."""
        self._barrier_until: float | None = None
        self._unread = _counter_of_unread(descriptor)
        self.size = 0
        """Bytes that wait."""
        self.is_broken = False
        """Whether nobody takes anything any more. What waits then stays here, to be looked at."""

    def send(self, lines: list[bytes]) -> None:
        """Write lines, newlines included, or queue them; between them may be barriers."""
        # The usual case, without the queue: one line, which the other end takes at once.
        sent = self._try(lines[0]) if len(lines) == 1 and not self._lines else 0
        if sent < len(lines[0]) or len(lines) > 1:
            self._lines += lines
            self.size += sum(map(len, lines))
            self._drop(sent)
            self.write()

    def _try(self, line: bytes) -> int:
        try:
            return 0 if self.is_broken else os.write(self._descriptor, line)
        except BlockingIOError:
            return 0
        except OSError:
            self.is_broken = True
            return 0

    @property
    def wants_room(self) -> bool:
        """Whether to write again once the other end takes something."""
        return bool(self._lines) and not self.is_broken and self._barrier_until is None

    @property
    def is_at_barrier(self) -> bool:
        """Whether to see again soon whether the reader has read."""
        return self._barrier_until is not None

    def write(self) -> None:
        """Write as much as the other end takes."""
        while self._lines and not self.is_broken:
            if self._lines[0] == BARRIER:
                if not self._is_read():
                    return
                self._lines.popleft()
                continue
            try:
                sent = self._write_some()
            except BlockingIOError:
                return
            except OSError:
                self.is_broken = True
                return
            self._drop(sent)

    def unsent(self) -> list[bytes]:
        """The lines of which the other end has not got so much that it could act on them."""
        lines = [bytes(line) for line in self._lines]
        if not lines or not self._first:
            return lines
        # Where only the newline is missing, the end of the stream is as good as one.
        return [self._first, *lines[1:]] if lines[0].strip() else lines[1:]

    def answers(self) -> int:
        """How many of the lines are answers."""
        return sum((found := read(bytes(line))) is not None and not found.method for line in self._lines if line)

    def _write_some(self) -> int:
        if len(self._lines) == 1:
            return os.write(self._descriptor, self._lines[0])
        return os.writev(self._descriptor, [*takewhile(len, islice(self._lines, MOST_PARTS))])

    def _drop(self, sent: int) -> None:
        self.size -= sent
        while sent:
            line = self._lines[0]
            if sent < len(line):
                self._first = self._first or bytes(line)
                # A view, not a copy: the rest can be megabytes.
                self._lines[0] = memoryview(line)[sent:]
                return
            sent -= len(line)
            self._lines.popleft()
            self._first = b""

    def _is_read(self) -> bool:
        """Whether the reader has read all that was written, or has had the time to."""
        now = time.monotonic()
        if self._barrier_until is None:
            self._barrier_until = now + BARRIER_PATIENCE
        if self._count_unread() and now < self._barrier_until:
            return False
        self._barrier_until = None
        return True

    def _count_unread(self) -> int:
        if not self._unread:
            return 0
        try:
            found: tuple[int] = struct.unpack("i", fcntl.ioctl(self._descriptor, self._unread, b"\0\0\0\0"))
        except OSError:
            return 0
        return found[0]


def _counter_of_unread(descriptor: int) -> int:
    """The ioctl that tells how much is unread at the other end; 0 where there is none."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return 0
    return _UNREAD_IN_PIPE if stat.S_ISFIFO(mode) else _UNREAD_IN_SOCKET if stat.S_ISSOCK(mode) else 0


@contextmanager
def non_blocking(descriptor: int) -> Iterator[None]:
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
