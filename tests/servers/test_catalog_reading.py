"""Every page of every list, and lists that are broken or have no end."""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio
import pytest

from mcp_multi_server.core import protocol
from mcp_multi_server.core.catalog.catalog import Kind
from mcp_multi_server.core.lifecycle import Failure, Reason
from mcp_multi_server.core.protocol import Era
from mcp_multi_server.servers import catalog_reading as module
from mcp_multi_server.servers.catalog_reading import announced, read_catalog, read_lists

from ..scripted import EVERYTHING, SOON, UNKNOWN, Answer, Json, item, paged, refusal, result, silence, tools, unknown
from .talk import Agreed

pytestmark = pytest.mark.anyio


async def test_every_page_of_every_list_is_read() -> None:
    answers = {kind.list_method: paged(kind.member, kind.key, 3) for kind in Kind}
    talk = Agreed(answers, Era.LEGACY, **EVERYTHING)
    catalog = await read_catalog(talk.session, timeout=SOON)
    for kind in Kind:
        assert [item.name for item in catalog.items[kind]] == [
            f"{kind.member}-{p}-{n}" for p in range(3) for n in (0, 1)
        ]
    assert talk.server.methods()[:4] == [kind.list_method for kind in Kind], "side by side"
    asked = [message["params"] for message in talk.server.sent if message["method"] == "tools/list"]
    assert asked == [{}, {"cursor": ""}, {"cursor": "x"}]


async def test_modern_list_requests_carry_the_envelope() -> None:
    talk = Agreed({"tools/list": paged("tools", "name", 2)}, Era.MODERN, tools={})
    await read_catalog(talk.session, timeout=SOON)
    envelopes = [message["params"]["_meta"][protocol.VERSION_KEY] for message in talk.server.sent]
    assert envelopes == [protocol.MODERN_VERSION] * 2


async def test_only_what_the_server_offers_is_asked_for() -> None:
    talk = Agreed({"prompts/list": result({"prompts": [item("p")]})}, Era.LEGACY, prompts={}, tools=True)
    catalog = await read_catalog(talk.session, timeout=SOON)
    assert talk.server.methods() == ["prompts/list"]
    assert [catalog.count(kind) for kind in Kind] == [0, 1, 0, 0]


async def test_a_list_that_does_not_exist_is_empty() -> None:
    talk = Agreed({"resources/list": result({"resources": [item("a:b", "uri")]})}, Era.LEGACY, resources={})
    catalog = await read_catalog(talk.session, timeout=SOON)
    assert (catalog.count(Kind.RESOURCE), catalog.count(Kind.TEMPLATE)) == (1, 0)


async def test_a_second_page_that_does_not_exist_is_a_failure() -> None:
    talk = Agreed({"tools/list": then(UNKNOWN)}, Era.LEGACY, tools={})
    failure = await talk.lost(read_catalog(talk.session, timeout=SOON))
    assert failure == Failure(Reason.PROTOCOL, "tools/list failed: error -32601")


def then(second: Json) -> Answer:
    """A list whose first page has one item, and whose second is this."""

    def answer(request: Json) -> Json:
        return second if "cursor" in request["params"] else {"result": {"tools": [item("first")], "nextCursor": "x"}}

    return answer


BROKEN: dict[str, tuple[Answer, str]] = {
    "an error": (refusal(-32603), "prompts/list failed: error -32603"),
    "another key": (result({"items": []}), "prompts/list cannot be read: the result of prompts/list has no prompts"),
    "no list": (
        result({"prompts": {}}),
        "prompts/list cannot be read: prompts in the result of prompts/list is no list",
    ),
    "no result": (lambda request: {"result": None}, "sent a result that is not an object"),
    "silence": (silence, "prompts/list was not answered in time"),
}


@pytest.mark.parametrize(("answer", "gap"), BROKEN.values(), ids=BROKEN)
async def test_a_list_that_cannot_be_read_costs_no_other(answer: Answer, gap: str) -> None:
    talk = Agreed({"tools/list": tools("t"), "prompts/list": answer}, Era.LEGACY, tools={}, prompts={})
    reading = await read_lists(talk.session, announced(talk.session), timeout=0.1)
    assert reading.failure is None
    assert [each.name for each in reading.lists[Kind.TOOL].items] == ["t"]
    assert (reading.lists[Kind.TOOL].gap, reading.lists[Kind.PROMPT].gap) == ("", gap)
    assert talk.session.loss is None


