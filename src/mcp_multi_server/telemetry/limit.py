"""How much of what others can cause at will is passed on: a burst, then so many a second."""

from __future__ import annotations

BURST = 50.0


class Limit:
    """A token bucket that, once empty, stays shut for a second and then says how much it kept back."""

    __slots__ = ("_rate", "_then", "_tokens", "suppressed")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._then = now
        self._tokens = BURST
        self.suppressed = 0

    def admits(self, now: float) -> bool:
        """Whether one more line may be written."""
        self._refill(now)
        # Shut until `reopen`: else single lines would pass, each with a note on those before it.
        if self.suppressed or self._tokens < 1.0:
            self.suppressed += 1
            return False
        self._tokens -= 1.0
        return True

    def reopen(self, now: float) -> int:
        """How many lines were kept back, once, when the bucket holds a second's worth again; else 0."""
        self._refill(now)
        return self.take() if self._tokens >= self._rate else 0

    def take(self) -> int:
        """How many lines were kept back, once; opens the bucket whatever it holds."""
        suppressed, self.suppressed = self.suppressed, 0
        return suppressed

    def _refill(self, now: float) -> None:
        self._tokens = min(BURST, self._tokens + (now - self._then) * self._rate)
        self._then = now
