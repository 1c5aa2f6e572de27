"""Makes what runs match the config, one task a server; the only writer of the snapshot that readers see."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import anyio
from anyio.abc import TaskStatus

from ..core.catalog import Catalog, Kind
from ..core.config import Config
from ..core.events import CollisionChanged, InternalError, Observer, ServerRemoved
from ..core.index import Collision, Index, Naming, Offer, changed_kinds
from ..core.lifecycle import ROUTED, State
from ..core.plan import Plan
from .connection import Connection, Opener, Surroundings
from .gate import Gate
from .host import Host
from .process import read_usage
from .snapshot import Snapshot


class Listener(Protocol):
    """Who is told of each new snapshot; called on the loop, never to be awaited in."""

    def __call__(self, changed: frozenset[Kind], connection: Connection | None) -> None:
        """`changed`: the lists that clients would see differently; `connection`: whose change it was, if one's."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One connection's task: how to end it, and when it has ended."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    gone: anyio.Event = field(default_factory=anyio.Event)


class Supervisor:
    """The fleet. `run` is its task tree; `apply` takes a new config."""

    def __init__(
        self, config: Config, *, open_transport: Opener, observe: Observer, luck: Callable[[], float], host: Host
    ) -> None:
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._gate = Gate(starting=self._starting_pids, is_burning=_is_burning)
        self._surroundings = Surroundings(
            open=open_transport, observe=observe, luck=luck, admit=self._admit, changed=self._changed, host=host
        )
        self._runs: dict[str, _Run] = {}
        self._withdrawals: dict[str, asyncio.TimerHandle] = {}
        self._tasks: anyio.abc.TaskGroup | None = None
        self._applying = anyio.Lock()
        self.listeners: list[Listener] = []
        self.snapshot = Snapshot(0, config, Index.build((), Naming()), {})

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run every server of the config until cancelled; then stop all of them at once."""
        async with anyio.create_task_group() as self._tasks:
            await self._carry_out(Plan.between(None, self.snapshot.config), self.snapshot.config)
            task_status.started()
            await anyio.sleep_forever()

    async def apply(self, config: Config) -> tuple[str, Plan]:
        """Make `config` the one that runs: `applied`, or `partial` where some of its entries are broken."""
        async with self._applying:
            plan = Plan.between(self.snapshot.config, config)
            await self._carry_out(plan, config)
        return ("partial" if config.broken else "applied"), plan

    # -- reconcile -----------------------------------------------------------------------------------------------

    async def _carry_out(self, plan: Plan, config: Config) -> None:
        """End what must go, begin what is new, publish all of it at once; what did not change is not touched.

        A replacement waits for its predecessor's end, and nobody else waits for anybody's.
        """
        running = dict(self.snapshot.connections)
        ended = {name: self._runs[name] for name in (*plan.stop, *plan.replace) if name in self._runs}
        for run in ended.values():
            run.scope.cancel()
        for name in plan.update:
            running[name].update(config.servers[name])
        fresh = [Connection(name, config.servers[name], self._surroundings) for name in (*plan.replace, *plan.start)]
        for connection in fresh:
            connection.succeed(running.get(connection.name))
        running |= {connection.name: connection for connection in fresh}
        for name in plan.stop:
            running.pop(name, None)
        self._publish(config, {name: running[name] for name in config.order if name in running})
        for connection in fresh:
            self._start(connection, ended.get(connection.name))
        for name in plan.stop:
            if name in ended:
                await ended[name].gone.wait()
            self._observe(ServerRemoved(name))

    def _start(self, connection: Connection, predecessor: _Run | None) -> None:
        assert self._tasks is not None
        run = self._runs[connection.name] = _Run()
        self._tasks.start_soon(self._run, connection, run, predecessor, name=f"server {connection.name}")

    async def _run(self, connection: Connection, run: _Run, predecessor: _Run | None) -> None:
        name = connection.name
        try:
            with run.scope:
                if predecessor is not None:
                    await predecessor.gone.wait()
                await connection.run()
        except Exception:
            self._observe(InternalError(f"server {name}", traceback.format_exc()))
        finally:
            if self._runs.get(name) is run:
                del self._runs[name]
                if timer := self._withdrawals.pop(name, None):
                    timer.cancel()
            run.gone.set()

    async def _admit(self, connection: Connection) -> None:
        if connection.config.url is None:
            await self._gate.admit()

    def _starting_pids(self) -> list[int]:
        starting = [c for c in self.snapshot.connections.values() if c.status.state is State.CONNECTING]
        starting.sort(key=lambda connection: connection.status.since, reverse=True)
        return [connection.pid for connection in starting if connection.pid is not None]

    # -- publish -------------------------------------------------------------------------------------------------

    def _changed(self, connection: Connection) -> None:
        """A server's state or catalog changed."""
        if self.snapshot.connections.get(connection.name) is not connection:
            return
        self._plan_withdrawal(connection)
        self._publish(self.snapshot.config, self.snapshot.connections, connection)

    def _plan_withdrawal(self, connection: Connection) -> None:
        """Names outlive a blip: they go after the grace, or stay where the server is back before."""
        name = connection.name
        if connection.status.state in ROUTED:
            if timer := self._withdrawals.pop(name, None):
                timer.cancel()
        elif connection.catalog is not None and name not in self._withdrawals:
            grace = connection.config.grace
            seconds = self.snapshot.config.daemon.grace if grace is None else grace
            self._withdrawals[name] = self._loop.call_later(seconds, self._withdraw, connection)

    def _withdraw(self, connection: Connection) -> None:
        self._withdrawals.pop(connection.name, None)
        if connection.status.state not in ROUTED:
            connection.catalog = None
            self._changed(connection)

    def _publish(
        self, config: Config, connections: Mapping[str, Connection], connection: Connection | None = None
    ) -> None:
        old = self.snapshot
        index = Index.build([_offer(config, c) for c in connections.values()], _naming(config))
        self.snapshot = Snapshot(old.generation + 1, config, index, connections, _instructions(connections.values()))
        self._tell_collisions(old.index.collisions, index.collisions)
        changed = changed_kinds(old.index, index)
        for listener in self.listeners:
            listener(changed, connection)

    def _tell_collisions(self, old: tuple[Collision, ...], new: tuple[Collision, ...]) -> None:
        before, after = ({(each.kind, each.name): each for each in some} for some in (old, new))
        for key, each in before.items():
            if key not in after:
                self._observe(CollisionChanged(each.kind, each.name, each.owner, ()))
        for key, each in after.items():
            if before.get(key) != each:
                self._observe(CollisionChanged(each.kind, each.name, each.owner, each.shadowed))


def _naming(config: Config) -> Naming:
    daemon = config.daemon
    return Naming(daemon.naming, daemon.separator, daemon.collisions)


def _offer(config: Config, connection: Connection) -> Offer:
    """What a server offers now; one that offers nothing yet is known by its name all the same."""
    catalog = connection.catalog or Catalog()
    negotiated = connection.negotiated
    return Offer(
        server=connection.name,
        prefix=config.prefix_of(connection.name),
        catalog=catalog.filtered(connection.config.include, connection.config.exclude),
        has_resources=bool(connection.catalog and negotiated and negotiated.has(Kind.RESOURCE.capability)),
        away=None if connection.status.state in ROUTED else connection.status.state.value,
    )


def _instructions(connections: Iterable[Connection]) -> str:
    """What the servers tell clients about themselves, each under its name."""
    return "\n\n".join(
        f"# {connection.name}\n\n{connection.negotiated.instructions}"
        for connection in connections
        if connection.catalog is not None and connection.negotiated and connection.negotiated.instructions
    )


def _is_burning(pid: int) -> bool:
    usage = read_usage(pid)
    return usage is not None and usage.runnable
