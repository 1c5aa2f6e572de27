"""The fleet: what readers see of it, and what a new config does to those that run."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal

import anyio
import pytest

from mcp_multi_server.core import lifecycle
from mcp_multi_server.core.catalog import Kind
from mcp_multi_server.core.config import Config, LimitsConfig, ServerConfig, parse
from mcp_multi_server.core.events import CatalogWithdrawn, CollisionChanged, InternalError, ServerRemoved
from mcp_multi_server.core.index import STATE_KEY, Collision
from mcp_multi_server.core.lifecycle import Failure, Lost, Reason, State
from mcp_multi_server.core.protocol import Era
from mcp_multi_server.servers.opener import TransportOpener
from mcp_multi_server.servers.server import Opener, Server
from mcp_multi_server.servers.snapshot import Snapshot, Snapshots
from mcp_multi_server.servers.supervisor import Supervisor
from mcp_multi_server.transport import Receiver, Transport
from mcp_multi_server.transport.link import Flusher

from .nobody import nobody
from .test_server import GONE, Log, Scripted, fixture, is_alive, legacy, timers, tools
from .test_session import LEGACY, SOON, Json, result, silence

pytestmark = pytest.mark.anyio


def config_of(servers: dict[str, Json], **daemon: Any) -> Config:
    def lookup(source: Literal["env", "file", "cred"], name: str) -> str:
        raise LookupError(name)

    return parse(json.dumps({"mcpServers": servers, "daemon": daemon}).encode(), lookup)


def entry(command: str, **fields: Any) -> Json:
    return {"command": command, "startTimeout": 10, "stopTimeout": 1} | fields


class Machine:
    """An `Opener` for several servers, each known by its command."""

    def __init__(self, **servers: Scripted) -> None:
        self.servers = servers

    def __call__(self, kind: str, config: ServerConfig, receiver: Receiver) -> AbstractAsyncContextManager[Transport]:
        return self.servers[config.command or str(config.url)](kind, config, receiver)

    def __getitem__(self, command: str) -> Scripted:
        return self.servers[command]


class Change:
    """What listeners are told, and the snapshot of that moment."""

    def __init__(self, snapshot: Snapshot, kinds: frozenset[Kind], server: Server | None) -> None:
        self.snapshot = snapshot
        self.kinds = kinds
        self.server = server.name if server else None


class Fleet:
    """A supervisor that runs, and all that is told about it."""

    def __init__(
        self,
        opener: Opener,
        config: Config,
        jitter: Callable[[], float] = lambda: 0.0,
        recall: Callable[[Server], None] | None = None,
    ) -> None:
        self.log = Log()
        if isinstance(opener, Machine):
            for scripted in opener.servers.values():
                scripted.news = self.log.wake
        self.snapshots = Snapshots(config)
        self.snapshots.listeners.append(self._changed)
        self.supervisor = Supervisor(
            self.snapshots, open_transport=opener, tell=self.log, jitter=jitter, host=nobody(self.log), recall=recall
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
) -> AsyncIterator[Fleet]:
    """Run a fleet; at the end it is stopped and nothing of it is left. `trouble`: internal errors are expected."""
    tasks_before, timers_before = asyncio.all_tasks(), timers()
    fleet = Fleet(opener, config, jitter)
    async with anyio.create_task_group() as tasks:
        await tasks.start(fleet.supervisor.run)
        yield fleet
        tasks.cancel_scope.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert set(fleet.states().values()) <= {"stopping"}
    assert asyncio.all_tasks() <= tasks_before
    soon = asyncio.get_running_loop().time() + 0.3
    assert all(timer.when() <= soon for timer in timers() - timers_before)
    assert not (fleet.supervisor._runs or fleet.supervisor._leaving or fleet.supervisor._withdrawals)
    if isinstance(opener, Machine):
        assert not any(scripted.open for scripted in opener.servers.values())
    assert bool(fleet.log.of(InternalError)) is trouble, fleet.log.of(InternalError)


@pytest.fixture
def long_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """No attempt is made but for a reason."""
    monkeypatch.setattr(lifecycle, "BACKOFF_FLOOR", 60.0)


TOOL = frozenset({Kind.TOOL})
TWO = {"a": entry("a"), "b": entry("b")}


def two(a: str = "ta", b: str = "tb") -> Machine:
    return Machine(a=Scripted(legacy(tools_list=tools(a))), b=Scripted(legacy(tools_list=tools(b))))


# --- what readers see ------------------------------------------------------------------------------------------------


async def test_each_server_is_published_when_it_is_ready_and_stands_where_the_config_has_it() -> None:
    machine = two()
    machine["a"].openings[0] = legacy(tools_list=silence)
    async with running(machine, config_of(TWO)) as fleet:
        await fleet.until(b="ready")
        assert fleet.listed() == ["tb"]
        request = await machine["a"].server.request("tools/list")
        machine["a"].server.answer(request, result={"tools": [{"name": "ta"}]})
        await fleet.until(a="ready")
        assert fleet.listed() == ["ta", "tb"]
        assert fleet.told() == [TOOL, TOOL]
        assert [change.server for change in fleet.changes] == [None, "b", "a"]


async def test_a_snapshot_is_never_changed_only_replaced() -> None:
    machine = two()
    async with running(machine, config_of(TWO)) as fleet:
        await fleet.until(a="ready", b="ready")
        old = fleet.snapshot
        listing = bytes(old.listing(Kind.TOOL, Era.LEGACY))
        machine["a"].server.receiver.lost(GONE)
        assert fleet.snapshot is not old
        assert fleet.snapshot.generation == old.generation + 1
        assert fleet.listed() == ["ta (backoff)", "tb"]
        assert old.listing(Kind.TOOL, Era.LEGACY) == listing
        assert fleet.told(old.generation) == [], "that a server went away is no change of a list"


async def test_a_server_that_fails_touches_no_other() -> None:
    machine = Machine(a=Scripted(KeyError("a bug")), b=Scripted(legacy(tools_list=tools("tb"))), c=Scripted(None))
    servers = {"a": entry("a"), "c": entry("c"), "b": entry("b")}
    async with running(machine, config_of(servers), trouble=True) as fleet:
        await fleet.until(b="ready")
        await fleet.log.until(lambda: len(machine["a"].at) >= 3)
        assert fleet.listed() == ["tb"]
        assert fleet["c"].status.state is State.CONNECTING
        assert len(machine["b"].at) == 1
        assert {error.where for error in fleet.log.of(InternalError)} == {"server a"}


async def test_a_listener_is_told_after_the_snapshot_is_there_and_whose_change_it_was() -> None:
    machine = two()
    async with running(machine, config_of(TWO)) as fleet:
        await fleet.until(a="ready", b="ready")
        assert fleet.changes[0].server is None
        assert fleet.changes[-1].snapshot is fleet.snapshot
        machine["b"].server.answers["tools/list"] = tools("tb", "new")
        machine["b"].server.say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        await fleet.log.until(lambda: fleet.listed() == ["ta", "tb", "new"])
        assert (fleet.changes[-1].server, fleet.changes[-1].kinds) == ("b", TOOL)


async def test_instructions_of_those_that_are_known_are_joined_under_their_names() -> None:
    answers = legacy() | {"initialize": result(LEGACY | {"instructions": "be kind"})}
    machine = Machine(a=Scripted(answers), b=Scripted(legacy()))
    async with running(machine, config_of(TWO)) as fleet:
        await fleet.until(a="ready", b="ready")
        assert fleet.snapshot.instructions == "# a\n\nbe kind"


# --- grace -----------------------------------------------------------------------------------------------------------


async def test_a_blip_changes_no_list() -> None:
    machine = two()
    async with running(machine, config_of(TWO)) as fleet:
        await fleet.until(a="ready", b="ready")
        before = fleet.snapshot.generation
        machine["a"].server.receiver.lost(GONE)
        await fleet.log.until(lambda: len(machine["a"].scripts) == 2)
        await fleet.until(a="ready")
        assert fleet.told(before) == []
        assert fleet.log.of(CatalogWithdrawn) == []
        assert fleet.supervisor._withdrawals == {}


@pytest.mark.parametrize(
    ("fields", "daemon"), [({}, {"grace": 0.1}), ({"grace": 0.1}, {"grace": 60}), ({"grace": 0}, {})]
)
@pytest.mark.usefixtures("long_backoff")
async def test_names_outlive_their_server_by_the_grace_and_come_back_with_it(fields: Json, daemon: Json) -> None:
    machine = two()
    async with running(machine, config_of({"a": entry("a", **fields), "b": entry("b")}, **daemon)) as fleet:
        await fleet.until(a="ready", b="ready")
        before = fleet.snapshot.generation
        machine["a"].server.receiver.lost(GONE)
        assert fleet.listed() == ["ta (backoff)", "tb"]
        await fleet.log.until(lambda: fleet.listed() == ["tb"])
        assert fleet.told(before) == [TOOL]
        assert fleet.log.of(CatalogWithdrawn) == [CatalogWithdrawn("a")]
        fleet["a"].restart()
        await fleet.until(a="ready")
        assert fleet.listed() == ["ta", "tb"]
        assert fleet.told(before) == [TOOL, TOOL]


@pytest.mark.usefixtures("long_backoff")
async def test_the_grace_runs_from_the_loss_through_every_failing_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "BACKOFF_FLOOR", 0.05)
    machine = two()
    machine["a"].openings.append(Lost(GONE))
    async with running(machine, config_of(TWO, grace=0.2)) as fleet:
        await fleet.until(a="ready", b="ready")
        before = fleet.snapshot.generation
        machine["a"].server.receiver.lost(GONE)
        await fleet.log.until(lambda: fleet.listed() == ["tb"])
        assert len(machine["a"].at) >= 3
        assert fleet.told(before) == [TOOL]
        assert fleet.supervisor._withdrawals == {}


# --- collisions ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("long_backoff")
async def test_a_collision_is_told_once_when_it_appears_and_once_when_it_goes() -> None:
    machine = two("same", "same")
    async with running(machine, config_of(TWO, grace=0.05)) as fleet:
        await fleet.until(a="ready", b="ready")
        assert fleet.listed() == ["same", "b__same"]
        appeared = CollisionChanged("tool", "same", "a", ("b",))
        assert fleet.log.of(CollisionChanged) == [appeared]
        machine["a"].server.receiver.lost(GONE)
        assert fleet.log.of(CollisionChanged) == [appeared], "its names are still listed"
        await fleet.log.until(lambda: fleet.listed() == ["same"])
        assert fleet.log.of(CollisionChanged) == [appeared, CollisionChanged("tool", "same", "a", ())]
        fleet["a"].restart()
        await fleet.until(a="ready")
        assert fleet.listed() == ["same", "b__same"], "the owner gets its name back"
        assert fleet.log.of(CollisionChanged)[2:] == [appeared]


async def test_the_owner_of_a_name_is_the_first_in_config_order_whoever_comes_first() -> None:
    machine = two("same", "same")
    machine["a"].openings[0] = legacy(tools_list=silence)
    async with running(machine, config_of(TWO)) as fleet:
        await fleet.until(b="ready")
        assert fleet.listed() == ["same"]
        request = await machine["a"].server.request("tools/list")
        machine["a"].server.answer(request, result={"tools": [{"name": "same"}]})
        await fleet.until(a="ready")
        route = fleet.snapshot.index.tool("same")
        assert route is not None
        assert route.server == "a"
        await fleet.apply(config_of({"b": entry("b"), "a": entry("a")}))
        route = fleet.snapshot.index.tool("same")
        assert route is not None
        assert route.server == "b"
        assert fleet.log.of(CollisionChanged)[-1] == CollisionChanged("tool", "same", "b", ("a",))


@pytest.mark.timeout(10)
async def test_many_collisions_that_stay_cost_little() -> None:
    """Compared each with each, so many would hold the loop for a minute at every change of any server."""
    log = Log()
    snapshots = Snapshots(config_of({}))
    supervisor = Supervisor(snapshots, open_transport=Machine(), tell=log, jitter=lambda: 0.0, host=nobody(log))

    def many() -> tuple[Collision, ...]:
        return tuple(Collision(Kind.TOOL, f"tool {number}", "a", ("b",)) for number in range(30_000))

    supervisor._tell_collisions(many(), many())
    assert log.events == []


# --- apply -----------------------------------------------------------------------------------------------------------


def five() -> tuple[Machine, dict[str, Json]]:
    machine = Machine(**{name: Scripted(legacy(tools_list=tools(f"t{name}"))) for name in "abcdef"})
    return machine, {name: entry(name) for name in "abcd"}


async def test_a_new_config_starts_stops_replaces_updates_and_keeps() -> None:
    machine, servers = five()
    async with running(machine, config_of(servers)) as fleet:
        await fleet.until(a="ready", b="ready", c="ready", d="ready")
        old = dict(fleet.snapshot.servers)
        fresh = {"e": entry("e"), "d": entry("d"), "c": entry("c", timeout=3, exclude=["tc"]), "b": entry("f")}
        steps = await fleet.apply(config_of(fresh))
        assert steps == {"start": ["e"], "stop": ["a"], "replace": ["b"], "update": ["c"], "keep": ["d"]}
        await fleet.until(e="ready", b="ready")
        await fleet.log.until(lambda: not machine["b"].open)
        assert list(fleet.snapshot.servers) == ["e", "d", "c", "b"]
        assert fleet.listed() == ["te", "td", "tf"]
        assert fleet["d"] is old["d"]
        assert fleet["c"] is old["c"]
        assert fleet["c"].config.timeout == 3
        assert [len(machine[name].scripts) for name in "abcdef"] == [1] * 6
        assert [scripted.open for scripted in machine.servers.values()] == [0, 0, 1, 1, 1, 1]
        assert fleet.log.of(ServerRemoved) == [ServerRemoved("a")]
        assert old["a"].status.state is State.STOPPING


async def test_a_config_that_is_the_same_touches_nobody() -> None:
    machine, servers = five()
    async with running(machine, config_of(servers)) as fleet:
        await fleet.until(a="ready", b="ready", c="ready", d="ready")
        old = list(fleet.snapshot.servers.values())
        assert await fleet.apply(config_of(servers)) == {"keep": ["a", "b", "c", "d"]}
        assert list(fleet.snapshot.servers.values()) == old
        assert fleet.told(4 + 1) == []


async def test_settings_of_names_are_seen_at_once() -> None:
    machine = two()
    async with running(machine, config_of(TWO)) as fleet:
        await fleet.until(a="ready", b="ready")
        await fleet.apply(config_of({"a": entry("a", prefix="x"), "b": entry("b")}, naming="qualified", separator="-"))
        assert fleet.listed() == ["x-ta", "b-tb"]


async def test_an_entry_that_is_disabled_stops_and_one_that_is_broken_goes_on_as_it_was() -> None:
    machine = two()
    async with running(machine, config_of(TWO)) as fleet:
        await fleet.until(a="ready", b="ready")
        old = fleet["b"]
        broken = config_of({"a": entry("a", disabled=True), "b": entry("b", timeout="soon")})
        await fleet.apply(broken.keeping(fleet.snapshot.config))
        assert list(fleet.snapshot.servers) == ["b"]
        assert fleet["b"] is old
        assert fleet.listed() == ["tb"]
        await fleet.log.until(lambda: not machine["a"].open)


@pytest.mark.parametrize("opening", [None, legacy(server_discover=silence), Lost(GONE)])
@pytest.mark.usefixtures("long_backoff")
async def test_a_server_that_does_not_come_up_holds_up_no_reload(opening: Any) -> None:
    machine = Machine(a=Scripted(opening), b=Scripted(legacy()))
    async with running(machine, config_of({"a": entry("a")})) as fleet:
        await fleet.log.until(lambda: machine["a"].at)
        assert await fleet.apply(config_of({"b": entry("b")})) == {"start": ["b"], "stop": ["a"]}
        await fleet.until(b="ready")


@pytest.mark.parametrize("failure", [Failure(Reason.SPAWN, "not found", permanent=True), GONE])
@pytest.mark.usefixtures("long_backoff")
async def test_a_server_that_is_away_is_tried_again_when_its_entry_changes(failure: Failure) -> None:
    machine = Machine(a=Scripted(Lost(failure), legacy()))
    async with running(machine, config_of({"a": entry("a")})) as fleet:
        await fleet.log.until(lambda: fleet["a"].status.failure)
        assert await fleet.apply(config_of({"a": entry("a", startTimeout=20)})) == {"update": ["a"]}
        await fleet.until(a="ready")


async def test_two_reloads_at_once_are_carried_out_one_after_the_other() -> None:
    machine, servers = five()
    async with running(machine, config_of(servers)) as fleet:
        await fleet.until(a="ready", b="ready", c="ready", d="ready")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fleet.apply, config_of({"a": entry("a"), "b": entry("e")}))
            tasks.start_soon(fleet.apply, config_of({"a": entry("a"), "b": entry("f")}))
        await fleet.until(a="ready", b="ready")
        await fleet.log.until(lambda: not (machine["b"].open or machine["e"].open))
        assert fleet.listed() == ["ta", "tf"]
        assert [scripted.open for scripted in machine.servers.values()] == [1, 0, 0, 0, 0, 1]


@pytest.mark.usefixtures("long_backoff")
async def test_the_grace_of_an_old_connection_takes_nothing_from_the_new_one() -> None:
    machine, _ = five()
    async with running(machine, config_of({"a": entry("a")}, grace=0.2)) as fleet:
        await fleet.until(a="ready")
        machine["a"].server.receiver.lost(GONE)
        assert fleet.supervisor._withdrawals
        await fleet.apply(config_of({"a": entry("b")}, grace=0.2))
        await fleet.until(a="ready")
        await fleet.log.until(lambda: fleet.listed() == ["tb"])
        assert fleet.supervisor._withdrawals == {}


async def test_all_servers_are_stopped_at_once() -> None:
    machine, servers = five()
    for scripted in machine.servers.values():
        scripted.may_leave = anyio.Event()

    async def leave_once_all_wait() -> None:
        while [fleet[name].status.state for name in "abcd"] != [State.STOPPING] * 4:
            await asyncio.sleep(0)
        for scripted in machine.servers.values():
            assert scripted.open == (scripted.at != [])
            scripted.may_leave.set()

    with anyio.fail_after(SOON):
        async with anyio.create_task_group() as tasks, running(machine, config_of(servers)) as fleet:
            await fleet.until(a="ready", b="ready", c="ready", d="ready")
            tasks.start_soon(leave_once_all_wait)
            await asyncio.sleep(0)


# --- the gate --------------------------------------------------------------------------------------------------------


async def test_children_wait_for_the_gate_and_remote_servers_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://127.0.0.1:1/mcp"
    machine = Machine(a=Scripted(legacy()), **{url: Scripted(legacy())})
    config = config_of({"a": entry("a"), "r": {"url": url, "type": "http"}})
    supervised = Fleet(machine, config)
    opened = anyio.Event()
    monkeypatch.setattr(supervised.supervisor._gate, "admit", opened.wait)
    async with anyio.create_task_group() as tasks:
        await tasks.start(supervised.supervisor.run)
        await supervised.until(r="ready")
        assert machine["a"].at == []
        opened.set()
        await supervised.until(a="ready")
        tasks.cancel_scope.cancel()


# --- children --------------------------------------------------------------------------------------------------------


async def test_kept_children_live_on_with_their_pid_and_others_are_gone_with_the_reload() -> None:
    opener = TransportOpener(LimitsConfig, Flusher(), dict(os.environ))
    servers = {name: fixture("--name", name) for name in ("one", "two", "three")}
    async with running(opener, config_of(servers)) as fleet:
        await fleet.until(one="ready", two="ready", three="ready")
        pids = {name: server.pid for name, server in fleet.snapshot.servers.items()}
        gone = pids["two"], pids["three"]
        assert all(pids.values())
        await fleet.apply(config_of({"two": fixture("--name", "two", "--version", "2"), "one": servers["one"]}))
        await fleet.until(one="ready", two="ready")
        assert fleet["one"].pid == pids["one"]
        assert fleet["two"].pid not in (None, pids["two"])
        await fleet.log.until(lambda: not any(pid and is_alive(pid) for pid in gone))
        last = [server.pid for server in fleet.snapshot.servers.values()]
    assert not any(pid and is_alive(pid) for pid in last)


async def test_a_child_killed_by_hand_comes_back_while_the_others_serve() -> None:
    opener = TransportOpener(LimitsConfig, Flusher(), dict(os.environ))
    servers = {name: fixture("--name", name) for name in ("one", "two")}
    async with running(opener, config_of(servers)) as fleet:
        await fleet.until(one="ready", two="ready")
        before, pid, other = fleet.snapshot.generation, fleet["one"].pid, fleet["two"].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await fleet.until(one="backoff")
        await fleet.until(one="ready")
        assert fleet["one"].restarts == 1
        assert fleet["two"].pid == other
        assert fleet.told(before) == []
