"""What readers see: one immutable record, replaced whole by the supervisor and read once per request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..core.catalog import Kind
from ..core.config import Config
from ..core.index import Index
from ..core.protocol import Era, listing_result
from .server import Server


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the fleet at one generation."""

    generation: int
    config: Config
    index: Index
    servers: Mapping[str, Server]
    instructions: str = ""
    """The servers' own instructions, joined."""
    _listings: dict[tuple[Kind, Era], bytes] = field(default_factory=dict, compare=False, repr=False)

    def listing(self, kind: Kind, era: Era) -> bytes:
        """The result of a list method, encoded once per snapshot."""
        key = (kind, era)
        if (found := self._listings.get(key)) is None:
            found = self._listings[key] = listing_result(kind.member, self.index.listing(kind), era)
        return found
