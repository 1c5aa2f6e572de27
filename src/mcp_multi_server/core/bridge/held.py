"""What a bridge holds for its client while there is no daemon: lines that were certainly not carried out, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .envelope import Envelope

MIB = 1 << 20
MOST_LINES = 1000
MOST_BYTES = 64 * MIB


class HeldLine(NamedTuple):
    """One line of the client's. `since`: when it came, or when the daemon that it had been sent to was lost."""

    line: bytes
    envelope: Envelope | None
    since: float

    @property
    def is_request(self) -> bool:
        """Whether it gets an answer."""
        return self.envelope is not None and self.envelope.id is not None and bool(self.envelope.method)


class HeldLines:
    """The bridge makes one. It never grows beyond `MOST_LINES` and `MOST_BYTES`."""

    def __init__(self) -> None:
        self._lines: deque[HeldLine] = deque()
        self._bytes = 0
        self.requests = 0
        """How many of the lines are requests."""

    @property
    def oldest(self) -> float | None:
        """When the first line came; None where nothing is held."""
        return self._lines[0].since if self._lines else None

    def add(self, held: HeldLine) -> bool:
        """Hold a line behind the others; False where there is no room for it."""
        if len(self._lines) >= MOST_LINES or self._bytes + len(held.line) > MOST_BYTES:
            return False
        self._lines.append(held)
        self._count(held, 1)
        return True

    def put_back(self, lines: Iterable[HeldLine]) -> None:
        """Hold lines before the others. They were held or in flight before, so they are not too many."""
        for held in reversed(list(lines)):
            self._lines.appendleft(held)
            self._count(held, 1)

    def take_all(self) -> Iterator[HeldLine]:
        """Take out everything, in order."""
        while self._lines:
            yield self._take()

    def take_older(self, than: float) -> Iterator[HeldLine]:
        """Take out what has been held since `than` or longer."""
        while self._lines and self._lines[0].since <= than:
            yield self._take()

    def cancel(self, id: int | str) -> bool:
        """Forget the request with this id; whether there was one."""
        for at, held in enumerate(self._lines):
            if held.is_request and held.envelope is not None and held.envelope.id == id:
                del self._lines[at]
                self._count(held, -1)
                return True
        return False

    def _take(self) -> HeldLine:
        held = self._lines.popleft()
        self._count(held, -1)
        return held

    def _count(self, held: HeldLine, sign: int) -> None:
        self._bytes += sign * len(held.line)
        self.requests += sign * held.is_request
