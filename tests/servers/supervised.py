"""Servers under a real supervisor, without clients: what readers see of them, and all that is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio

from mcp_multi_server.core.catalog.catalog import Kind
from mcp_multi_server.core.config.config import Config, parse
from mcp_multi_server.core.events import InternalError
from mcp_multi_server.core.index import STATE_KEY
from mcp_multi_server.core.protocol import Era
from mcp_multi_server.servers.server import Opener, Server
from mcp_multi_server.servers.snapshot import Snapshot, Snapshots
from mcp_multi_server.servers.supervisor import Supervisor

from ..scripted import SOON, Json, Machine, Recorded, Scripted, legacy, tools
from .nobody import nobody
from .observed import Observed, timers

TOOL = frozenset({Kind.TOOL})


def config_of(servers: dict[str, Json], **daemon: Any) -> Config:
    def lookup(source: Literal["env", "file", "cred"], name: str) -> str:
        raise LookupError(name)

    return parse(json.dumps({"mcpServers": servers, "daemon": daemon}).encode(), lookup)


def entry(command: str, **fields: Any) -> Json:
    return {"command": command, "startTimeout": 10, "stopTimeout": 1} | fields


TWO = {"a": entry("a"), "b": entry("b")}


def two(a: str = "ta", b: str = "tb") -> Machine:
    return Machine(a=Scripted(legacy(tools_list=tools(a))), b=Scripted(legacy(tools_list=tools(b))))


class Change:
    """What listeners are told, and the snapshot of that moment."""

    def __init__(self, snapshot: Snapshot, kinds: frozenset[Kind], server: Server | None) -> None:
        self.snapshot = snapshot
        self.kinds = kinds
        self.server = server.name if server else None


class Supervised:
    """A supervisor that runs, and all that is told about it."""

    def __init__(
        self,
        opener: Opener,
        config: Config,
        jitter: Callable[[], float] = lambda: 0.0,
        prepare: Callable[[Server], None] | None = None,
    ) -> None:
        self.log = Observed()
        if isinstance(opener, Machine):
            for scripted in opener.servers.values():
                scripted.news = self.log.wake
        snapshots = Snapshots(config)
        snapshots.listeners.append(self._changed)
        self.listeners = snapshots.listeners
        self.supervisor = Supervisor(
            snapshots, open_transport=opener, tell=self.log, jitter=jitter, clients=nobody(self.log), prepare=prepare
        )
        self.changes: list[Change] = []

    def _changed(self, changed: frozenset[Kind], server: Server | None) -> None:
        generation = self.changes[-1].snapshot.generation if self.changes else 0
        assert self.supervisor.snapshot.generation == generation + 1
        self.changes.append(Change(self.supervisor.snapshot, changed, server))
        self.log.wake()

    @property
    def snapshot(self) -> Snapshot:
        return self.supervisor.snapshot

    def __getitem__(self, server: str) -> Server:
        return self.snapshot.servers[server]

    def states(self) -> dict[str, str]:
        return {name: server.status.state.value for name, server in self.snapshot.servers.items()}

    async def until(self, **states: str) -> None:
        """Wait until these servers are in these states."""
        await self.log.until(lambda: states.items() <= self.states().items())

    def listed(self) -> list[str]:
        """The tools as clients see them, those of servers that are away marked with their state."""
        items = json.loads(self.snapshot.listing(Kind.TOOL, Era.LEGACY))["tools"]
        return [item["name"] + (f" ({mark})" if (mark := item["_meta"].get(STATE_KEY)) else "") for item in items]

    def told(self, since: int = 0) -> list[frozenset[Kind]]:
        """The changes of lists that clients hear of, from the generation after `since` on."""
        return [change.kinds for change in self.changes if change.kinds and change.snapshot.generation > since]

    def withdrawals(self) -> dict[str, asyncio.TimerHandle]:
        """The names that are to be withdrawn when their grace is over."""
        return self.supervisor._publisher._withdrawals

    def call(self, server: str = "a", *, within: float = 600) -> Recorded:
        """A forwarded call that its server has not answered, and may take so many seconds."""
        waiter = Recorded(deadline=asyncio.get_running_loop().time() + within)
        session = self[server].live
        assert session is not None
        session.pending.add(waiter)
        return waiter

    async def apply(self, config: Config) -> dict[str, list[str]]:
        """The steps that were not empty; returns when what is replaced is ready or has failed."""
        plan, replacements = self.supervisor.apply(config)
        with anyio.fail_after(SOON):
            for replacement in replacements:
                await replacement.decided.wait()
        return {step: names for step, names in plan.to_dict().items() if names}


@asynccontextmanager
async def running(
    opener: Opener, config: Config, *, trouble: bool = False, jitter: Callable[[], float] = lambda: 0.0
) -> AsyncIterator[Supervised]:
    """Run the servers; at the end nothing of them is left. `trouble`: internal errors are expected."""
    tasks_before, timers_before = asyncio.all_tasks(), timers()
    fleet = Supervised(opener, config, jitter)
    async with anyio.create_task_group() as tasks:
        await tasks.start(fleet.supervisor.run)
        yield fleet
        tasks.cancel_scope.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    supervisor = fleet.supervisor
    assert set(fleet.states().values()) <= {"stopping"}
    assert asyncio.all_tasks() <= tasks_before
    soon = asyncio.get_running_loop().time() + 0.3
    assert all(timer.when() <= soon for timer in timers() - timers_before)
    assert not (supervisor._running or supervisor._draining or fleet.withdrawals())
    if isinstance(opener, Machine):
        assert not any(scripted.open for scripted in opener.servers.values())
    assert bool(fleet.log.of(InternalError)) is trouble, fleet.log.of(InternalError)
