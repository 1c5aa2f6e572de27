"""A byte stream on the event loop: reads call a function, and writes of one turn of the loop are joined.

It does without asyncio's transports, streams and tasks: for messages of 100 bytes they cost more than all the rest.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections import deque
from collections.abc import Callable, Sequence
from fcntl import F_GETPIPE_SZ, fcntl
from itertools import islice

from ..core.jsonrpc import Buffer

READ_SIZE = 64 * 1024
"""Bytes of one read. Above 128 KiB, glibc maps and unmaps memory for each one, which takes 13 µs."""
MAX_PARTS = 512
"""Buffers of one write; the kernel takes 1024."""
_LINE_BREAK = ord("\n")


class Flusher:
    """Writes at the end of each turn of the loop what the turn queued, with one write for each link.

    The fleet makes one for all of its links, so that a message read from one is written to another in the same turn.
    """

    def __init__(self) -> None:
        self._dirty: deque[Link] = deque()
        self._depth = 0
        self._scheduled = False

    def mark(self, link: Link) -> None:
        """Have `link` flushed: at the end of the read that is being served, or else in the next turn."""
        self._dirty.append(link)
        if self._depth == 0:
            self._schedule()

    def serve(self, feed: Callable[[bytes], None], data: bytes) -> None:
        """Call `feed(data)`, then write everything that this had sent."""
        self._depth += 1
        try:
            feed(data)
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._flush()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._later)

    def _later(self) -> None:
        self._scheduled = False
        self._flush()

    def _flush(self) -> None:
        try:
            while self._dirty:
                self._dirty.popleft().flush()
        finally:
            if self._dirty:  # an owner of a link raised an exception: the other links are flushed in the next turn
                self._schedule()


class Link:
    """A byte stream on a pair of descriptors, or on one for both ways. The transport or session that uses it makes it.

    It ends with `close` or with the first failure. `feed` is called with what was read. `lost` is called once, with the
    reason, if the stream ends without `close`; never from inside `send`. At most `cap` bytes wait to be written: a peer
    that does not read is cut off. With `unwritable`, a failed write ends only the writing, and `unwritable` is called:
    what the peer said before it went can still be read. With `said_all` (for a socket), a peer that ends its side but
    still reads is not lost, and `said_all` is called.
    """

    def __init__(
        self,
        reader: int,
        writer: int,
        *,
        feed: Callable[[bytes], None],
        lost: Callable[[str], None],
        flusher: Flusher,
        cap: int,
        unwritable: Callable[[str], None] | None = None,
        said_all: Callable[[], None] | None = None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._feed = feed
        self._lost = lost
        self._unwritable = unwritable
        self._said_all = said_all
        self._flusher = flusher
        self._cap = cap
        self._loop = asyncio.get_running_loop()
        self._out: deque[Buffer] = deque()
        self._marked = False
        self._blocked = False
        self.overfull = 0
        """Bytes that waited when they exceeded `cap`, for which the link ends or has ended; else 0."""
        self.waiting = 0
        """Bytes that wait to be written."""
        self.unwritten = 0
        """When the writing has ended: how many messages were not written to their end."""
        self.is_reset = False
        """Whether the peer of a socket went without having read everything."""
        self.closed = False
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        self._loop.add_reader(reader, self._read)

    def send(self, parts: Sequence[Buffer]) -> None:
        """Queue one message. It never waits and never raises; after the end of the stream the message is dropped."""
        if self.closed or self.overfull or self._writer < 0:
            return
        for part in parts:
            if size := len(memoryview(part)):
                self._out.append(part)
                self.waiting += size
        if self.waiting > self._cap:
            # `flush` ends the link: `lost` must not be called from inside `send`.
            self.overfull = self.waiting
        # While the other side takes nothing, the loop calls `flush` once it does; only the end does not wait for that.
        if not self._marked and (self.overfull or not self._blocked):
            self._marked = True
            self._flusher.mark(self)

    def flush(self) -> None:
        """Write as much as the other side takes. The flusher calls this."""
        self._marked = False
        if self.overfull:
            self._end(f"does not read: {self.overfull} bytes wait")
        while self._out and not self.closed:
            try:
                sent = self._write()
            except BlockingIOError:
                self._block()
                return
            except OSError as failure:
                self._refused(_reason(failure))
                return
            self._drop(sent)
        if self._blocked and not self.closed:
            self._blocked = False
            self._loop.remove_writer(self._writer)

    def drain(self) -> None:
        """Read what is in the pipe by now, without waiting. Does nothing if the reader is no pipe."""
        try:
            # No more than a pipe holds: the other side may never stop writing.
            left = -1 if self.closed else fcntl(self._reader, F_GETPIPE_SZ)
        except OSError:
            return
        while left > 0 and not self.closed and (size := self._read()):
            left -= size

    def is_deserted(self) -> bool:
        """Whether the peer of a socket has closed both of its sides."""
        poll = select.poll()
        # No event is asked for, since a closed peer is always reported.
        poll.register(self._writer, 0)
        return self.closed or bool(poll.poll(0))

    def close_writer(self) -> None:
        """End our side of the stream; reading goes on. The peer of a socket is not told."""
        if not self.closed and self._writer >= 0:
            self._stop_writing()
            if self._writer != self._reader:
                os.close(self._writer)
            self._writer = -1

    def close(self) -> None:
        """Close both descriptors. `lost` is not called."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._reader)
        self._stop_writing()
        os.close(self._reader)
        if self._writer not in (self._reader, -1):
            os.close(self._writer)

    def _write(self) -> int:
        if len(self._out) == 1:
            return os.write(self._writer, self._out[0])
        return os.writev(self._writer, [*islice(self._out, MAX_PARTS)])

    def _drop(self, sent: int) -> None:
        """Forget the first `sent` bytes."""
        self.waiting -= sent
        while sent:
            size = len(memoryview(self._out[0]))
            if sent < size:
                # A view, not a copy: the rest can be megabytes.
                self._out[0] = memoryview(self._out[0])[sent:]
                return
            sent -= size
            self._out.popleft()

    def _block(self) -> None:
        if not self._blocked:
            self._blocked = True
            self._loop.add_writer(self._writer, self.flush)

    def _refused(self, reason: str) -> None:
        if self._unwritable is None:
            self._end(reason)
        else:
            self.close_writer()
            self._unwritable(reason)

    def _stop_writing(self) -> None:
        # Each message is a line, and only its last part ends with a line break.
        self.unwritten += sum(memoryview(part)[-1] == _LINE_BREAK for part in self._out)
        self._out.clear()
        self.waiting = 0
        if self._blocked:
            self._blocked = False
            self._loop.remove_writer(self._writer)

    def _read(self) -> int:
        """Read once and serve what came. Returns its size: 0 if nothing was there or the stream has ended."""
        try:
            data = os.read(self._reader, READ_SIZE)
        except BlockingIOError:
            return 0
        except OSError as failure:
            self.is_reset = isinstance(failure, ConnectionResetError)
            self._end(_reason(failure))
            return 0
        if data:
            self._flusher.serve(self._feed, data)
        # The end of what the peer sends. It may go on reading.
        elif self._said_all is not None and not self.is_deserted():
            self._loop.remove_reader(self._reader)
            self._said_all()
        else:
            self._end("closed")
        return len(data)

    def _end(self, reason: str) -> None:
        if not self.closed:
            self.close()
            self._lost(reason)


def _reason(failure: OSError) -> str:
    return os.strerror(failure.errno) if failure.errno else "failed"
