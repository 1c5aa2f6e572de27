"""A limit on what a peer may send that is only refused: refusing it, too, takes the event loop from the others."""

from __future__ import annotations


class FloodLimit:
    """Counts what one peer sends within a second. The peer's session makes it and gives it the time.

    Times are seconds of one monotonic clock.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        """How many within one second are allowed."""
        self._since = float("-inf")
        self._count = 0

    def is_exceeded(self, now: float) -> bool:
        """Count one more, and say whether that is more than the limit."""
        if now - self._since > 1:
            self._since, self._count = now, 0
        self._count += 1
        return self._count > self.most
