"""What readers see: one immutable record, replaced whole by the supervisor and read once per request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ..core.catalog.catalog import Kind
from ..core.config.config import Config
from ..core.index import Index
from ..core.names import Naming
from ..core.protocol import Era, listing_result
from .server import Server


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the fleet at one generation. The supervisor makes it; it is never changed, only replaced."""

    generation: int
    config: Config
    index: Index
    servers: Mapping[str, Server]
    instructions: str = ""
    """The servers' own instructions, joined."""
    unheard: tuple[Server, ...] = ()
    """Servers of which nothing is known yet: see `Server.is_unheard`."""
    _listings: dict[tuple[Kind, Era], bytes] = field(default_factory=dict, compare=False, repr=False)

    def listing(self, kind: Kind, era: Era) -> bytes:
        """The result of a list method, encoded once per snapshot."""
        key = (kind, era)
        if (found := self._listings.get(key)) is None:
            found = self._listings[key] = listing_result(kind.member, self.index.listing(kind, era), era)
        return found


class SnapshotListener(Protocol):
    """Who is told of each new snapshot; called on the loop, never to be awaited in."""

    def __call__(self, changed: frozenset[Kind], server: Server | None) -> None:
        """`changed`: the lists that clients would see differently; `server`: whose change it was, if one's."""


class Snapshots:
    """Where the present snapshot is found.

    The fleet makes it before all that reads it; the supervisor alone publishes a new one.
    """

    def __init__(self, config: Config) -> None:
        self._present = Snapshot(0, config, Index.build((), Naming()), {})
        self.listeners: list[SnapshotListener] = []

    def present(self) -> Snapshot:
        """The snapshot that is in force now."""
        return self._present

    def publish(self, snapshot: Snapshot, changed: frozenset[Kind], server: Server | None) -> None:
        """Have readers see `snapshot` from now on, and tell the listeners; see `SnapshotListener`."""
        self._present = snapshot
        for listener in self.listeners:
            listener(changed, server)
