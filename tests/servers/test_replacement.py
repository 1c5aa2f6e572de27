"""A server whose entry changes, or that is to be restarted, while it serves: nobody notices but for the better."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import anyio
import pytest

from mcp_multi_server.core import lifecycle
from mcp_multi_server.core.events import ReplacementFailed, ServerReplaced, StateChanged
from mcp_multi_server.core.lifecycle import Lost, State
from mcp_multi_server.servers.replacement import SUPERSEDED, Replacement

from ..scripted import GONE, SOON, Json, Machine, Scripted, legacy, silence, tools
from .supervised import TOOL, Supervised, config_of, entry, running

pytestmark = pytest.mark.anyio


def machine_of(old: Any = None, new: Any = None) -> Machine:
    return Machine(
        old=Scripted(old or legacy(tools_list=tools("t"))), new=Scripted(new or legacy(tools_list=tools("u")))
    )


def one(command: str, **fields: Any) -> dict[str, Json]:
    return {"a": entry(command, **fields)}


async def decided(*replacements: Replacement) -> None:
    with anyio.fail_after(SOON):
        for replacement in replacements:
            await replacement.decided.wait()


async def test_the_old_server_serves_until_the_new_one_has_read_its_lists() -> None:
    machine = machine_of(new=legacy(tools_list=silence))
    async with running(machine, config_of(one("old"))) as fleet:
        await fleet.until(a="ready")
        old, before = fleet["a"], fleet.snapshot.generation
        plan, (replacement,) = fleet.supervisor.apply(config_of(one("new")))
        assert plan.replace == ("a",)
        await fleet.log.until(lambda: machine["new"].scripts)
        request = await machine["new"].server.request("tools/list")
        assert fleet["a"] is old
        assert fleet.listed() == ["t"]
        assert fleet.snapshot.config.servers["a"].command == "old"
        machine["new"].server.answer(request, result={"tools": [{"name": "u"}]})
        await decided(replacement)
        assert fleet["a"] is replacement.server
        assert fleet.listed() == ["u"]
        assert fleet.snapshot.config.servers["a"].command == "new"
        assert fleet.told(before) == [TOOL], "one visible change, told once"
        assert fleet.log.of(ServerReplaced) == [ServerReplaced("a")]
        await fleet.log.until(lambda: not machine["old"].open)
        assert fleet.log.states("a") == [State.READY], "no state of the two but the first is anybody's business"


async def test_a_call_under_way_is_answered_by_the_old_server_after_the_replacement() -> None:
    machine = machine_of()
    async with running(machine, config_of(one("old"))) as fleet:
        await fleet.until(a="ready")
        call = fleet.call()
        _, replacements = fleet.supervisor.apply(config_of(one("new")))
        await decided(*replacements)
        assert machine["old"].open
        machine["old"].server.say({"jsonrpc": "2.0", "id": 4, "result": {"late": True}})
        assert call.told == ['{"late": true}']
        await fleet.log.until(lambda: not machine["old"].open)


async def test_a_call_without_end_is_cut_off_when_the_drain_is_over() -> None:
    machine = machine_of()
    async with running(machine, config_of(one("old"), drain=0.1)) as fleet:
        await fleet.until(a="ready")
        call = fleet.call()
        _, replacements = fleet.supervisor.apply(config_of(one("new"), drain=0.1))
        await decided(*replacements)
        await fleet.log.until(lambda: not machine["old"].open)
        assert call.told == ["the server is being stopped"]


async def test_an_old_server_that_falls_while_it_ends_its_calls_is_not_started_again() -> None:
    machine = machine_of()
    async with running(machine, config_of(one("old"))) as fleet:
        await fleet.until(a="ready")
        call = fleet.call()
        _, replacements = fleet.supervisor.apply(config_of(one("new")))
        await decided(*replacements)
        machine["old"].server.die()
        assert call.told == [GONE.message]
        await fleet.log.until(lambda: not machine["old"].open)
        assert len(machine["old"].at) == 1
        assert fleet["a"].restarts == 0


@pytest.mark.parametrize("failing", [Lost(GONE), legacy(initialize=silence), KeyError("a bug")])
async def test_a_new_server_that_does_not_get_ready_leaves_the_old_one_in_its_place(failing: Any) -> None:
    machine = machine_of(new=failing)
    bug = isinstance(failing, KeyError)
    async with running(machine, config_of(one("old")), trouble=bug) as fleet:
        await fleet.until(a="ready")
        old, before = fleet["a"], fleet.snapshot.generation
        _, (replacement,) = fleet.supervisor.apply(config_of(one("new", startTimeout=0.3, protocol="legacy")))
        await decided(replacement)
        assert replacement.failure is not None
        assert fleet["a"] is old
        assert fleet.states() == {"a": "ready"}
        assert fleet.listed() == ["t"]
        assert fleet.told(before) == []
        await fleet.log.until(lambda: not machine["new"].open)
        assert len(machine["new"].at) == 1, "nobody goes on trying"
        (told,) = fleet.log.of(ReplacementFailed)
        assert (told.server, told.failure) == ("a", replacement.failure)
        machine["new"].openings[0] = legacy(tools_list=tools("u"))
        assert await fleet.apply(config_of(one("new"))) == {"replace": ["a"]}, "the next reload tries again"
        assert fleet.listed() == ["u"]


@pytest.mark.parametrize(
    "later",
    [
        one("old"),
        {},
        one("old", disabled=True),
        one("third"),
    ],
    ids=["as it was", "removed", "disabled", "another"],
)
async def test_a_later_edit_gives_up_a_replacement_that_it_does_not_want(later: dict[str, Json]) -> None:
    machine = Machine(
        old=Scripted(legacy(tools_list=tools("t"))),
        new=Scripted(legacy(initialize=silence)),
        third=Scripted(legacy(tools_list=tools("v"))),
    )
    async with running(machine, config_of(one("old"))) as fleet:
        await fleet.until(a="ready")
        _, (replacement,) = fleet.supervisor.apply(config_of(one("new")))
        await fleet.log.until(lambda: machine["new"].open)
        await fleet.apply(config_of(later))
        await decided(replacement)
        assert replacement.failure is SUPERSEDED
        await fleet.log.until(lambda: not machine["new"].open)
        wanted = {"old": ["t"], "third": ["v"], None: []}
        enabled = "a" in later and not later["a"].get("disabled")
        assert fleet.listed() == wanted[later["a"]["command"] if enabled else None]
        assert not fleet.log.of(ReplacementFailed), "nothing failed"


async def test_a_later_edit_that_wants_the_same_server_waits_for_the_one_on_its_way() -> None:
    machine = machine_of(new=legacy(tools_list=silence))
    async with running(machine, config_of(one("old"))) as fleet:
        await fleet.until(a="ready")
        _, (first,) = fleet.supervisor.apply(config_of(one("new")))
        plan, (second,) = fleet.supervisor.apply(config_of(one("new", timeout=3)))
        assert second is first
        assert plan.replace == ("a",)
        request = await _asked(machine, fleet)
        machine["new"].server.answer(request, result={"tools": [{"name": "u"}]})
        await decided(first)
        assert fleet["a"].config.timeout == 3
        assert fleet.snapshot.config.servers["a"].timeout == 3
        assert len(machine["new"].at) == 1


async def _asked(machine: Machine, fleet: Supervised) -> Json:
    await fleet.log.until(lambda: machine["new"].scripts)
    return await machine["new"].server.request("tools/list")


async def test_a_server_that_falls_while_its_replacement_starts_is_replaced_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lifecycle, "BACKOFF_FLOOR", 60.0)
    machine = machine_of(new=legacy(tools_list=silence))
    async with running(machine, config_of(one("old"))) as fleet:
        await fleet.until(a="ready")
        _, (first,) = fleet.supervisor.apply(config_of(one("new")))
        request = await _asked(machine, fleet)
        machine["old"].server.die()
        assert fleet.listed() == ["t (backoff)"]
        _, (second,) = fleet.supervisor.apply(config_of(one("new")))
        assert second is first, "two servers are enough"
        machine["new"].server.answer(request, result={"tools": [{"name": "u"}]})
        await decided(first)
        assert fleet.listed() == ["u"]
        assert fleet["a"].restarts == 1, "what was counted stays counted"


@pytest.mark.parametrize(("old", "new"), [("stop-first", "overlap"), ("overlap", "stop-first")])
async def test_where_either_entry_says_stop_first_two_never_run_at_once(old: str, new: str) -> None:
    machine = machine_of()
    machine["old"].may_leave = asyncio.Event()
    async with running(machine, config_of(one("old", replace=old))) as fleet:
        await fleet.until(a="ready")
        _, (replacement,) = fleet.supervisor.apply(config_of(one("new", replace=new)))
        assert fleet.listed() == ["t (connecting)"], "calls wait for the new one"
        assert fleet["a"] is replacement.server
        assert machine["new"].at == []
        machine["old"].may_leave.set()
        await decided(replacement)
        assert replacement.failure is None
        assert fleet.listed() == ["u"]


async def test_a_stop_first_server_that_does_not_come_back_is_told_of_and_tried_again() -> None:
    machine = machine_of(new=Lost(GONE))
    async with running(machine, config_of(one("old", replace="stop-first"))) as fleet:
        await fleet.until(a="ready")
        _, (replacement,) = fleet.supervisor.apply(config_of(one("new", replace="stop-first")))
        await decided(replacement)
        assert replacement.failure == GONE
        assert replacement.server.is_current
        await fleet.log.until(lambda: len(machine["new"].at) > 1)


async def test_a_removed_server_ends_what_it_was_asked() -> None:
    machine = machine_of()
    async with running(machine, config_of(one("old"))) as fleet:
        await fleet.until(a="ready")
        call = fleet.call()
        await fleet.apply(config_of({}))
        assert fleet.listed() == []
        machine["old"].server.say({"jsonrpc": "2.0", "id": 4, "result": {}})
        assert call.told == ["{}"]
        await fleet.log.until(lambda: not machine["old"].open)


async def test_an_entry_that_comes_back_waits_for_the_end_of_its_former_server() -> None:
    machine = machine_of()
    machine["old"].may_leave = asyncio.Event()
    async with running(machine, config_of(one("old"))) as fleet:
        await fleet.until(a="ready")
        await fleet.apply(config_of({}))
        await fleet.apply(config_of(one("new")))
        assert machine["new"].at == []
        machine["old"].may_leave.set()
        await fleet.until(a="ready")
        assert fleet.listed() == ["u"]


# --- restart ---------------------------------------------------------------------------------------------------------


async def test_a_restart_is_a_replacement_by_the_same() -> None:
    machine = machine_of()
    machine["old"].at_most = 2
    async with running(machine, config_of(one("old"))) as fleet:
        await fleet.until(a="ready")
        old, before = fleet["a"], fleet.snapshot.generation
        replacement = fleet.supervisor.restart("a")
        assert fleet.supervisor.restart("a") is replacement
        await fleet.apply(config_of(one("old")))
        await decided(replacement)
        assert fleet["a"] is replacement.server is not old
        assert fleet.told(before) == []
        await fleet.log.until(lambda: machine["old"].open == 1)
        assert machine["old"].server.methods()[0] == "initialize", "its era was known"


async def test_a_restart_of_a_server_that_is_away_tries_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "BACKOFF_FLOOR", 60.0)
    machine = machine_of()
    async with running(machine, config_of(one("old"))) as fleet:
        await fleet.until(a="ready")
        machine["old"].server.die()
        await fleet.log.until(lambda: not machine["old"].open)
        replacement = fleet.supervisor.restart("a")
        await decided(replacement)
        assert replacement.failure is None
        assert fleet.states() == {"a": "ready"}
        assert [event.new for event in fleet.log.of(StateChanged)][-1] is State.READY


async def test_a_restart_of_a_stop_first_server_drains_it_and_then_starts_it_anew() -> None:
    machine = machine_of()
    async with running(machine, config_of(one("old", replace="stop-first"))) as fleet:
        await fleet.until(a="ready")
        call = fleet.call()
        replacement = fleet.supervisor.restart("a")
        assert len(machine["old"].at) == 1
        machine["old"].server.say({"jsonrpc": "2.0", "id": 4, "result": {}})
        await decided(replacement)
        assert call.told == ["{}"]
        assert call.deadline < math.inf
        assert fleet.states() == {"a": "ready"}
        assert len(machine["old"].at) == 2
