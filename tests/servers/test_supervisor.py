"""The fleet: what readers see of it, and what a new config does to those that run."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from mcp_multi_server.core import lifecycle
from mcp_multi_server.core.catalog.catalog import Kind
from mcp_multi_server.core.events import CatalogWithdrawn, CollisionChanged, InternalError, ServerRemoved
from mcp_multi_server.core.lifecycle import Failure, Lost, Reason, State
from mcp_multi_server.core.names import Collision
from mcp_multi_server.core.protocol import Era
from mcp_multi_server.servers.publishing import Publisher
from mcp_multi_server.servers.snapshot import Snapshots

from ..scripted import GONE, LEGACY, SOON, TOOLS_CHANGED, Json, Machine, Scripted, legacy, result, silence, tools
from .observed import Observed
from .supervised import TOOL, TWO, Supervised, config_of, entry, running, two

pytestmark = pytest.mark.anyio


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
        machine["a"].server.die()
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
        machine["b"].server.say(TOOLS_CHANGED)
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
        machine["a"].server.die()
        await fleet.log.until(lambda: len(machine["a"].scripts) == 2)
        await fleet.until(a="ready")
        assert fleet.told(before) == []
        assert fleet.log.of(CatalogWithdrawn) == []
        assert fleet.withdrawals() == {}


@pytest.mark.parametrize(
    ("fields", "daemon"), [({}, {"grace": 0.1}), ({"grace": 0.1}, {"grace": 60}), ({"grace": 0}, {})]
)
@pytest.mark.usefixtures("long_backoff")
async def test_names_outlive_their_server_by_the_grace_and_come_back_with_it(fields: Json, daemon: Json) -> None:
    machine = two()
    async with running(machine, config_of({"a": entry("a", **fields), "b": entry("b")}, **daemon)) as fleet:
        await fleet.until(a="ready", b="ready")
        before = fleet.snapshot.generation
        machine["a"].server.die()
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
        machine["a"].server.die()
        await fleet.log.until(lambda: fleet.listed() == ["tb"])
        assert len(machine["a"].at) >= 3
        assert fleet.told(before) == [TOOL]
        assert fleet.withdrawals() == {}


# --- collisions ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("long_backoff")
async def test_a_collision_is_told_once_when_it_appears_and_once_when_it_goes() -> None:
    machine = two("same", "same")
    async with running(machine, config_of(TWO, grace=0.05)) as fleet:
        await fleet.until(a="ready", b="ready")
        assert fleet.listed() == ["same", "b__same"]
        appeared = CollisionChanged("tool", "same", "a", ("b",))
        assert fleet.log.of(CollisionChanged) == [appeared]
        machine["a"].server.die()
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
    log = Observed()
    publisher = Publisher(Snapshots(config_of({})), log)

    def many() -> tuple[Collision, ...]:
        return tuple(Collision(Kind.TOOL, f"tool {number}", "a", ("b",)) for number in range(30_000))

    publisher.tell_collisions(many(), many())
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
async def test_the_grace_of_an_old_server_takes_nothing_from_the_new_one() -> None:
    machine, _ = five()
    async with running(machine, config_of({"a": entry("a")}, grace=0.2)) as fleet:
        await fleet.until(a="ready")
        machine["a"].server.die()
        assert fleet.withdrawals()
        await fleet.apply(config_of({"a": entry("b")}, grace=0.2))
        await fleet.until(a="ready")
        await fleet.log.until(lambda: fleet.listed() == ["tb"])
        assert fleet.withdrawals() == {}


async def test_all_servers_are_stopped_at_once() -> None:
    machine, servers = five()
    for scripted in machine.servers.values():
        scripted.may_leave = asyncio.Event()

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


# --- the limit of starts ---------------------------------------------------------------------------------------------


async def test_children_wait_for_their_turn_to_start_and_remote_servers_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://127.0.0.1:1/mcp"
    machine = Machine(a=Scripted(legacy()), **{url: Scripted(legacy())})
    config = config_of({"a": entry("a"), "r": {"url": url, "type": "http"}})
    supervised = Supervised(machine, config)
    opened = anyio.Event()
    monkeypatch.setattr(supervised.supervisor._start_limit, "admit", opened.wait)
    async with anyio.create_task_group() as tasks:
        await tasks.start(supervised.supervisor.run)
        await supervised.until(r="ready")
        assert machine["a"].at == []
        opened.set()
        await supervised.until(a="ready")
        tasks.cancel_scope.cancel()
