"""The clients' side of servers that have no client: a real router, which nobody asks anything."""

from __future__ import annotations

from mcp_multi_server.calls.router import Router
from mcp_multi_server.core.events import Observer
from mcp_multi_server.servers.server import ClientSide
from mcp_multi_server.servers.snapshot import Snapshot


def nobody(tell: Observer) -> ClientSide:
    return Router(_nothing, tell=tell, wall=str)


def _nothing() -> Snapshot:
    raise AssertionError("only clients have it look for servers")
