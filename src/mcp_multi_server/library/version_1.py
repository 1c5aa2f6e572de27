"""What programs of version 1 ask a client for that it does not have any more, and what to use instead."""

from __future__ import annotations

GONE = {
    "sessions": "`capabilities` has the servers that were ready, `status()` the state of every one; to ask a certain "
    "server, use `server_name=`",
    "config_dict": "keep what you gave",
    "mcp_client": "the client has all of its methods itself",
    "loop": "it has methods for all that could be run there",
    "thread": "`shutdown()` waits for its end",
}


def no_attribute(client: object, name: str) -> AttributeError:
    """The error for an attribute that a client does not have."""
    message = f"{type(client).__name__!r} object has no attribute {name!r}"
    return AttributeError(
        f"{message} since version 2: {GONE[name]}" if name in GONE else message, name=name, obj=client
    )
