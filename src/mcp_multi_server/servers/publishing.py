"""Makes the snapshots that readers see: what is listed, under which names, and for how long after a server is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from ..core.catalog.catalog import Catalog, Kind
from ..core.config.config import Config
from ..core.events import CatalogWithdrawn, CollisionChanged, Observer
from ..core.index import Index, changed_kinds
from ..core.lifecycle import ROUTED
from ..core.names import Collision, Naming, Offer
from .server import Server
from .snapshot import Snapshot, Snapshots


class Publisher:
    """Replaces the snapshot whenever something that readers see has changed. The supervisor makes it and uses it."""

    def __init__(self, snapshots: Snapshots, tell: Observer) -> None:
        self._snapshots = snapshots
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._withdrawals: dict[str, asyncio.TimerHandle] = {}
        """When the names of servers that are away will be withdrawn."""

    def publish(self, config: Config, servers: Mapping[str, Server], server: Server | None = None) -> None:
        """Replace the snapshot, and tell what that changes. `server`: the one whose change it is, if it is one's."""
        old = self._snapshots.present()
        index = Index.build([_offer(config, each) for each in servers.values()], _naming(config))
        unheard = tuple(each for each in servers.values() if each.is_unheard)
        snapshot = Snapshot(old.generation + 1, config, index, servers, _instructions(servers.values()), unheard)
        self._snapshots.publish(snapshot, changed_kinds(old.index, index), server)
        self.tell_collisions(old.index.collisions, index.collisions)

    def changed(self, server: Server) -> None:
        """Publish the new state or catalog of a server, unless it is none of those that readers see."""
        snapshot = self._snapshots.present()
        if snapshot.servers.get(server.name) is not server:
            return  # one that drains, or that is to replace another and is not ready
        self._plan_withdrawal(server, snapshot.config)
        self.publish(snapshot.config, snapshot.servers, server)

    def keep_names(self, name: str) -> None:
        """Do not withdraw the names of this server: it is back, or gone for good and published without them."""
        if timer := self._withdrawals.pop(name, None):
            timer.cancel()

    def tell_collisions(self, old: tuple[Collision, ...], new: tuple[Collision, ...]) -> None:
        """Tell each collision that appeared, changed its claimants or went."""
        # By key, as there may be tens of thousands: comparing each with each would hold the loop for a minute.
        before, after = ({(each.kind, each.name): each for each in some} for some in (old, new))
        for key, each in before.items():
            if key not in after:
                self._tell(CollisionChanged(each.kind, each.name, each.owner, ()))
        for key, each in after.items():
            if before.get(key) != each:
                self._tell(CollisionChanged(each.kind, each.name, each.owner, each.shadowed))

    def _plan_withdrawal(self, server: Server, config: Config) -> None:
        """Names outlive a blip: they are withdrawn when the grace is over, unless the server is back before."""
        name = server.name
        if server.status.state in ROUTED:
            self.keep_names(name)
        elif server.catalog is not None and name not in self._withdrawals:  # else the grace runs since the loss
            grace = config.daemon.grace if server.config.grace is None else server.config.grace
            self._withdrawals[name] = self._loop.call_later(grace, self._withdraw, server)

    def _withdraw(self, server: Server) -> None:
        self._withdrawals.pop(server.name, None)
        if server.status.state not in ROUTED:  # it may be back since the timer was set
            server.withdraw_catalog()
            self.changed(server)
            self._tell(CatalogWithdrawn(server.name))


def _naming(config: Config) -> Naming:
    daemon = config.daemon
    return Naming(daemon.naming, daemon.separator, daemon.collisions)


def _offer(config: Config, server: Server) -> Offer:
    """What a server offers now; one that offers nothing yet is known by its name all the same."""
    catalog = server.catalog or Catalog()
    negotiated = server.negotiated
    return Offer(
        server=server.name,
        prefix=config.prefix_of(server.name),
        catalog=catalog.filtered(server.config.include, server.config.exclude),
        has_resources=bool(server.catalog and negotiated and negotiated.has(Kind.RESOURCE.capability)),
        away=None if server.status.state in ROUTED else server.status.state.value,
    )


def _instructions(servers: Iterable[Server]) -> str:
    """What the servers tell clients about themselves, each under its name."""
    return "\n\n".join(
        f"# {server.name}\n\n{server.negotiated.instructions}"
        for server in servers
        if server.catalog is not None and server.negotiated and server.negotiated.instructions
    )
