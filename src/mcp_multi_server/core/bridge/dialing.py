"""When a bridge tries to reach the daemon, and what it says to people while it cannot."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
"""Seconds between attempts: short at first, as a restart takes less than a second, then twice as long each time."""
STABLE = 5.0
"""Seconds of connection after which the pauses are short again; one that ends sooner may end again at once."""
REFUSED_PAUSE = 30.0
"""Seconds until a daemon that does not let this user in is asked again: its config may have changed."""
SAY_AFTER = 0.5
"""Seconds of absence that nobody needs to hear of."""
MOST_SAID = 20
"""Different reasons that are said of one absence."""


class Dialing:
    """The attempts of one bridge, which makes it. Times are on the clock of the caller."""

    def __init__(self, now: float) -> None:
        self.why = "the daemon was not reached yet"
        """Why there is no daemon, in a sentence without its end."""
        self.refusal: dict[str, Any] | None = None
        """The error with which the daemon turned us away, until it lets us in or is gone."""
        self.was_live = False
        """Whether a daemon has ever let us in."""
        self.was_there = False
        """Whether a daemon has ever taken a connection."""
        self.due = now
        """When to try again, while there is no connection."""
        self._pause = FIRST_PAUSE
        self._say_at = now + SAY_AFTER
        """When to say why there is no daemon; infinite while there is one."""
        self._live_since = 0.0
        self._said: set[str] = set()

    @property
    def is_unwelcome(self) -> bool:
        """Whether the daemon does not let this user in, so that waiting for it is of no use."""
        data = (self.refusal or {}).get("data")
        return isinstance(data, dict) and data.get("reason") == "access"

    def failed(self, now: float, why: str) -> None:
        """Nobody took the connection."""
        self.why, self.refusal = why, None
        self._wait(now)

    def opened(self, now: float) -> None:
        """Somebody took the connection, and has not answered."""
        self.was_there = True
        self._say_at = now + SAY_AFTER
        self.why = "the daemon takes connections but does not answer"

    def refused(self, now: float, error: dict[str, Any]) -> None:
        """The daemon turned us away."""
        self.refusal, self._say_at = error, now
        self.why = f"the daemon refuses this client: {error.get('message')}"

    def live(self, now: float) -> Iterator[str]:
        """The daemon has let us in. What there is to say of it."""
        if self._said:
            yield "connected to the daemon" if not self.was_live else "the daemon is back"
        self.was_live = True
        self.refusal, self._say_at, self._live_since = None, math.inf, now
        self._said.clear()

    def lost(self, now: float, why: str, *, was_live: bool) -> None:
        """The connection has ended. The first attempt after a good one is made at once."""
        if self.refusal is None:
            self.why = why
        if was_live:
            self._say_at = now + SAY_AFTER
        if was_live and now - self._live_since >= STABLE:
            self._pause, self.due = FIRST_PAUSE, now
        else:
            self._wait(now)

    def notice(self, now: float) -> Iterator[str]:
        """What there is to say of an absence that has lasted for a while: each reason once."""
        if now >= self._say_at and self.why not in self._said and len(self._said) < MOST_SAID:
            self._said.add(self.why)
            yield f"{self.why}; " + (
                f"asking again every {REFUSED_PAUSE:g} s" if self.is_unwelcome else "waiting for it"
            )

    def times(self) -> Iterator[float]:
        """When something is due."""
        yield self.due
        yield self._say_at

    def _wait(self, now: float) -> None:
        self.due = now + (REFUSED_PAUSE if self.is_unwelcome else self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
