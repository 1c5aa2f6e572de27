"""One byte stream on the event loop: a reader callback, and writes joined once per turn.

No transport, stream or task stands in between: at 100 bytes a message these cost more than everything else together.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence

from ..core.jsonrpc import Buffer

READ_SIZE = 64 * 1024
"""Bytes a read. Above 128 KiB glibc maps and unmaps memory for every single one (13 µs)."""
MAX_PARTS = 512
"""Buffers a write; the kernel takes 1024."""


class Flusher:
    """Writes what one turn of the loop produced, each link once, at the end of that turn."""

    def __init__(self) -> None:
        self._dirty: list[Link] = []
        self._depth = 0
        self._scheduled = False

    def mark(self, link: Link) -> None:
        """Have `link` written: at the end of the read that is being served, else in the next turn."""
        self._dirty.append(link)
        if self._depth == 0 and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._later)

    def serve(self, feed: Callable[[bytes], None], data: bytes) -> None:
        """Call `feed(data)`, then write all that it gave rise to."""
        self._depth += 1
        try:
            feed(data)
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._flush()

    def _later(self) -> None:
        self._scheduled = False
        self._flush()

    def _flush(self) -> None:
        while self._dirty:
            dirty, self._dirty = self._dirty, []
            for link in dirty:
                link.flush()


class Link:
    """A pair of non-blocking descriptors, closed by `close` or by the first failure.

    `feed` gets what was read; `lost` gets called once, with the reason, when the stream ends without `close`.
    At most `cap` bytes wait to be written: a peer that does not read is cut off.
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
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._feed = feed
        self._lost = lost
        self._flusher = flusher
        self._cap = cap
        self._loop = asyncio.get_running_loop()
        self._out: deque[Buffer] = deque()
        self._marked = False
        self._blocked = False
        self.waiting = 0
        """Bytes that wait to be written."""
        self.closed = False
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        self._loop.add_reader(reader, self._readable)

    def send(self, parts: Sequence[Buffer]) -> None:
        """Queue one message; never waits. After the end of the stream it is dropped."""
        if self.closed:
            return
        for part in parts:
            self._out.append(part)
            self.waiting += len(memoryview(part))
        if self.waiting > self._cap:
            self._end(f"does not read: {self.waiting} bytes wait")
        elif not self._marked and not self._blocked:
            self._marked = True
            self._flusher.mark(self)

    def flush(self) -> None:
        """Write as much as the other side takes."""
        self._marked = False
        while self._out and not self.closed:
            try:
                sent = self._write()
            except BlockingIOError:
                self._block()
                return
            except OSError as failure:
                self._end(os.strerror(failure.errno) if failure.errno else "write failed")
                return
            self._drop(sent)
        if self._blocked and not self.closed:
            self._blocked = False
            self._loop.remove_writer(self._writer)

    def close_writer(self) -> None:
        """End our side of the stream; reading goes on. For a pipe pair only."""
        if not self.closed and self._writer >= 0:
            self._stop_writing()
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
        if self._writer < 0:
            raise OSError(32, "closed")
        if len(self._out) == 1:
            return os.write(self._writer, self._out[0])
        return os.writev(self._writer, [*self._out][:MAX_PARTS])

    def _drop(self, sent: int) -> None:
        """Forget the first `sent` bytes."""
        self.waiting -= sent
        while sent:
            size = len(memoryview(self._out[0]))
            if sent < size:
                self._out[0] = memoryview(self._out[0])[sent:]
                return
            sent -= size
            self._out.popleft()

    def _block(self) -> None:
        if not self._blocked:
            self._blocked = True
            self._loop.add_writer(self._writer, self.flush)

    def _stop_writing(self) -> None:
        self._out.clear()
        self.waiting = 0
        if self._blocked:
            self._blocked = False
            self._loop.remove_writer(self._writer)

    def _readable(self) -> None:
        try:
            data = os.read(self._reader, READ_SIZE)
        except BlockingIOError:
            return
        except OSError as failure:
            self._end(os.strerror(failure.errno) if failure.errno else "read failed")
            return
        if data:
            self._flusher.serve(self._feed, data)
        else:
            self._end("closed")

    def _end(self, reason: str) -> None:
        if not self.closed:
            self.close()
            self._lost(reason)
