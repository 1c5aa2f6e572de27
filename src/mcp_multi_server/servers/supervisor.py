"""Makes what runs match the config, one task a server, and replaces servers without a gap."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection

import anyio
from anyio.abc import TaskStatus

from ..core.config.config import Config, ServerConfig
from ..core.config.plan import Plan, allows_two, change_between
from ..core.events import InternalError, Observer, ReplacementFailed, ServerRemoved, ServerReplaced
from ..core.lifecycle import State
from ..processes.procfs import read_usage
from .heartbeat import Heartbeat
from .publishing import Publisher
from .replacement import SUPERSEDED, Replacement, ServerTask
from .server import ClientSide, Opener, Server, ServerContext
from .snapshot import Snapshot, Snapshots
from .start_limit import StartLimit

DRAIN_LOOK_EVERY = 0.02
"""Seconds between two looks at whether a server has answered all that it was asked."""


class Supervisor:
    """Runs the servers of a config. `run` is its task tree; `apply` takes a new config.

    The fleet makes it, and ends it by cancelling `run`.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        *,
        open_transport: Opener,
        tell: Observer,
        jitter: Callable[[], float],
        clients: ClientSide,
        prepare: Callable[[Server], None] | None = None,
    ) -> None:
        """`prepare` is given each new server before it is published: the catalog cache has it offer what it keeps."""
        self._snapshots = snapshots
        self._tell = tell
        self._prepare = prepare
        self._publisher = Publisher(snapshots, tell)
        self._start_limit = StartLimit(starting=self._starting_pids, is_burning=_is_burning)
        self._context = ServerContext(
            open=open_transport,
            tell=tell,
            jitter=jitter,
            admit=self._admit,
            changed=self._publisher.changed,
            clients=clients,
        )
        self._running: dict[str, ServerTask] = {}
        """The servers that readers see."""
        self._replacements: dict[str, Replacement] = {}
        """New servers that are not ready yet, beside the old ones that serve."""
        self._draining: dict[str, ServerTask] = {}
        """The last server of each name that is to end and has not ended yet."""
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
        # First of all: one under way that is wanted no more must not count as the server that will overlap.
        self._adapt_replacements(config)
        overlapping = [name for name in plan.replace if self._may_overlap(name, config.servers[name])]
        applied = config.having({name: before.servers[name] for name in overlapping})
        self._carry_out(plan, applied, overlapping=overlapping)
        return plan, tuple(
            self._replace_when_ready(name, config.servers[name])
            if name in overlapping
            else self._replaced_at_once(name)
            for name in plan.replace
        )

    def restart(self, name: str) -> Replacement:
        """Replace a server by a new one of the same entry: when that is ready where both may run, else at once."""
        server = self.snapshot.servers[name]
        if self._may_overlap(name, server.config):
            return self._replace_when_ready(name, server.config)
        if server.live is None:  # nothing serves, so nothing is lost by ending what there is
            server.restart()
        else:
            self._carry_out(Plan(replace=(name,)), self.snapshot.config, overlapping=())
        return self._replaced_at_once(name)

    # -- reconcile -------------------------------------------------------------------------------------------------

    def _carry_out(self, plan: Plan, config: Config, *, overlapping: Collection[str]) -> None:
        """End what must go, begin what is new, publish all of it at once; what did not change is not touched."""
        servers = dict(self.snapshot.servers)
        at_once = [name for name in plan.replace if name not in overlapping]
        for name in plan.update:
            servers[name].update(config.servers[name])
        new = {name: self._new_server(name, config.servers[name]) for name in (*at_once, *plan.start)}
        for name in (*plan.stop, *at_once):
            self._end(name)
        servers = {name: each for name, each in (servers | new).items() if name not in plan.stop}
        # Published before the new ones start: whatever they tell of themselves, readers know them by then.
        self._publisher.publish(config, {name: servers[name] for name in config.order if name in servers})
        for name, server in new.items():
            self._running[name] = self._start(server, after=self._draining.get(name))
        for name in plan.stop:
            self._tell(ServerRemoved(name))

    def _new_server(self, name: str, entry: ServerConfig) -> Server:
        """A server to be published at once: it offers what is known of it until its own lists are read."""
        server = Server(name, entry, self._context)
        if (old := self.snapshot.servers.get(name)) is not None:
            server.offer_catalog_of(old)
        if self._prepare is not None:
            self._prepare(server)
        return server

    def _start(self, server: Server, *, after: ServerTask | None = None) -> ServerTask:
        assert self._tasks is not None
        task = ServerTask(server)
        self._tasks.start_soon(self._run, task, after, name=f"server {server.name}")
        return task

    async def _run(self, task: ServerTask, after: ServerTask | None) -> None:
        """Run one server; never beside the one before it (`after`), unless it is to replace that."""
        name = task.server.name
        try:
            with task.scope:
                if after is not None:
                    await after.gone.wait()
                await task.server.run()
        except Exception:
            self._tell(InternalError(f"server {name}", traceback.format_exc()))
        finally:
            task.server.attempted.set()  # it may have ended before its first attempt
            task.gone.set()
            for tasks in (self._running, self._draining):
                if tasks.get(name) is task:
                    del tasks[name]
            if name not in self._running:  # else the timer belongs to the one that runs now
                self._publisher.keep_names(name)

    def _end(self, name: str) -> None:
        """End the server that nobody will be led to any more, when what it was asked is answered."""
        self._publisher.keep_names(name)
        if (task := self._running.pop(name, None)) is None:  # a bug ended it
            return
        self._draining[name] = task
        task.server.finish()  # at once, as it may be lost while it drains, and must not be tried again then
        if task.server.in_flight:
            assert self._tasks is not None
            self._tasks.start_soon(self._drain, task)
        else:
            task.scope.cancel()

    async def _drain(self, task: ServerTask) -> None:
        """Let requests finish, for as long as the config says; then end the server."""
        for _ in range(round(self.snapshot.config.daemon.drain / DRAIN_LOOK_EVERY)):
            if not task.server.in_flight:
                break
            await anyio.sleep(DRAIN_LOOK_EVERY)
        task.scope.cancel()

    async def _admit(self, server: Server) -> None:
        if server.config.url is None:  # a remote server starts on somebody else's processors
            await self._start_limit.admit()

    def _starting_pids(self) -> list[int]:
        starting = [each for each in self.snapshot.servers.values() if each.status.state is State.CONNECTING]
        # The youngest first: they burn the most, so the limit is found to be reached after few looks.
        starting.sort(key=lambda server: server.status.since, reverse=True)
        return [server.pid for server in starting if server.pid is not None]

    # -- replace ---------------------------------------------------------------------------------------------------

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

    def _replace_when_ready(self, name: str, entry: ServerConfig) -> Replacement:
        """Start a new server beside the one that serves, unless one is under way already."""
        if (under_way := self._replacements.get(name)) is not None:
            return under_way
        assert self._tasks is not None
        server = Server(name, entry, self._context, is_current=False)
        server.offer_catalog_of(self.snapshot.servers[name])  # for its era; nobody sees its catalog yet
        replacement = self._replacements[name] = Replacement(self._start(server))
        self._tasks.start_soon(self._decide, replacement)
        return replacement

    async def _decide(self, replacement: Replacement) -> None:
        """Wait for the first attempt of a new server that runs beside the old one, and keep one of them."""
        failure = await replacement.first_attempt()
        server = replacement.server
        if self._replacements.get(server.name) is not replacement:  # given up meanwhile
            return
        del self._replacements[server.name]
        if failure is None:
            self._replace(replacement)
        else:
            replacement.give_up(failure)
            self._tell(ReplacementFailed(server.name, failure, server.stderr_tail))

    def _replace(self, replacement: Replacement) -> None:
        """Lead everybody to the new server, then let the old one finish what it was asked."""
        server, name = replacement.server, replacement.server.name
        server.replace(self.snapshot.servers[name])
        self._end(name)  # before it is published: what the old one tells from now on is nobody's business
        self._running[name] = replacement.task
        config = self.snapshot.config.having({name: server.config})
        self._publisher.publish(config, {**self.snapshot.servers, name: server}, server)
        self._tell(ServerReplaced(name))
        replacement.decided.set()

    def _replaced_at_once(self, name: str) -> Replacement:
        """The replacement of a server that is published already, and whose outcome is to be told."""
        assert self._tasks is not None
        replacement = Replacement(self._running[name])
        self._tasks.start_soon(self._await_first_attempt, replacement)
        return replacement

    async def _await_first_attempt(self, replacement: Replacement) -> None:
        failure = await replacement.first_attempt()
        # No longer the current one: another edit has replaced it meanwhile.
        replacement.failure = failure if replacement.server.is_current else SUPERSEDED
        replacement.decided.set()


def _is_burning(pid: int) -> bool:
    usage = read_usage(pid)
    return usage is not None and usage.runnable
