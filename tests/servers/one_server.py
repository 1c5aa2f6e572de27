"""One server without a supervisor: its task runs, and all that it tells is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from mcp_multi_server.core.catalog.catalog import Kind
from mcp_multi_server.core.config.config import ServerConfig
from mcp_multi_server.core.events import InternalError
from mcp_multi_server.core.lifecycle import Failure, State
from mcp_multi_server.servers.server import Opener, Server, ServerContext
from mcp_multi_server.transport.stdio import EXIT_GRACE

from ..scripted import SOON, Recorded, Scripted
from .nobody import nobody
from .observed import Observed, timers


class Call(Recorded):
    """A forwarded call, which also keeps the state in which it was told of its failure."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.state: State | None = None

    def fail(self, failure: Failure) -> None:
        self.state = self.server.status.state
        super().fail(failure)


class One:
    """A server that runs, and all that is told about it."""

    def __init__(self, opener: Opener, config: ServerConfig, *, jitter: float) -> None:
        self.log = Observed()
        self.published = 0
        self.admitted = anyio.Event()
        self.admitted.set()
        if isinstance(opener, Scripted):
            opener.news = self.log.wake
        context = ServerContext(
            open=opener,
            tell=self.log,
            jitter=lambda: jitter,
            admit=self._admit,
            changed=self._changed,
            clients=nobody(self.log),
        )
        self.server = Server("one", config, context)

    async def _admit(self, server: Server) -> None:
        await self.admitted.wait()

    def _changed(self, server: Server) -> None:
        assert server is self.server
        self.published += 1
        self.log.wake()

    @property
    def state(self) -> State:
        return self.server.status.state

    @property
    def failure(self) -> Failure:
        assert self.server.status.failure is not None
        return self.server.status.failure

    def names(self) -> list[str]:
        catalog = self.server.catalog
        return [] if catalog is None else [item.name for item in catalog.items[Kind.TOOL]]

    async def until(self, state: State) -> None:
        await self.log.until(lambda: self.state is state)

    async def ready(self, nth: int) -> None:
        """Wait until the server was ready so many times."""
        await self.log.until(lambda: self.log.states().count(State.READY) == nth)

    async def ended(self, nth: int = 1) -> None:
        """Wait until the server was away so many times."""
        away = (State.BACKOFF, State.PARKED)
        await self.log.until(lambda: sum(state in away for state in self.log.states()) >= nth)

    async def attempt(self) -> State:
        """The state after the attempt that is being made."""
        with anyio.fail_after(SOON):
            await self.server.attempted.wait()
        return self.state

    def call(self, method: str = "tools/call", params: bytes = b"{}") -> Call:
        live = self.server.live
        assert live is not None
        call = Call(self.server)
        live.send(live.pending.add(call), method, params)
        return call


def entry_of(**fields: Any) -> ServerConfig:
    return ServerConfig.model_validate({"command": "scripted", "startTimeout": 5, "stopTimeout": 1} | fields)


@asynccontextmanager
async def running(opener: Opener, *, jitter: float = 0.0, trouble: bool = False, **fields: Any) -> AsyncIterator[One]:
    """Run a server; at the end it is stopped and nothing of it is left. `trouble`: internal errors are expected."""
    tasks_before, timers_before = asyncio.all_tasks(), timers()
    one = One(opener, entry_of(**fields), jitter=jitter)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.server.run)
        yield one
        tasks.cancel_scope.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert one.state is State.STOPPING
    assert one.server.session is None
    assert asyncio.all_tasks() <= tasks_before
    soon = asyncio.get_running_loop().time() + EXIT_GRACE
    assert all(timer.when() <= soon for timer in timers() - timers_before)
    if isinstance(opener, Scripted):
        assert opener.open == 0
    assert bool(one.log.of(InternalError)) is trouble, one.log.of(InternalError)
