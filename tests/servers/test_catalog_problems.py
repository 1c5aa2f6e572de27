"""What a server lists and nobody can use: it is left out, and its owner hears of it, once."""

from __future__ import annotations

import json

import pytest

from mcp_multi_server.core.catalog.problems import ListProblem
from mcp_multi_server.core.events import CatalogProblems, CatalogRead, InvalidLine, RefreshFailed
from mcp_multi_server.core.lifecycle import State
from mcp_multi_server.daemon.samples import fleet_sample

from ..fleet import Fleet, Script, fleet
from ..scripted import item

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("real_time")]  # clients are on real sockets

NAMELESS = json.dumps({"tools": [item("echo"), {"description": "whose?"}]})
TWICE = json.dumps({"tools": [item("echo"), item("echo")]})
MENDED = json.dumps({"tools": [item("echo") | {"title": None}]})
SOUND = json.dumps({"tools": [item("echo")]})
ONE_LEFT_OUT = ListProblem("tools", None, "left out: it has no name")


def told(running: Fleet) -> list[CatalogProblems]:
    return [event for event in running.events if isinstance(event, CatalogProblems)]


def problems(running: Fleet) -> list[ListProblem]:
    """Those that the status of the server has."""
    (row,) = running.control.status()["servers"]
    return [ListProblem(**problem) for problem in row["problems"]]


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
        assert [server.problems["tool"] for server in sample.servers] == [1]


async def test_it_is_told_when_it_appears_when_it_changes_and_when_it_is_gone() -> None:
    one = Script("one")
    async with fleet(one) as running:
        assert told(running) == []
        for tools, said in (
            (NAMELESS, "no name"),
            (NAMELESS, None),
            (TWICE, "earlier one"),
            (MENDED, "null"),
            (SOUND, ""),
        ):
            before = len(told(running))
            await read_again(running, one, tools)
            news = told(running)[before:]
            if said is None:
                assert news == [], "the same again"
            else:
                (event,) = news
                assert [said in problem.message for problem in event.problems] == [True] * bool(said)
                assert problems(running) == list(event.problems)


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


# --- a list that cannot be read, and answers that are off by a little -------------------------------------------------


async def test_a_server_whose_prompts_cannot_be_listed_is_ready_with_its_tools() -> None:
    one = Script("one", prompts=["greet"])
    one.replies["prompts/list"] = '{"items":[]}'
    async with fleet(one) as running:
        gap = ListProblem("prompts", None, "prompts/list cannot be read: the result of prompts/list has no prompts")
        assert problems(running) == [gap]
        assert told(running) == [CatalogProblems("one", (gap,))]
        client = await running.legacy()
        await client.result("tools/call", {"name": "echo"})
        del one.replies["prompts/list"]
        one.tell("notifications/prompts/list_changed", "{}")
        await running.until(lambda: not problems(running))
        assert [prompt["name"] for prompt in (await client.result("prompts/list"))["prompts"]] == ["greet"]
        assert told(running)[1:] == [CatalogProblems("one", ())]


async def test_a_list_that_cannot_be_read_again_stays_and_is_named() -> None:
    one = Script("one", prompts=["greet"])
    async with fleet(one) as running:
        client = await running.legacy()
        one.replies["prompts/list"] = '{"prompts":7}'
        one.tell("notifications/prompts/list_changed", "{}")
        failed = await running.event(RefreshFailed)
        assert failed.message.startswith("prompts/list cannot be read")
        assert [problem.list for problem in problems(running)] == ["prompts"]
        (row,) = running.control.status()["servers"]
        assert (row["state"], row["stale"], row["prompts"]) == ("ready", True, 1)
        assert [prompt["name"] for prompt in (await client.result("prompts/list"))["prompts"]] == ["greet"]
        assert told(running) == [], "it was told as a failed refresh"


class Peculiar(Script):
    """A server that answers in this form: the id and what stands beside the result."""

    form = '"id":%s'

    def answer(self, id: str, *, result: str | None = None, error: str | None = None) -> None:
        self.say('{"jsonrpc":"2.0",' + self.form % id + f',"result":{result}}}')


@pytest.mark.parametrize(
    ("form", "words"),
    [('"id":"%s"', "text"), ('"id":%s.0', "a number with a point"), ('"id":%s,"error":null', '"error": null')],
)
async def test_answers_that_are_off_by_a_little_are_understood_and_told_of_once(form: str, words: str) -> None:
    one = Peculiar("one")
    one.form = form
    async with fleet(one) as running:
        client = await running.legacy()
        for _ in range(3):
            await client.result("tools/call", {"name": "echo"})
        (problem,) = problems(running)
        assert (problem.list, problem.name) == (None, None)
        assert words in problem.message
        assert told(running) == [CatalogProblems("one", (problem,))]
        assert not [event for event in running.events if isinstance(event, InvalidLine)]
