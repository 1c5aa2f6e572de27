"""Makes what runs match the config, one task a server; the only writer of the snapshot that readers see."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskStatus

from ..core.catalog import Catalog, Kind
from ..core.config import Config, ServerConfig
from ..core.events import (
    CatalogWithdrawn,
    CollisionChanged,
    InternalError,
    Observer,
    ReplacementFailed,
    ServerRemoved,
    ServerReplaced,
)
from ..core.index import Collision, Index, Naming, Offer, changed_kinds
from ..core.lifecycle import ROUTED, Failure, Reason, State
from ..core.plan import Plan, allows_two, change_between
from ..processes.procfs import read_usage
from .heartbeat import Heartbeat
from .host import Host
from .server import Opener, Server, ServerContext
from .snapshot import Snapshot, Snapshots
from .start_limit import StartLimit

DRAIN_LOOK_EVERY = 0.02
ENDED = Failure(Reason.CLOSED, "it ended at once")
SUPERSEDED = Failure(Reason.CLOSED, "a later edit of the entry came before it was ready")


@dataclass(eq=False, slots=True)
class _Run:
    """One connection's task: how to end it, and when it has ended."""

    server: Server
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    gone: anyio.Event = field(default_factory=anyio.Event)


@dataclass(eq=False, slots=True)
class Replacement:
    """A new connection to a server: one that takes the place of the old one once it is ready, or has it already."""

    run: _Run
    decided: anyio.Event = field(default_factory=anyio.Event)
    """Set once it is ready, or has failed for the first time."""
    failure: Failure | None = None
    """Why it is not ready. Then the old one goes on; where that is gone already, the new one is tried again."""

    @property
    def server(self) -> Server:
        """The new one."""
        return self.run.server

    def give_up(self, failure: Failure) -> None:
        """The one that serves goes on."""
        self.failure = failure
        self.run.scope.cancel()
        self.decided.set()


