"""What the tests of the library share: a client with its own servers, or one of a real daemon, and how to ask it."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias, Unpack

import anyio
import anyio.to_thread
import pytest
from mcp_types import CallToolResult, TextContent

from mcp_multi_server import MultiServerClient
from mcp_multi_server.library.callbacks import CallbackOptions

from ..e2e.entries import Entry, fixture
from ..e2e.harness import Daemon
from ..e2e.processes import descendants, is_alive

SOON = 10.0
"""Seconds in which everything happens that a test waits for."""
SERVERS: dict[str, Entry] = {
    "one": fixture("one"),
    "two": fixture("two", "--era", "modern"),
    "old": fixture("old", "--era", "legacy"),
}
Settings: TypeAlias = dict[str, Any]
Opened: TypeAlias = Callable[..., AbstractAsyncContextManager[MultiServerClient]]
"""Called with entries and, maybe, settings of the `daemon` object and callbacks: a connected client."""

DaemonWith: TypeAlias = Callable[[dict[str, Entry]], Daemon]
"""Called with entries: a daemon whose servers they are, and which others use, too."""


@asynccontextmanager
async def owning(
    servers: dict[str, Entry], settings: Settings | None = None, **callbacks: Unpack[CallbackOptions]
) -> AsyncIterator[MultiServerClient]:
    """A client with servers of its own."""
    config = {"mcpServers": servers, "daemon": settings or {}}
    async with MultiServerClient.from_dict(config, **callbacks) as client:
        yield client


@asynccontextmanager
async def attached(
    servers: dict[str, Entry], settings: Settings | None = None, **callbacks: Unpack[CallbackOptions]
) -> AsyncIterator[MultiServerClient]:
    """A client of a daemon of its own."""
    with Daemon(servers, settings=settings) as daemon:
        async with MultiServerClient.connect(str(daemon.socket), **callbacks) as client:
            yield client


both = pytest.mark.parametrize("opened", [owning, attached])


@contextmanager
def shared_daemons() -> Iterator[DaemonWith]:
    """Gives the daemon with these servers, the same one each time: for tests that leave it as they found it."""
    with ExitStack() as stack:
        daemons: dict[str, Daemon] = {}

        def daemon_with(servers: dict[str, Entry]) -> Daemon:
            key = json.dumps(servers)
            if key not in daemons:
                daemons[key] = stack.enter_context(Daemon(servers)).await_up()
            return daemons[key]

        yield daemon_with


def structured(result: CallToolResult) -> dict[str, Any]:
    """What the fixture's tools say."""
    assert not result.is_error, result.content
    assert isinstance(result.structured_content, dict)
    return result.structured_content


def words(result: CallToolResult) -> str:
    """The one text of a result."""
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


async def pid_of(client: MultiServerClient, server: str) -> int:
    return int(words(await client.call_tool("pid", server_name=server)))


def states(client: MultiServerClient) -> dict[str, str]:
    return {row["name"]: row["state"] for row in client.status()["servers"]}


async def in_thread(action: Callable[[], Any]) -> None:
    """Something that blocks, while the loop goes on."""
    await anyio.to_thread.run_sync(action)


def journalled(path: Path) -> list[str]:
    """What a fixture with `--journal` wrote down."""
    return path.read_text().splitlines() if path.exists() else []


class Held:
    """What this process holds: child processes, open files, threads and tasks."""

    def __init__(self) -> None:
        gc.collect()
        self.children = {one for one in descendants(os.getpid()) if is_alive(one)}
        self.files = self._files()
        self.threads = {thread.name for thread in threading.enumerate()}
        self.tasks = self._tasks()

    def _files(self) -> dict[str, str]:
        names = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
        return {name: os.readlink(name) for name in names if os.path.exists(name)}

    def _tasks(self) -> set[str]:
        try:
            return {task.get_name() for task in asyncio.all_tasks()}
        except RuntimeError:
            return set()

    def more_than(self, before: Held) -> dict[str, Any]:
        """What came since `before`; idle threads of pools may stay."""
        return {
            "children": {one.pid for one in self.children} - {one.pid for one in before.children},
            "files": {name: to for name, to in self.files.items() if name not in before.files},
            "threads": {name for name in self.threads - before.threads if "worker thread" not in name},
            "tasks": self.tasks - before.tasks,
        }


async def assert_nothing_more_than(before: Held) -> None:
    """Everything that came since `before` has gone; cancelled tasks end in the next turns of the loop."""
    await anyio.wait_all_tasks_blocked()
    more = Held().more_than(before)
    assert not any(more.values()), more
