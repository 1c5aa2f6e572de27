"""Server-sent events: the bytes of an event stream in, its events out (WHATWG HTML, "Server-sent events"). No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"
_LONGEST_NUMBER = 9
"""Digits of a `retry` in milliseconds; a server that wants more than eleven days is not obeyed."""


class StreamEvent(NamedTuple):
    """One event; several `data` lines are joined with line breaks."""

    name: str
    data: bytes


class TooLong(Exception):
    """An event, or a body, is larger than the cap; nothing after it is read."""


class EventParser:
    """Cuts an event stream into events in O(n), holding at most `cap` bytes of an unfinished one.

    Made by whoever reads a stream; `restart` begins another one that goes on where the first broke off.
    """

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.last_id = ""
        """The id of the last event that came whole, after which a stream that broke off can go on; empty for none."""
        self.retry: float | None = None
        """Seconds that the server wants us to wait before we ask again."""
        self.restart()

    def restart(self) -> None:
        """Drop what had begun; keep `last_id` and `retry`."""
        self._parts: list[bytes] = []
        """Of the line that has begun and not ended."""
        self._size = 0
        """Bytes of that line and of the event that it belongs to."""
        self._after_cr = False
        self._first = True
        self._name = ""
        self._data: list[bytes] = []
        self._id = self.last_id

    def feed(self, data: bytes) -> Iterator[StreamEvent]:
        """The events that `data` completes. Raises TooLong."""
        if self._after_cr and data.startswith(b"\n"):
            data, self._after_cr = data[1:], False  # a CR LF that two chunks share is one line end
        if data:
            self._after_cr = data.endswith(b"\r")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = data.split(b"\n")
        for line in lines:
            if self._parts:
                line = self._complete(line)
            if line:
                self._take(line)
            elif (event := self._dispatch()) is not None:
                yield event
        if rest:
            self._parts.append(rest)
            self._count(len(rest))

    def _complete(self, end: bytes) -> bytes:
        line = b"".join((*self._parts, end))
        self._size -= len(line) - len(end)
        self._parts = []
        return line

    def _take(self, line: bytes) -> None:
        """One field; a comment is one without a name."""
        if self._first:
            line, self._first = line.removeprefix(_BOM), False
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._count(len(line))
            self._data.append(value)
        elif name == b"event":
            self._name = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode() if value.isascii() else ""  # others do not fit into a header
        elif name == b"retry" and value.isdigit() and len(value) <= _LONGEST_NUMBER:
            self.retry = int(value) / 1000

    def _dispatch(self) -> StreamEvent | None:
        """The end of an event: only now its id counts, as it would be lost if the stream broke before."""
        name, data = self._name or "message", self._data
        self.last_id = self._id
        self._name, self._data, self._size, self._first = "", [], 0, False
        return StreamEvent(name, data[0] if len(data) == 1 else b"\n".join(data)) if data else None

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self.cap:
            raise TooLong
