"""The state of the fleet as metrics show it, taken at the moment when they are asked for."""

from __future__ import annotations

from collections import Counter

from .. import __version__
from ..core.catalog.catalog import Kind
from ..servers.clock import wall
from ..servers.snapshot import Snapshot
from ..servers.status import idle_status
from ..telemetry.metrics import FleetSample, ServerSample
from .reload import Reload


def fleet_sample(snapshot: Snapshot, last_reload: Reload, *, clients: int, loop_lag: float) -> FleetSample:
    """What metrics tell of the state, at scrape time."""
    return FleetSample(
        servers=tuple(_server_sample(snapshot, name, last_reload.loaded_at) for name in snapshot.config.order),
        # A kind without collisions shows 0, not nothing.
        collisions={kind.value: 0 for kind in Kind} | Counter(c.kind.value for c in snapshot.index.collisions),
        clients=clients,
        loop_lag=loop_lag,
        last_reload_ok=last_reload.outcome in ("applied", "unchanged"),
        last_reload_success=last_reload.loaded_at,
        version=__version__,
    )


def _server_sample(snapshot: Snapshot, name: str, loaded_at: float) -> ServerSample:
    server = snapshot.servers.get(name)
    if server is None:
        idle = idle_status(snapshot.config, name)
        return ServerSample(name=name, state=idle["state"], entered=loaded_at, transport=idle["transport"] or "")
    status, catalog, negotiated = server.status, server.catalog, server.negotiated
    return ServerSample(
        name=name,
        state=status.state.value,
        entered=wall(status.since),
        failures=status.failures,
        next_attempt=None if status.next_attempt is None else wall(status.next_attempt),
        transport=server.transport_kind,
        protocol_version=negotiated.version if negotiated else "",
        pid=server.pid,
        in_flight=server.in_flight,
        entries={kind.value: catalog.count(kind) if catalog else 0 for kind in Kind},
        problems={kind.value: catalog.faults(kind) if catalog else 0 for kind in Kind},
        refreshed=None if server.refreshed_at is None else wall(server.refreshed_at),
    )
