"""A request forwarded to a server, and how a span tells of it.

Names and attributes: OpenTelemetry semantic conventions, gen-ai/mcp, "Client". Arguments, results and error texts
are never told: they hold what is nobody else's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

Attributes: TypeAlias = dict[str, str | int]

SERVER_NAME = "mcp_multi_server.server"
"""Which server of the config it is; the conventions have no word for it."""
LONGEST = 256
"""Characters of what a server or a client chose."""
TARGETS = {"tools/call": "gen_ai.tool.name", "prompts/get": "gen_ai.prompt.name", "resources/read": "mcp.resource.uri"}


@dataclass(frozen=True, slots=True)
class Operation:
    """`target`: the server's own name for the tool or prompt, or the URI. `url`: "" for a child process."""

    method: str
    target: str
    server: str
    version: str
    url: str
    id: int


def span_name(operation: Operation) -> str:
    """Method and tool or prompt; a URI would make a name of its own for every resource."""
    if operation.method in ("tools/call", "prompts/get"):
        return f"{operation.method} {operation.target[:LONGEST]}"
    return operation.method


def attributes(operation: Operation) -> Attributes:
    """What is known when the request is sent."""
    found: Attributes = {
        "mcp.method.name": operation.method,
        "mcp.protocol.version": operation.version,
        "jsonrpc.request.id": str(operation.id),
        "network.transport": "tcp" if operation.url else "pipe",
        SERVER_NAME: operation.server,
    }
    if (target := TARGETS.get(operation.method)) is not None:
        found[target] = operation.target[:LONGEST]
    if operation.method == "tools/call":
        found["gen_ai.operation.name"] = "execute_tool"
    return found | _address(operation.url)


def error_attributes(error: str) -> Attributes:
    """What is known when it failed; `error` as `RequestDone` has it."""
    told: Attributes = {"error.type": error[:LONGEST]}
    if error.removeprefix("-").isdigit():
        told["rpc.response.status_code"] = error[:LONGEST]
    return told


def _address(url: str) -> Attributes:
    """Host and port alone: the rest of a URL may be a secret."""
    if not url:
        return {}
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"server.address": parts.hostname or "", "server.port": port}
