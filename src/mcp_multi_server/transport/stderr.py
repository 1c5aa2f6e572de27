"""The stderr of a child process: read all the time, and passed on line by line as harmless text."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable

from ..core import printable
from .link import READ_SIZE

LINE_BYTES = 8 * 1024
"""Bytes that are kept of a line of stderr."""
BURST = 256
PAUSE = 0.005
"""Lines of stderr that are passed on at once, and seconds until the next: a flood gets a tenth of the loop."""
CUT = " [cut]"


class StderrReader:
    """Reads the stderr of a child all the time: a full pipe would stop the child. Its transport makes and ends it."""

    def __init__(self, reader: int, tell: Callable[[str], None]) -> None:
        self._reader = reader
        self._tell: Callable[[str], None] | None = tell
        self._loop = asyncio.get_running_loop()
        self._pending: deque[bytes] = deque()
        self._begun = b""
        self._pause: asyncio.TimerHandle | None = None
        os.set_blocking(reader, False)
        self._loop.add_reader(reader, self._read)

    def end(self) -> None:
        """Pass on the last lines that are there. What comes later is read and dropped."""
        if self._tell is None:
            return
        self._keep(self._take() or b"")
        self._keep(b"\n")
        if (left_out := len(self._pending) - BURST) > 0:
            self._tell(f"[{left_out} lines left out]")
        while len(self._pending) > BURST:
            self._pending.popleft()
        self._tell_some()
        self._tell = None

    def close(self) -> None:
        """Pass on the last lines, then close the pipe."""
        self.end()
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._reader)
        os.close(self._reader)

    def _read(self) -> None:
        data = self._take()
        if data is None:
            return
        if not data:
            self._loop.remove_reader(self._reader)
        self._keep(data or b"\n")
        if len(self._pending) > BURST or len(data) == READ_SIZE:
            self._rest()
        self._tell_some()

    def _take(self) -> bytes | None:
        """What there is to read: None if there is nothing yet, empty at the end."""
        try:
            return os.read(self._reader, READ_SIZE)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _keep(self, data: bytes) -> None:
        """Queue the lines that `data` completes. A carriage return ends a line too, as progress bars use it."""
        if self._tell is None:
            return
        first, *others = data.replace(b"\r", b"\n").split(b"\n")
        for piece in others:
            self._pending.append(self._begun + first)
            self._begun, first = b"", piece
        self._begun = (self._begun + first)[: LINE_BYTES + 1]

    def _tell_some(self) -> None:
        for _ in range(min(len(self._pending), BURST)):
            text = _clean(self._pending.popleft())
            if text and self._tell is not None:
                self._tell(text)

    def _rest(self) -> None:
        """Stop reading for a moment, so that a flood leaves the loop to others."""
        self._loop.remove_reader(self._reader)
        self._pause = self._loop.call_later(PAUSE, self._resume)

    def _resume(self) -> None:
        if len(self._pending) > BURST:
            self._rest()
        else:
            self._loop.add_reader(self._reader, self._read)
        self._tell_some()


def _clean(line: bytes) -> str:
    """A line as text without anything that a terminal would take for a command."""
    text = printable.lines(line[:LINE_BYTES].decode(errors="replace"))
    return text.rstrip() + (CUT if len(line) > LINE_BYTES else "")
