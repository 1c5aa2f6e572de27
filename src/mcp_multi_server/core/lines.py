"""Cuts a byte stream into lines, with a cap on how long a line may be."""

from __future__ import annotations

from collections.abc import Iterator


class Oversize:
    """A line longer than the cap, of which only the two ends are kept. `Lines` makes it."""

    __slots__ = ("head", "size", "tail")

    def __init__(self, head: bytes = b"") -> None:
        self.head = head
        self.tail = b""
        self.size = len(head)

    def extend(self, data: bytes) -> None:
        """Count more of the line, and keep of it what belongs to an end."""
        self.size += len(data)
        missing = Lines.KEEP - len(self.head)
        if missing > 0:
            self.head, data = self.head + data[:missing], data[missing:]
        self.tail = (self.tail + data[-Lines.KEEP :])[-Lines.KEEP :]


class Lines:
    """Cuts a byte stream into lines in O(n). It keeps at most `cap` bytes of a line that has not ended."""

    KEEP = 256
    """Bytes kept of either end of a line over the cap, enough to find its id."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self._parts: list[bytes] = []
        self._size = 0
        self._over: Oversize | None = None

    @property
    def partial(self) -> bool:
        """Whether a line has begun and not ended."""
        return self._size > 0 or self._over is not None

    def feed(self, data: bytes) -> Iterator[bytes | Oversize]:
        """The lines that `data` completes, without their newlines; blank ones are left out."""
        if b"\n" not in data:
            # The middle of a long line: it is not even copied.
            self._keep(data)
            return
        *complete, rest = data.split(b"\n")
        for piece in complete:
            line = self._complete(piece)
            if isinstance(line, Oversize) or (line and not line.isspace()):
                yield line
        if rest:
            self._keep(rest)

    def _complete(self, piece: bytes) -> bytes | Oversize:
        if self._parts or self._over is not None or len(piece) > self.cap:
            self._keep(piece)
            over, parts = self._over, self._parts
            self._parts, self._size, self._over = [], 0, None
            # Joined once, at the end: joining each piece would take time with the square of the length.
            return over if over is not None else b"".join(parts)
        # The usual case: the line came in one piece, and is not copied.
        return piece

    def _keep(self, data: bytes) -> None:
        if self._over is not None:
            self._over.extend(data)
            return
        self._parts.append(data)
        self._size += len(data)
        if self._size > self.cap:
            self._over = Oversize()
            # Not joined: the line has as many bytes as may be kept at all.
            for part in self._parts:
                self._over.extend(part)
            self._parts, self._size = [], 0
