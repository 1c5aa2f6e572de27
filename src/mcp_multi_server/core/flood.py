"""When a peer sends so much of what is refused that refusing it takes the loop from everybody else."""

from __future__ import annotations


class FloodLimit:
    """Counts what one peer sends within a second. Its session makes it. Times: seconds of one monotonic clock."""

    def __init__(self, most: int) -> None:
        self.most = most
        """So many within one second are borne."""
        self._since = float("-inf")
        self._count = 0

    def is_exceeded(self, now: float) -> bool:
        """Count one more; whether it is more than is borne."""
        if now - self._since > 1:
            self._since, self._count = now, 0
        self._count += 1
        return self._count > self.most
