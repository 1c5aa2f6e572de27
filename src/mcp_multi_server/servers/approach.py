"""By which transport and in which era a server is reached: found out by trying, and remembered."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.config.config import ServerConfig
from ..core.lifecycle import Failure
from ..core.protocol import Era

SSE_HINTS = frozenset({400, 404, 405, 406})
"""HTTP statuses by which a server that knows only the older SSE transport refuses a POST."""


@dataclass(slots=True)
class Approach:
    """What a server has learned of how it is reached; None where it has to try."""

    kind: str | None = None
    era: Era | None = None

    def kinds(self, config: ServerConfig) -> tuple[str, ...]:
        """The transports to try, in order; a bare URL leaves it open (transports, "Backwards Compatibility")."""
        if self.kind is not None:
            return (self.kind,)
        if config.url is None:
            return ("stdio",)
        return (config.type,) if config.type else ("http", "sse")

    def era_for(self, config: ServerConfig) -> Era | None:
        """The era to speak: the entry's, where it names one."""
        return self.era if config.protocol == "auto" else Era(config.protocol)


@dataclass(frozen=True, slots=True)
class TransportEnd:
    """How the use of one transport ended, from its opening on."""

    kind: str
    failure: Failure | None
    """Why; None where it was asked for."""
    was_agreed: bool
    """Whether there was a session."""
    was_probing: bool
    """Whether the server had not yet answered which era it speaks."""
    last_status: int | None
    """The last HTTP status that was an error."""

    @property
    def means_legacy(self) -> bool:
        """Whether it is worth a try without the probe: some that know no `server/discover` exit on it or get stuck."""
        is_passing = self.failure is not None and not self.failure.permanent
        return self.kind == "stdio" and self.was_probing and is_passing

    @property
    def means_sse(self) -> bool:
        """Whether the next transport is worth a try: this one was refused as a server of the older kind does."""
        return self.failure is not None and not self.was_agreed and self.last_status in SSE_HINTS
