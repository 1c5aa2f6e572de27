"""How a catalog is kept fresh: changes, times to live, subscriptions."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from mcp_multi_server.core.catalog.catalog import Kind
from mcp_multi_server.core.events import CatalogProblems, CatalogRead, RefreshFailed
from mcp_multi_server.core.lifecycle import Failure, Reason, State
from mcp_multi_server.servers import refresh

from ..scripted import (
    LEGACY,
    MODERN,
    TOOLS_CHANGED,
    Answer,
    Json,
    Scripted,
    item,
    legacy,
    modern,
    paged,
    refusal,
    result,
    silence,
    tools,
    unknown,
)
from .one_server import One, entry_of, running

pytestmark = pytest.mark.anyio

# --- the catalog ------------------------------------------------------------------------------------------------------


async def test_a_changed_list_is_read_again_and_published_where_it_differs() -> None:
    opener = Scripted(legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        for _ in range(100):
            opener.server.say(TOOLS_CHANGED)
        await one.log.until(lambda: len(one.log.of(CatalogRead)) == 2)
        assert one.published == 1, "nothing is different"
        opener.server.answers["tools/list"] = tools("t", "u")
        opener.server.say(TOOLS_CHANGED)
        await one.log.until(lambda: one.published == 2)
        assert one.names() == ["t", "u"]
        assert opener.server.methods().count("tools/list") == 3, "a burst is read once"


async def test_a_change_that_comes_while_the_list_is_read_is_not_lost() -> None:
    opener = Scripted(legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        opener.server.answers["tools/list"] = silence
        opener.server.say(TOOLS_CHANGED)
        request = await opener.server.request("tools/list", nth=2)
        opener.server.say(TOOLS_CHANGED)
        opener.server.answers["tools/list"] = tools("newest")
        opener.server.answer(request, result={"tools": [item("newer")]})
        await one.log.until(lambda: one.names() == ["newest"])
        assert one.published == 3


async def test_what_changed_between_the_first_reading_and_the_subscription_is_read() -> None:
    opener = Scripted(modern())
    async with running(opener) as one:
        await one.until(State.READY)
        opener.server.answers["tools/list"] = tools("t", "new in between")
        request = await opener.server.request("subscriptions/listen")
        meta = {"io.modelcontextprotocol/subscriptionId": request["id"]}
        acknowledged = {"_meta": meta, "notifications": {"toolsListChanged": True}}
        opener.server.say(
            {"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": acknowledged}
        )
        await one.log.until(lambda: one.names() == ["t", "new in between"])


async def test_lists_are_read_now_and_then() -> None:
    async with running(Scripted(legacy()), refreshInterval=0.05) as one:
        await one.log.until(lambda: len(one.log.of(CatalogRead)) >= 4)
        assert one.published == 1


async def test_the_time_to_live_that_a_server_gives_counts_within_bounds() -> None:
    opener = Scripted(legacy(tools_list=tools("t", ttlMs=1)))
    async with running(opener) as one:
        await one.until(State.READY)
        ready_at = asyncio.get_running_loop().time()
        await one.log.until(lambda: len(one.log.of(CatalogRead)) == 3)
        assert asyncio.get_running_loop().time() == pytest.approx(ready_at + 2 * refresh.TTL_FLOOR)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refusal(-32000), "tools/list failed: error -32000"),
        (result({"tools": 3}), "tools/list cannot be read: tools in the result of tools/list is no list"),
        (silence, "tools/list was not answered in time"),
    ],
)
async def test_a_failed_refresh_keeps_what_was_there(answer: Answer, message: str) -> None:
    opener = Scripted(legacy())
    async with running(opener, timeout=0.2) as one:
        await one.until(State.READY)
        opener.server.answers["tools/list"] = answer
        opener.server.say(TOOLS_CHANGED)
        await one.log.until(lambda: one.log.of(RefreshFailed))
        assert one.log.of(RefreshFailed) == [RefreshFailed("one", message)]
        assert (one.state, one.names(), one.server.stale) == (State.READY, ["t"], True)
        opener.server.answers["tools/list"] = tools("t")
        opener.server.say(TOOLS_CHANGED)
        await one.log.until(lambda: not one.server.stale)
        assert one.published == 1


TWO_LISTS = result(LEGACY | {"capabilities": {"tools": {}, "prompts": {}}})


async def test_a_list_that_could_not_be_read_is_asked_for_again_ever_less_often() -> None:
    opener = Scripted(legacy(initialize=TWO_LISTS, prompts_list=refusal(-32000)))
    async with running(opener, refreshInterval=45) as one:
        await one.until(State.READY)
        times = [asyncio.get_running_loop().time()]
        for nth in range(2, 6):
            await opener.server.request("prompts/list", nth=nth)
            times.append(asyncio.get_running_loop().time())
        assert [round(late - early) for early, late in pairwise(times)] == [5, 30, 36, 36]
        assert opener.server.methods().count("tools/list") == 3, "the others are read at their own time"
        assert one.log.of(RefreshFailed) == []
        assert len(one.log.of(CatalogProblems)) == 1


async def test_a_change_that_comes_while_a_gap_is_read_is_not_lost() -> None:
    opener = Scripted(legacy(initialize=TWO_LISTS, prompts_list=refusal(-32000)))
    async with running(opener) as one:
        await one.until(State.READY)
        opener.server.answers["prompts/list"] = silence
        request = await opener.server.request("prompts/list", nth=2)
        opener.server.say({"jsonrpc": "2.0", "method": "notifications/prompts/list_changed"})
        await asyncio.sleep(1)
        opener.server.answers["prompts/list"] = result({"prompts": [item("p")]})
        began = asyncio.get_running_loop().time()
        opener.server.answer(request, error={"code": -32000, "message": "not yet"})
        await one.log.until(lambda: one.server.catalog is not None and one.server.catalog.count(Kind.PROMPT) == 1)
        assert asyncio.get_running_loop().time() - began < 1


async def test_a_list_that_hangs_delays_no_change_of_the_others() -> None:
    opener = Scripted(legacy(initialize=TWO_LISTS, prompts_list=silence))
    async with running(opener, timeout=60) as one:
        await one.until(State.READY)
        assert asyncio.get_running_loop().time() < 5, "before the time to start is over"
        await opener.server.request("prompts/list", nth=2)
        began = asyncio.get_running_loop().time()
        opener.server.answers["tools/list"] = tools("t", "u")
        opener.server.say(TOOLS_CHANGED)
        await one.log.until(lambda: one.names() == ["t", "u"])
        assert asyncio.get_running_loop().time() - began < 1


async def test_settings_that_need_no_new_session_are_taken_over() -> None:
    opener = Scripted(legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        one.server.update(entry_of(refreshInterval=0.05))
        await one.log.until(lambda: len(one.log.of(CatalogRead)) >= 4)
        assert len(opener.scripts) == 1


# --- subscriptions ----------------------------------------------------------------------------------------------------


async def test_a_modern_server_is_asked_to_say_what_changes() -> None:
    offered = {"tools": {"listChanged": True}, "prompts": {}, "resources": {"listChanged": True}}
    lists = {kind.list_method: paged(kind.member, kind.key, 1) for kind in Kind}
    opener = Scripted(modern() | lists | {"server/discover": result(MODERN | {"capabilities": offered})})
    async with running(opener) as one:
        await one.until(State.READY)
        request = await opener.server.request("subscriptions/listen")
        assert request["params"]["notifications"] == {"toolsListChanged": True, "resourcesListChanged": True}


@pytest.mark.parametrize(
    "answers",
    [legacy(), modern(server_discover=result(MODERN | {"capabilities": {"tools": {}}}))],
    ids=["legacy", "nothing announced"],
)
async def test_nothing_is_subscribed_to_where_nothing_would_come(answers: dict[str, Answer]) -> None:
    opener = Scripted(answers, modern())
    async with running(opener) as one:
        await one.until(State.READY)
        for _ in range(5):
            await asyncio.sleep(0)
        assert "subscriptions/listen" not in opener.server.methods()


@pytest.mark.parametrize("how", ["result", "failed"])
async def test_a_subscription_that_ends_is_opened_again_and_what_was_missed_is_read(how: str) -> None:
    opener = Scripted(modern())
    async with running(opener) as one:
        request = await begun(one, opener, "subscriptions/listen")
        opener.server.answers["tools/list"] = tools("t", "missed")
        if how == "result":
            opener.server.answer(request, result={})
        else:
            opener.server.receiver.failed(request["id"], Failure(Reason.UNREACHABLE, "the stream broke"))
        await opener.server.request("subscriptions/listen", nth=2)
        await one.log.until(lambda: one.names() == ["t", "missed"])
        assert one.state is State.READY


async def begun(one: One, opener: Scripted, method: str) -> Json:
    await one.log.until(lambda: opener.scripts)
    return await opener.server.request(method)


async def test_a_subscription_that_does_not_exist_is_not_asked_for_again() -> None:
    opener = Scripted(modern(subscriptions_listen=unknown))
    async with running(opener, refreshInterval=0.05) as one:
        await one.log.until(lambda: len(one.log.of(CatalogRead)) >= 6)
        assert opener.server.methods().count("subscriptions/listen") == 1


async def test_a_subscription_that_is_refused_or_ended_at_once_is_asked_for_less_and_less() -> None:
    opener = Scripted(modern(subscriptions_listen=refusal(-32000)))
    async with running(opener) as one:
        times: list[float] = []
        await one.log.until(lambda: opener.scripts)
        for nth in range(1, 6):
            await opener.server.request("subscriptions/listen", nth=nth)
            times.append(asyncio.get_running_loop().time())
        pauses = [late - early for early, late in pairwise(times)]
        assert pauses[0] >= refresh.RELISTEN
        assert pauses[3] >= 8 * refresh.RELISTEN


# --- lists that are empty at first ------------------------------------------------------------------------------------


def offering(capabilities: Json) -> Answer:
    """An answer to `initialize` with these capabilities."""
    return result({**LEGACY, "capabilities": capabilities})


async def test_a_server_that_lists_nothing_at_first_and_would_not_tell_is_read_again_soon() -> None:
    opener = Scripted(legacy(initialize=offering({"tools": {}}), tools_list=tools()))
    async with running(opener) as one:
        await one.until(State.READY)
        await asyncio.sleep(1)
        opener.server.answers["tools/list"] = tools("t")
        await one.log.until(lambda: one.names() == ["t"], within=refresh.EARLY[0])


async def test_one_that_goes_on_listing_nothing_is_soon_read_as_seldom_as_others() -> None:
    opener = Scripted(legacy(initialize=offering({"tools": {}}), tools_list=tools()))
    async with running(opener) as one:
        await one.until(State.READY)
        await asyncio.sleep(sum(refresh.EARLY) + 1)
        assert opener.server.methods().count("tools/list") == 3
        await asyncio.sleep(200)
        assert opener.server.methods().count("tools/list") == 3


@pytest.mark.parametrize(
    ("capabilities", "names"),
    [({"tools": {"listChanged": True}}, ()), ({"tools": {}}, ("t",)), ({}, ()), ({"tools": {}, "prompts": {}}, ("t",))],
)
async def test_whoever_lists_something_or_tells_of_changes_is_not_read_again_soon(
    capabilities: Json, names: tuple[str, ...]
) -> None:
    opener = Scripted(legacy(initialize=offering(capabilities), tools_list=tools(*names)))
    async with running(opener) as one:
        await one.until(State.READY)
        before = len(one.log.of(CatalogRead))
        await asyncio.sleep(sum(refresh.EARLY) + 1)
        assert len(one.log.of(CatalogRead)) == before
