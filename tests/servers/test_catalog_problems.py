"""What a server lists and nobody can use: it is left out, and its owner hears of it, once."""

from __future__ import annotations

import json

import pytest

from mcp_multi_server.core.events import CatalogProblems, CatalogRead
from mcp_multi_server.core.lifecycle import State
from mcp_multi_server.daemon.samples import fleet_sample

from ..fleet import Fleet, Script, fleet

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("real_time")]  # clients are on real sockets

NAMELESS = json.dumps({"tools": [{"name": "echo"}, {"description": "whose?"}]})
TWICE = json.dumps({"tools": [{"name": "echo"}, {"name": "echo"}]})
SOUND = json.dumps({"tools": [{"name": "echo"}]})
ONE_LEFT_OUT = "tools: 1 left out, without a usable name"


def told(running: Fleet) -> list[CatalogProblems]:
    return [event for event in running.events if isinstance(event, CatalogProblems)]


def problems(running: Fleet) -> list[str]:
    """Those that the status of the server has."""
    (row,) = running.control.status()["servers"]
    found: list[str] = row["problems"]
    return found


async def read_again(running: Fleet, script: Script, tools: str) -> None:
    """The server's lists are read once more."""
    script.replies["tools/list"] = tools
    before = sum(isinstance(event, CatalogRead) for event in running.events)
    script.tell("notifications/tools/list_changed", "{}")
    await running.until(lambda: sum(isinstance(event, CatalogRead) for event in running.events) > before)


async def test_a_tool_without_a_name_is_told_of_and_stays_in_the_status() -> None:
    one = Script("one")
    one.replies["tools/list"] = NAMELESS
    async with fleet(one) as running:
        assert told(running) == [CatalogProblems("one", (ONE_LEFT_OUT,))]
        assert problems(running) == [ONE_LEFT_OUT]
        names = [tool["name"] for tool in (await (await running.legacy()).result("tools/list"))["tools"]]
        assert names == ["echo"], "the others are offered"
        sample = fleet_sample(running.supervisor.snapshot, running.parts.reloads.last, clients=0, loop_lag=0.0)
        assert [server.problems for server in sample.servers] == [1]


async def test_it_is_told_when_it_appears_when_it_changes_and_when_it_is_gone() -> None:
    one = Script("one")
    async with fleet(one) as running:
        assert told(running) == []
        for tools, problem in ((NAMELESS, [ONE_LEFT_OUT]), (NAMELESS, None), (TWICE, ["echo"]), (SOUND, [])):
            before = len(told(running))
            await read_again(running, one, tools)
            news = told(running)[before:]
            if problem is None:
                assert news == [], "the same again"
            else:
                assert [len(each.problems) for each in news] == [len(problem)]
                assert all(words in "".join(news[0].problems) for words in problem)
                assert problems(running) == list(news[0].problems)


async def test_it_is_not_told_again_when_the_server_comes_back_or_is_replaced() -> None:
    one = Script("one")
    one.replies["tools/list"] = NAMELESS
    async with fleet(one) as running:
        one.die()
        await one.tried(2)
        await running.state("one", State.READY)
        client = await running.client()
        await client.result("daemon/restart", {"server": "one"})
        assert one.opened == 3
        assert len(told(running)) == 1
        assert problems(running) == [ONE_LEFT_OUT]
