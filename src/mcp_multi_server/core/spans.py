"""What a trace span says of a request that is forwarded to a server: its name and its attributes.

Both follow OpenTelemetry's semantic conventions (gen-ai/mcp, "Client"). Arguments, results and error texts are never
in a span: they are the user's own business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

Attributes: TypeAlias = dict[str, str | int]

SERVER_NAME = "mcp_multi_server.server"
"""The server's name in the config, for which the conventions have no attribute."""
LONGEST = 256
"""Characters that are kept of a text that a server or a client chose."""
TARGETS = {"tools/call": "gen_ai.tool.name", "prompts/get": "gen_ai.prompt.name", "resources/read": "mcp.resource.uri"}


@dataclass(frozen=True, slots=True)
class Operation:
    """A request as it is forwarded to a server. A call makes it when it is sent, if spans are wanted.

    `target`: the server's own name for the tool or prompt, or the URI. `url`: "" for a child process.
    """

    method: str
    target: str
    server: str
    version: str
    url: str
    id: int


def span_name(operation: Operation) -> str:
    """The method, with the tool or prompt. A URI is left out: each resource would get a span name of its own."""
    if operation.method in ("tools/call", "prompts/get"):
        return f"{operation.method} {operation.target[:LONGEST]}"
    return operation.method


def attributes(operation: Operation) -> Attributes:
    """The attributes that are known when the request is sent."""
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
    """The attributes that a failure adds; `error` is that of the event `RequestDone`."""
    told: Attributes = {"error.type": error[:LONGEST]}
    if error.removeprefix("-").isdigit():
        told["rpc.response.status_code"] = error[:LONGEST]
    return told


def _address(url: str) -> Attributes:
    """Host and port only: the rest of a URL may be a secret."""
    if not url:
        return {}
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"server.address": parts.hostname or "", "server.port": port}
