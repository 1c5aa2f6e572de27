"""A first sight is a whole sight: who comes while servers start for the first time is not told of half of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import anyio
import pytest

from mcp_multi_server.core.errors import INTERNAL_ERROR, INVALID_PARAMS, RESOURCE_NOT_FOUND_LEGACY
from mcp_multi_server.core.events import RequestDone
from mcp_multi_server.core.lifecycle import Failure, Reason, State
from tests.fixtures.fixture import member

from ..client import Client, Message
from ..fleet import Fleet, Script, fleet
from ..polling import until

pytestmark = pytest.mark.anyio

LISTS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
BARE: list[tuple[str, Message]] = [
    ("tools/call", {"name": "echo"}),
    ("prompts/get", {"name": "greet"}),
    ("resources/read", {"uri": "note://one"}),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {}}),
    ("completion/complete", {"ref": {"type": "ref/resource", "uri": "note://{x}"}, "argument": {}}),
]
LONG = {"firstList": 25, "hold": 60}
SHORT = {"firstList": 0.2}
REFUSED = Failure(Reason.SPAWN, "command not found", permanent=True)


def slow(name: str = "one") -> Script:
    """A server that is there when the test says so."""
    made = Script(name, prompts=["greet"], resources=["note://one"], templates=["note://{x}"])
    made.away = True
    return made


def quick(name: str = "two", *, resources: Sequence[str] = ()) -> Script:
    """A server that is there soon."""
    return Script(name, tools=["other"], resources=resources)


async def waits(running: Fleet, client: Client, number: int = 1) -> None:
    """So many requests wait, and nothing else does."""
    await client.result("daemon/status", id="fence")
    assert len(running.router.first_sight) == number


def names(answer: str, method: str = "tools/list") -> list[str]:
    return [item["name"] for item in json.loads(answer)["result"][LISTS[method]]]


# --- lists -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("method", LISTS)
async def test_a_list_waits_for_every_server_that_starts_for_the_first_time(method: str, era: str) -> None:
    one, two = slow("one"), slow("two")
    async with fleet(one, two, daemon=LONG, up=False) as running:
        client = await running.of_era(era)
        await client.post(method)
        await waits(running, client)
        two.come()
        await running.state("two", State.READY)
        await waits(running, client)
        one.come()
        assert len(names(await client.answer_line(), method)) == 2
        assert not running.router.first_sight


async def test_one_that_has_failed_once_is_not_waited_for() -> None:
    one = slow()
    async with fleet(one, quick(), daemon=LONG, up=False) as running:
        client = await running.legacy()
        await client.post("tools/list")
        await waits(running, client)
        one.refusal = REFUSED
        one.come()
        assert names(await client.answer_line()) == ["other"]
        await client.post("tools/list")
        assert names(await client.answer_line()) == ["other"]


async def test_after_the_time_for_it_there_is_what_there_is() -> None:
    async with fleet(slow(), quick(), daemon=SHORT, up=False) as running:
        client = await running.legacy()
        for _ in range(2):
            await client.post("tools/list")
            assert names(await client.answer_line()) == ["other"]


@pytest.mark.parametrize("daemon", [{"firstList": 0}, {"firstList": 1e-9}])
async def test_without_a_time_for_it_nothing_waits(daemon: Message) -> None:
    async with fleet(slow(), daemon=daemon, up=False) as running:
        client = await running.legacy()
        assert (await client.result("tools/list"))["tools"] == []
        assert (await client.error("tools/call", {"name": "echo"}))["code"] == INTERNAL_ERROR


async def test_what_does_not_depend_on_servers_does_not_wait() -> None:
    async with fleet(slow(), daemon=LONG, up=False) as running:
        client = await running.legacy()
        await client.result("ping")
        await client.result("daemon/status")
        modern = await running.client(modern=True)
        await modern.result("server/discover")
        await modern.post("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        assert (await modern.notification())["method"] == "notifications/subscriptions/acknowledged"


async def test_a_list_with_a_cursor_is_refused_at_once() -> None:
    async with fleet(slow(), daemon=LONG, up=False) as running:
        client = await running.legacy()
        assert (await client.error("tools/list", {"cursor": "x"}))["code"] == INVALID_PARAMS


async def test_a_client_may_wait_less_than_the_daemon_would() -> None:
    async with fleet(slow(), quick(), daemon=LONG, up=False) as running:
        client = await running.legacy()
        await client.post("tools/list", {"_meta": {"mcp-multi-server/timeout": 0.1}})
        assert names(await client.answer_line()) == ["other"]
        error = await client.error("tools/call", {"name": "echo", "_meta": {"mcp-multi-server/timeout": 0.1}})
        assert error["data"]["server"] == "one"


# --- calls -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize(("method", "params"), BARE)
async def test_a_call_of_what_nobody_offers_yet_waits_for_whoever_will(method: str, params: Message, era: str) -> None:
    one, never = slow(), slow("never")
    never.lists = {method: (holder, key, []) for method, (holder, key, _) in never.lists.items()}
    async with fleet(one, never, daemon=LONG, up=False) as running:
        client = await running.of_era(era)
        await client.post(method, params)
        await waits(running, client)
        one.come()
        assert "result" in json.loads(await client.answer_line()), "one offers it, so nobody waits for the other"
        assert len(one.of(method)) == 1
        never.come()


async def test_a_call_of_a_name_that_is_known_is_not_delayed() -> None:
    two = quick(resources=["memo://two"])
    async with fleet(slow(), two, daemon=LONG, up=False) as running:
        await until(lambda: running.supervisor.snapshot.index.tool("other"))
        client = await running.legacy()
        await client.result("tools/call", {"name": "other"})
        await client.result("resources/read", {"uri": "memo://two"})
        await client.result("resources/read", {"uri": "two:memo://unlisted"})
        assert not running.router.first_sight


async def test_a_uri_that_nobody_lists_is_not_sent_to_the_first_server_with_resources_before_all_were_heard() -> None:
    one, two = slow(), quick(resources=["memo://two"])
    async with fleet(one, two, daemon=LONG, up=False) as running:
        await until(lambda: running.supervisor.snapshot.index.tool("other"))
        client = await running.legacy()
        await client.post("resources/read", {"uri": "note://one"})
        await waits(running, client)
        one.come()
        await client.answer_line()
        assert (len(one.of("resources/read")), two.of("resources/read")) == (1, [])


@pytest.mark.parametrize(("method", "params"), BARE)
async def test_unknown_is_said_only_when_everybody_was_heard(method: str, params: Message) -> None:
    one, two = slow(), slow("two")
    async with fleet(one, two, daemon=SHORT, up=False) as running:
        client = await running.legacy()
        error = await client.error(method, params)
        assert error["code"] == INTERNAL_ERROR
        assert error["message"].endswith("so far; not heard yet: 'one', 'two'")
        assert error["data"] == {"server": "one", "state": "connecting", "reason": None, "retryAt": None}
        for each in (one, two):
            each.refusal = REFUSED
            each.come()
        await until(lambda: not running.supervisor.snapshot.unheard)
        error = await client.error(method, params)
        assert error["code"] in (INVALID_PARAMS, RESOURCE_NOT_FOUND_LEGACY)


async def test_a_call_whose_server_fails_while_it_waits_is_unknown() -> None:
    one = slow()
    async with fleet(one, daemon=LONG, up=False) as running:
        client = await running.legacy()
        await client.post("tools/call", {"name": "echo"})
        await waits(running, client)
        one.refusal = REFUSED
        one.come()
        assert json.loads(await client.answer_line())["error"]["message"] == "Unknown tool: echo"


# --- the end of waiting ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "params"), [("tools/list", {}), *BARE[:1]])
async def test_what_waits_can_be_cancelled_and_is_counted_once(method: str, params: Message) -> None:
    one = slow()
    async with fleet(one, daemon=LONG, up=False) as running:
        client = await running.legacy()
        await client.post(method, params, id=7)
        await waits(running, client)
        await client.notify("notifications/cancelled", {"requestId": 7})
        await waits(running, client, 0)
        one.come()
        await running.event(RequestDone, lambda done: done.method == method)
        done = [event for event in running.events if isinstance(event, RequestDone) and event.method == method]
        assert [event.error for event in done] == ["cancelled"]
        assert not one.of(method)[1:], "only our own reading of the list"


async def test_what_waits_goes_with_its_client() -> None:
    async with fleet(slow(), daemon=LONG, up=False) as running:
        client, other = await running.legacy(), await running.legacy()
        await client.post("tools/list")
        await client.post("tools/call", {"name": "echo"}, id=2)
        await waits(running, client, 2)
        client.close()
        await until(lambda: len(running.gateway.sessions) == 1)
        await waits(running, other, 0)


async def test_what_waits_counts_as_in_flight() -> None:
    async with fleet(slow(), daemon={**LONG, "limits": {"inFlight": 2}}, up=False) as running:
        client = await running.legacy()
        for id in (1, 2):
            await client.post("tools/list", id=id)
        assert "in flight" in (await client.error("tools/list", id=3))["message"]


async def test_a_list_that_has_waited_is_told_as_done_once_with_the_time_that_it_took() -> None:
    one = slow()
    async with fleet(one, daemon=LONG, up=False) as running:
        client = await running.legacy()
        await client.post("tools/list")
        await waits(running, client)
        await asyncio.sleep(0.05)
        one.come()
        await client.answer_line()
        done = [event for event in running.events if isinstance(event, RequestDone) and event.method == "tools/list"]
        assert [event.error for event in done] == [""]
        assert done[0].seconds >= 0.05


# --- entries that come later -----------------------------------------------------------------------------------------


async def test_a_new_entry_is_waited_for_as_well_and_an_edited_one_that_goes_on_serving_is_not() -> None:
    one, two = Script("one"), slow("two")
    async with fleet(one, daemon=LONG) as running:
        client = await running.legacy()
        one.away = True
        edited = Script("one", entry={"args": ["-v"]})
        edited.away = True
        running.write(edited, two, daemon=LONG)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(running.parts.reloads.reload)
            await until(lambda: "two" in running.supervisor.snapshot.servers)
            await client.post("tools/list")
            await waits(running, client)
            assert [server.name for server in running.supervisor.snapshot.unheard] == ["two"]
            two.come()
            assert len(names(await client.answer_line())) == 2
            edited.come()


async def test_reloads_do_not_prolong_the_waiting_of_those_who_wait() -> None:
    daemon = {"firstList": 0.5}
    one = slow()
    async with fleet(one, daemon=daemon, up=False) as running:
        client, loop = await running.legacy(), asyncio.get_running_loop()
        started = loop.time()
        await client.post("tools/list")
        for number in range(4):
            running.write(one, *(slow(f"more{n}") for n in range(number + 1)), daemon=daemon)
            await running.parts.reloads.reload()
            await asyncio.sleep(0.1)
        await client.answer_line()
        assert loop.time() - started < 5


async def test_a_server_that_was_removed_is_not_waited_for() -> None:
    one, two = slow(), quick()
    async with fleet(one, two, daemon=LONG, up=False) as running:
        client = await running.legacy()
        await client.post("tools/list")
        await waits(running, client)
        running.write(two, daemon=LONG)
        await running.parts.reloads.reload()
        assert member(await client.answer_line(), "result")