class Supervisor:
    """The fleet. `run` is its task tree; `apply` takes a new config."""

    def __init__(
        self,
        snapshots: Snapshots,
        *,
        open_transport: Opener,
        tell: Observer,
        jitter: Callable[[], float],
        host: Host,
        recall: Callable[[Server], None] | None = None,
    ) -> None:
        """`recall` is given each new connection before it is published, to offer what is remembered of its server."""
        self._snapshots = snapshots
        self._tell = tell
        self._recall = recall
        self._loop = asyncio.get_running_loop()
        self._gate = StartLimit(starting=self._starting_pids, is_burning=_is_burning)
        self._context = ServerContext(
            open=open_transport, tell=tell, jitter=jitter, admit=self._admit, changed=self._changed, host=host
        )
        self._runs: dict[str, _Run] = {}
        """Of the connections that readers see."""
        self._replacements: dict[str, Replacement] = {}
        self._leaving: dict[str, _Run] = {}
        """The last one of each name that is on its way out."""
        self._withdrawals: dict[str, asyncio.TimerHandle] = {}
        self._tasks: anyio.abc.TaskGroup | None = None
        self.heartbeat = Heartbeat()

    @property
    def snapshot(self) -> Snapshot:
        """What readers see now."""
        return self._snapshots.present()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run every server of the config until cancelled; then stop all of them at once."""
        async with anyio.create_task_group() as self._tasks:
            config = self.snapshot.config
            self._carry_out(Plan.between(None, config), config, overlapping=())
            task_status.started()
            await self.heartbeat.beat()

    def apply(self, config: Config) -> tuple[Plan, tuple[Replacement, ...]]:
        """Make `config` the one that runs: what is to be done, and the replacements, whose outcome is still open.

        All that need not wait is seen at once. An entry whose server is to be replaced while it serves is the old one
        in the snapshot's config until the new server is ready.
        """
        before = self.snapshot.config
        plan = Plan.between(before, config)
        self._adapt_replacements(config)
        overlapping = [name for name in plan.replace if self._may_overlap(name, config.servers[name])]
        applied = config.having({name: before.servers[name] for name in overlapping})
        self._carry_out(plan, applied, overlapping=overlapping)
        return plan, tuple(
            self._replacement(name, config.servers[name]) if name in overlapping else self._replaced(name)
            for name in plan.replace
        )

    def restart(self, name: str) -> Replacement:
        """Have a new connection to a server: beside the one that serves where both may run, else in its place."""
        server = self.snapshot.servers[name]
        if self._may_overlap(name, server.config):
            return self._replacement(name, server.config)
        if server.live is None:
            server.restart()
        else:
            self._carry_out(Plan(replace=(name,)), self.snapshot.config, overlapping=())
        return self._replaced(name)

    # -- reconcile -----------------------------------------------------------------------------------------------

    def _carry_out(self, plan: Plan, config: Config, *, overlapping: Collection[str]) -> None:
        """End what must go, begin what is new, publish all of it at once; what did not change is not touched."""
        running = dict(self.snapshot.servers)
        at_once = [name for name in plan.replace if name not in overlapping]
        for name in plan.update:
            running[name].update(config.servers[name])
        fresh = {name: Server(name, config.servers[name], self._context) for name in (*at_once, *plan.start)}
        for name, server in fresh.items():
            server.succeed(running.get(name))
            if self._recall is not None:
                self._recall(server)
        for name in (*plan.stop, *at_once):
            self._retire(name)
        servers = {name: each for name, each in (running | fresh).items() if name not in plan.stop}
        self._publish(config, {name: servers[name] for name in config.order if name in servers})
        for name, server in fresh.items():
            self._runs[name] = self._start(server, after=self._leaving.get(name))
        for name in plan.stop:
            self._tell(ServerRemoved(name))

    def _start(self, server: Server, *, after: _Run | None = None) -> _Run:
        assert self._tasks is not None
        run = _Run(server)
        self._tasks.start_soon(self._run, run, after, name=f"server {server.name}")
        return run

    async def _run(self, run: _Run, after: _Run | None) -> None:
        """One server's task: never beside the one before it, unless it is to replace that."""
        name = run.server.name
        try:
            with run.scope:
                if after is not None:
                    await after.gone.wait()
                await run.server.run()
        except Exception:
            self._tell(InternalError(f"server {name}", traceback.format_exc()))
        finally:
            run.server.attempted.set()  # it may have ended before its first attempt
            run.gone.set()
            for runs in (self._runs, self._leaving):
                if runs.get(name) is run:
                    del runs[name]
            if name not in self._runs:
                self._keep_names(name)

    def _retire(self, name: str) -> None:
        """End the connection that nobody will be led to any more, when what it was asked is answered."""
        self._keep_names(name)
        if (run := self._runs.pop(name, None)) is None:  # a bug ended it
            return
        self._leaving[name] = run
        run.server.retire()
        if run.server.in_flight:
            assert self._tasks is not None
            self._tasks.start_soon(self._drain, run)
        else:
            run.scope.cancel()

    async def _drain(self, run: _Run) -> None:
        for _ in range(round(self.snapshot.config.daemon.drain / DRAIN_LOOK_EVERY)):
            if not run.server.in_flight:
                break
            await anyio.sleep(DRAIN_LOOK_EVERY)
        run.scope.cancel()

    # -- replace -------------------------------------------------------------------------------------------------

    def _may_overlap(self, name: str, entry: ServerConfig) -> bool:
        """Whether a server serves, and a new one may run beside it until that serves too; or does so already."""
        server = self.snapshot.servers[name]
        is_served = server.live is not None and allows_two(server.config, entry)
        return is_served or name in self._replacements

    def _adapt_replacements(self, config: Config) -> None:
        """Have those under way go on that are still wanted, as they are wanted now."""
        for name, replacement in list(self._replacements.items()):
            server, entry = replacement.server, config.servers.get(name)
            if entry is None or entry.disabled or change_between(server.config, entry) == "replace":
                del self._replacements[name]
                replacement.give_up(SUPERSEDED)
            else:
                server.update(entry)

    def _replacement(self, name: str, entry: ServerConfig) -> Replacement:
        """The one under way, else a new one."""
        if (under_way := self._replacements.get(name)) is not None:
            return under_way
        assert self._tasks is not None
        server = Server(name, entry, self._context)
        server.succeed(self.snapshot.servers[name])
        server.standing = False
        replacement = self._replacements[name] = Replacement(self._start(server))
        self._tasks.start_soon(self._decide, replacement)
        return replacement

    def _replaced(self, name: str) -> Replacement:
        """A replacement that has its predecessor's place already."""
        assert self._tasks is not None
        replacement = Replacement(self._runs[name])
        self._tasks.start_soon(self._await_first_attempt, replacement)
        return replacement

    async def _await_first_attempt(self, replacement: Replacement) -> None:
        server = replacement.server
        await server.attempted.wait()
        if not server.standing:
            replacement.failure = SUPERSEDED
        elif server.live is None:
            replacement.failure = server.status.failure or ENDED
        replacement.decided.set()

    async def _decide(self, replacement: Replacement) -> None:
        """Wait until the new connection is ready or has failed, and act on it."""
        server = replacement.server
        await server.attempted.wait()
        if self._replacements.get(server.name) is not replacement:
            return
        del self._replacements[server.name]
        if server.live is not None:
            self._swap(replacement)
            return
        failure = server.status.failure or ENDED
        replacement.give_up(failure)
        self._tell(ReplacementFailed(server.name, failure, server.stderr_tail))

    def _swap(self, replacement: Replacement) -> None:
        """Lead everybody to the new connection, then let the old one end what it was asked."""
        server, name = replacement.server, replacement.server.name
        server.stand_in_for(self.snapshot.servers[name])
        self._retire(name)
        self._runs[name] = replacement.run
        config = self.snapshot.config.having({name: server.config})
        self._publish(config, {**self.snapshot.servers, name: server}, server)
        self._tell(ServerReplaced(name))
        replacement.decided.set()

    async def _admit(self, server: Server) -> None:
        if server.config.url is None:
            await self._gate.admit()

    def _starting_pids(self) -> list[int]:
        starting = [c for c in self.snapshot.servers.values() if c.status.state is State.CONNECTING]
        starting.sort(key=lambda server: server.status.since, reverse=True)
        return [server.pid for server in starting if server.pid is not None]

    # -- publish -------------------------------------------------------------------------------------------------

    def _changed(self, server: Server) -> None:
        """A server's state or catalog changed."""
        if self.snapshot.servers.get(server.name) is not server:
            return
        self._plan_withdrawal(server)
        self._publish(self.snapshot.config, self.snapshot.servers, server)

    def _plan_withdrawal(self, server: Server) -> None:
        """Names outlive a blip: they go after the grace, or stay where the server is back before."""
        name = server.name
        if server.status.state in ROUTED:
            self._keep_names(name)
        elif server.catalog is not None and name not in self._withdrawals:
            grace = server.config.grace
            seconds = self.snapshot.config.daemon.grace if grace is None else grace
            self._withdrawals[name] = self._loop.call_later(seconds, self._withdraw, server)

    def _keep_names(self, name: str) -> None:
        if timer := self._withdrawals.pop(name, None):
            timer.cancel()

    def _withdraw(self, server: Server) -> None:
        self._withdrawals.pop(server.name, None)
        if server.status.state not in ROUTED:
            server.catalog = None
            self._changed(server)
            self._tell(CatalogWithdrawn(server.name))

    def _publish(self, config: Config, servers: Mapping[str, Server], server: Server | None = None) -> None:
        old = self.snapshot
        index = Index.build([_offer(config, c) for c in servers.values()], _naming(config))
        snapshot = Snapshot(old.generation + 1, config, index, servers, _instructions(servers.values()))
        self._snapshots.publish(snapshot, changed_kinds(old.index, index), server)
        self._tell_collisions(old.index.collisions, index.collisions)

    def _tell_collisions(self, old: tuple[Collision, ...], new: tuple[Collision, ...]) -> None:
        before, after = ({(each.kind, each.name): each for each in some} for some in (old, new))
        for key, each in before.items():
            if key not in after:
                self._tell(CollisionChanged(each.kind, each.name, each.owner, ()))
        for key, each in after.items():
            if before.get(key) != each:
                self._tell(CollisionChanged(each.kind, each.name, each.owner, each.shadowed))


def _naming(config: Config) -> Naming:
    daemon = config.daemon
    return Naming(daemon.naming, daemon.separator, daemon.collisions)


def _offer(config: Config, server: Server) -> Offer:
    """What a server offers now; one that offers nothing yet is known by its name all the same."""
    catalog = server.catalog or Catalog()
    negotiated = server.negotiated
    return Offer(
        server=server.name,
        prefix=config.prefix_of(server.name),
        catalog=catalog.filtered(server.config.include, server.config.exclude),
        has_resources=bool(server.catalog and negotiated and negotiated.has(Kind.RESOURCE.capability)),
        away=None if server.status.state in ROUTED else server.status.state.value,
    )


def _instructions(servers: Iterable[Server]) -> str:
    """What the servers tell clients about themselves, each under its name."""
    return "\n\n".join(
        f"# {server.name}\n\n{server.negotiated.instructions}"
        for server in servers
        if server.catalog is not None and server.negotiated and server.negotiated.instructions
    )


def _is_burning(pid: int) -> bool:
    usage = read_usage(pid)
    return usage is not None and usage.runnable
