"""Which server a request goes to, by what the snapshot knows at that moment."""

from __future__ import annotations

from ..core.errors import INVALID_PARAMS, RESOURCE_NOT_FOUND_LEGACY, RpcError
from ..core.index import Unroutable
from ..core.lifecycle import ROUTED
from ..core.names import Route
from ..core.protocol import Era
from ..servers.server import Server
from ..servers.snapshot import Snapshot
from .request import ClientRequest

LONGEST_SHOWN = 200
"""Characters of a name in an error."""


def resolve(snapshot: Snapshot, request: ClientRequest) -> Route:
    """The server and its own name for what is requested.

    Raises RpcError -32602 (-32002 for a legacy read, as 2025-11-25 has it) where no server offers it.
    """
    index, method = snapshot.index, request.method
    if method == "resources/read":
        return _resource(snapshot, request)
    if method == "completion/complete":
        return _completion(snapshot, request)
    name = request.string("name")
    route = index.tool(name) if method == "tools/call" else index.prompt(name)
    if route is None:
        kind = "tool" if method == "tools/call" else "prompt"
        raise RpcError(INVALID_PARAMS, f"Unknown {kind}: {name[:LONGEST_SHOWN]}")
    return route


def unread_owner(snapshot: Snapshot, request: ClientRequest) -> Server | None:
    """The server that a qualified name or namespaced URI speaks of, where its lists were not read of late.

    What it offers is not known then, so the name may well be one of its own; of several the longest name is meant.
    """
    target = _target(request)
    separator = snapshot.config.daemon.separator
    meant = [
        server
        for name, server in snapshot.servers.items()
        if target.startswith((f"{snapshot.config.prefix_of(name)}{separator}", f"{name}:"))
        and (server.catalog is None or server.stale)
        and server.status.state not in ROUTED
    ]
    return max(meant, key=lambda server: len(server.name), default=None)


def _target(request: ClientRequest) -> str:
    if request.method == "completion/complete":
        return request.reference()[1]
    return request.string("uri" if request.method == "resources/read" else "name")


def _resource(snapshot: Snapshot, request: ClientRequest) -> Route:
    uri = request.string("uri")
    try:
        return snapshot.index.resource(uri)
    except Unroutable as unknown:
        code = RESOURCE_NOT_FOUND_LEGACY if request.era is Era.LEGACY else INVALID_PARAMS
        raise RpcError(code, unknown.message, {"uri": uri}) from None


def _completion(snapshot: Snapshot, request: ClientRequest) -> Route:
    kind, target = request.reference()
    try:
        return snapshot.index.completion(kind, target)
    except Unroutable as unknown:
        raise RpcError(INVALID_PARAMS, unknown.message) from None