async def test_where_no_list_can_be_read_the_first_failure_is_the_reason() -> None:
    answers = {"tools/list": refusal(-32603), "prompts/list": silence, "resources/list": unknown}
    talk = Agreed(answers, Era.LEGACY, tools={}, prompts={}, resources={})
    reading = await read_lists(talk.session, announced(talk.session), timeout=0.05)
    assert reading.failure == Failure(Reason.PROTOCOL, "tools/list failed: error -32603")


async def test_the_pages_before_a_broken_one_are_kept() -> None:
    talk = Agreed({"tools/list": then({"error": {"code": -32603, "message": "m"}})}, Era.LEGACY, tools={})
    reading = await read_lists(talk.session, [Kind.TOOL], timeout=SOON)
    found = reading.lists[Kind.TOOL]
    assert [each.name for each in found.items] == ["first"]
    assert found.gap == "tools/list failed: error -32603; what came before that is listed (1 page)"
    assert reading.failure is None


async def test_a_silent_list_is_given_up_as_soon_as_another_was_read() -> None:
    talk = Agreed({"tools/list": tools("t"), "prompts/list": silence}, Era.LEGACY, tools={}, prompts={})
    with anyio.fail_after(SOON):
        reading = await read_lists(talk.session, announced(talk.session), timeout=600, patience=0.05)
    assert reading.lists[Kind.PROMPT].gap == "prompts/list was not answered in time"
    assert talk.server.methods()[-1] == "notifications/cancelled"


async def test_a_list_that_came_meanwhile_is_not_given_up_with_a_silent_one() -> None:
    answers = {"tools/list": tools("t"), "prompts/list": silence, "resources/list": silence}
    talk = Agreed(answers, Era.LEGACY, tools={}, prompts={}, resources={})

    async def answer_late() -> None:
        request = await talk.server.request("resources/list")
        await anyio.sleep(0.02)
        talk.server.answer(request, result={"resources": [item("a:b", "uri")]})

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer_late)
        with anyio.fail_after(SOON):
            reading = await read_lists(talk.session, announced(talk.session), timeout=600, patience=0.05)
    assert [kind for kind, found in reading.lists.items() if found.gap] == [Kind.PROMPT]


async def test_several_silent_lists_are_given_up_one_by_one_or_together() -> None:
    answers = {"tools/list": tools("t"), "prompts/list": silence, "resources/list": then_silence}
    talk = Agreed(answers, Era.LEGACY, tools={}, prompts={}, resources={})
    with anyio.fail_after(SOON):
        reading = await read_lists(talk.session, announced(talk.session), timeout=600, patience=0.05)
    gaps = [kind for kind, found in reading.lists.items() if found.gap]
    assert gaps == [Kind.PROMPT, Kind.RESOURCE]
    assert len(reading.lists[Kind.RESOURCE].items) == 1


def then_silence(request: Json) -> Json | None:
    """A list whose second page never comes."""
    if "cursor" in request["params"]:
        return None
    return {"result": {"resources": [item("a:b", "uri")], "nextCursor": "x"}}


async def test_while_nothing_was_read_nothing_is_given_up() -> None:
    talk = Agreed({"tools/list": silence, "prompts/list": silence}, Era.LEGACY, tools={}, prompts={})
    with anyio.move_on_after(0.2) as waited:
        await read_lists(talk.session, announced(talk.session), timeout=600, patience=0.02)
    assert waited.cancelled_caught


async def test_the_end_of_the_session_ends_the_reading() -> None:
    talk = Agreed({"tools/list": silence, "prompts/list": silence}, Era.LEGACY, tools={}, prompts={})
    gone = Failure(Reason.CLOSED, "gone")

    async def end() -> None:
        await talk.server.request("prompts/list")
        talk.session.end(gone)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end)
        assert await talk.lost(read_lists(talk.session, announced(talk.session), timeout=600)) == gone


