"""Which server a request goes to, by what the snapshot knows at that moment."""

from __future__ import annotations

from typing import Any

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


class NobodyOffers(RpcError):
    """Raised where no server offers what is asked for, by what is known. `what` names that, in words."""

    def __init__(self, code: int, message: str, data: Any = None, *, what: str) -> None:
        super().__init__(code, message, data)
        self.what = what


def resolve(snapshot: Snapshot, request: ClientRequest) -> Route:
    """The server and its own name for what is requested.

    Raises NobodyOffers -32602 (-32002 for a legacy read, as 2025-11-25 has it), and RpcError -32602 where several
    servers offer it or the params are malformed.
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
        name = name[:LONGEST_SHOWN]
        raise NobodyOffers(INVALID_PARAMS, f"Unknown {kind}: {name}", what=f"the {kind} {name!r}")
    return route


def is_offered(snapshot: Snapshot, request: ClientRequest) -> bool:
    """Whether what is asked for can be sent to a server that offers it, or need not wait for one that may."""
    try:
        return not resolve(snapshot, request).is_guess
    except NobodyOffers:
        return False
    except RpcError:
        return True


def unread_owner(snapshot: Snapshot, request: ClientRequest) -> Server | None:
    """The server that a qualified name or namespaced URI speaks of, where its lists were not read of late.

    What it offers is not known then, so the name may well be one of its own; of several the longest name is meant.
    """
    target = _target(request)
    separator = snapshot.config.daemon.separator
    meant = [
        server
        for name, server in snapshot.servers.items()
        if target.startswith(
            (f"{snapshot.config.prefix_of(name)}{separator}", f"{name}:", snapshot.index.namespaced(name, ""))
        )
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
        raise _refusal(code, unknown, uri, {"uri": uri}) from None


def _completion(snapshot: Snapshot, request: ClientRequest) -> Route:
    kind, target = request.reference()
    try:
        return snapshot.index.completion(kind, target)
    except Unroutable as unknown:
        raise _refusal(INVALID_PARAMS, unknown, target) from None


def _refusal(code: int, unknown: Unroutable, asked: str, data: Any = None) -> RpcError:
    if unknown.is_offered:
        return RpcError(code, unknown.message, data)
    return NobodyOffers(code, unknown.message, data, what=repr(asked[:LONGEST_SHOWN]))
