"""The daemon with a bug put into it: `buggy_daemon.py BUG serve …`. Everything else of it is as it is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Hashable
from unittest.mock import patch

import anyio

from mcp_multi_server import cli, daemon
from mcp_multi_server.core.protocol import Era
from mcp_multi_server.runtime.connection import Connection
from mcp_multi_server.runtime.conversation import Conversation
from mcp_multi_server.runtime.watcher import identity

MESSAGE = "a bug made on purpose"
_become_ready = Connection._become_ready


async def raise_at_an_edit(path: str, known: Hashable, changed: Callable[[], Awaitable[None]]) -> None:
    while identity(path) == known:
        await anyio.sleep(0.02)
    raise ZeroDivisionError(MESSAGE)


async def raise_in_a_callback(path: str, known: Hashable, changed: Callable[[], Awaitable[None]]) -> None:
    while identity(path) == known:
        await anyio.sleep(0.02)
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)


async def raise_for_one(connection: Connection, conversation: Conversation, era: Era | None) -> None:
    if connection.name == "buggy":
        raise ZeroDivisionError(MESSAGE)
    await _become_ready(connection, conversation, era)


BUGS = {
    "core": (daemon, "watch", raise_at_an_edit),
    "callback": (daemon, "watch", raise_in_a_callback),
    "server": (Connection, "_become_ready", raise_for_one),
}


def main(bug: str, *arguments: str) -> None:
    sys.argv = ["mcp-multi-server", *arguments]
    with patch.object(*BUGS[bug]):
        cli.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