ROUND: dict[str, tuple[Callable[[str], str], int, str]] = {
    "one cursor": (lambda cursor: "again", 2, "was the same again"),
    "the empty one": (lambda cursor: "", 2, "was the same again"),
    "two in turn": (lambda cursor: "b" if cursor == "a" else "a", 3, "was the same again"),
}


@pytest.mark.parametrize(("following", "asked", "note"), ROUND.values(), ids=ROUND)
async def test_a_list_that_goes_round_ends_with_what_was_read(
    following: Callable[[str], str], asked: int, note: str
) -> None:
    count = iter(range(1000))

    def answer(request: Json) -> Json:
        cursor = following(request["params"].get("cursor", ""))
        return {"result": {"tools": [item(f"t{next(count)}")], "nextCursor": cursor}}

    talk = Agreed({"tools/list": answer}, Era.LEGACY, tools={})
    found = (await read_lists(talk.session, [Kind.TOOL], timeout=SOON)).lists[Kind.TOOL]
    assert (len(found.items), found.gap, len(talk.server.sent)) == (asked, "", asked)
    assert [note in problem.message for problem in found.problems] == [True]


async def test_a_list_with_ever_new_cursors_is_a_gap_after_what_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAGES", 50)

    def answer(request: Json) -> Json:
        page = int(request["params"].get("cursor", "0"))
        return {"result": {"tools": [item(f"t{page}")], "nextCursor": str(page + 1)}}

    talk = Agreed({"tools/list": answer}, Era.LEGACY, tools={})
    found = (await read_lists(talk.session, [Kind.TOOL], timeout=SOON)).lists[Kind.TOOL]
    assert (len(found.items), len(talk.server.sent)) == (50, 50)
    assert found.gap == "tools/list has no end: it was read up to page 50; what came before that is listed (50 pages)"
    whole = Agreed({"tools/list": tools("work")}, Era.LEGACY, tools={})
    before = (await read_lists(whole.session, [Kind.TOOL], timeout=SOON)).lists[Kind.TOOL]
    assert [each.name for each in found.after(before).items] == ["work"], "what was whole before stays"


@pytest.mark.parametrize("cursor", ["", "more"])
async def test_a_server_that_answers_every_cursor_with_its_first_page_lists_it_once(cursor: str) -> None:
    talk = Agreed({"tools/list": tools("a", "b", nextCursor=cursor)}, Era.LEGACY, tools={})
    found = (await read_lists(talk.session, [Kind.TOOL], timeout=SOON)).lists[Kind.TOOL]
    assert [each.name for each in found.items] == ["a", "b"]
    assert [problem.message for problem in found.problems] == [
        "nextCursor leads back to a page before: the list ends there"
    ]


async def test_a_list_that_does_not_come_is_cancelled_after_its_timeout() -> None:
    talk = Agreed({"tools/list": silence}, Era.LEGACY, tools={})
    with anyio.fail_after(SOON), pytest.raises(TimeoutError):
        await read_catalog(talk.session, timeout=0.05)
    assert talk.server.methods() == ["tools/list", "notifications/cancelled"]
    assert talk.server.sent[1]["params"]["requestId"] == talk.server.sent[0]["id"]
    assert len(talk.session.pending) == 0


@pytest.mark.parametrize("method", ["server/discover", "initialize"])
async def test_neither_probe_nor_initialize_is_ever_cancelled(method: str) -> None:
    talk = Agreed({method: silence}, Era.MODERN)
    with anyio.fail_after(SOON), pytest.raises(TimeoutError):
        await talk.session.ask(method, {}, timeout=0.05)
    with anyio.move_on_after(0.05):
        await talk.session.ask(method, {}, timeout=math.inf)
    assert talk.server.methods() == [method] * 2
    assert len(talk.session.pending) == 0


async def test_a_question_that_its_task_gives_up_is_cancelled_with_the_era_s_envelope() -> None:
    talk = Agreed({"tools/list": silence}, Era.MODERN)
    with anyio.move_on_after(0.05):
        await talk.session.ask("tools/list", {}, timeout=math.inf)
    cancelled = talk.server.sent[1]
    assert cancelled["method"] == "notifications/cancelled"
    assert cancelled["params"]["requestId"] == talk.server.sent[0]["id"]
    assert protocol.VERSION_KEY in cancelled["params"]["_meta"]
