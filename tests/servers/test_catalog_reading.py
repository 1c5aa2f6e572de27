"""Every page of every list, and lists that are broken or have no end."""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio
import pytest

from mcp_multi_server.core import protocol
from mcp_multi_server.core.catalog import Kind
from mcp_multi_server.core.lifecycle import Failure, Reason
from mcp_multi_server.core.protocol import Era
from mcp_multi_server.servers import catalog_reading as module
from mcp_multi_server.servers.catalog_reading import read_catalog

from ..scripted import EVERYTHING, SOON, UNKNOWN, Json, paged, result, silence
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
    assert talk.server.methods() == [kind.list_method for kind in Kind for _ in range(3)]
    assert [message["params"] for message in talk.server.sent[:3]] == [{}, {"cursor": ""}, {"cursor": "x"}]


async def test_modern_list_requests_carry_the_envelope() -> None:
    talk = Agreed({"tools/list": paged("tools", "name", 2)}, Era.MODERN, tools={})
    await read_catalog(talk.session, timeout=SOON)
    envelopes = [message["params"]["_meta"][protocol.VERSION_KEY] for message in talk.server.sent]
    assert envelopes == [protocol.MODERN_VERSION] * 2


async def test_only_what_the_server_offers_is_asked_for() -> None:
    talk = Agreed({"prompts/list": result({"prompts": [{"name": "p"}]})}, Era.LEGACY, prompts={}, tools=True)
    catalog = await read_catalog(talk.session, timeout=SOON)
    assert talk.server.methods() == ["prompts/list"]
    assert [catalog.count(kind) for kind in Kind] == [0, 1, 0, 0]


async def test_a_list_that_does_not_exist_is_empty() -> None:
    talk = Agreed({"resources/list": result({"resources": [{"uri": "a:b"}]})}, Era.LEGACY, resources={})
    catalog = await read_catalog(talk.session, timeout=SOON)
    assert (catalog.count(Kind.RESOURCE), catalog.count(Kind.TEMPLATE)) == (1, 0)


async def test_a_second_page_that_does_not_exist_is_a_failure() -> None:
    def answer(request: Json) -> Json:
        return UNKNOWN if "cursor" in request["params"] else {"result": {"tools": [], "nextCursor": "x"}}

    talk = Agreed({"tools/list": answer}, Era.LEGACY, tools={})
    failure = await talk.lost(read_catalog(talk.session, timeout=SOON))
    assert failure == Failure(Reason.PROTOCOL, "tools/list failed: error -32601")


ENDLESS: dict[str, tuple[Callable[[str], str], int]] = {
    "one cursor": (lambda cursor: "again", 2),
    "two in turn": (lambda cursor: "b" if cursor == "a" else "a", 3),
    "ever new ones": (lambda cursor: cursor + "x", 50),
}


@pytest.mark.parametrize(("following", "asked"), ENDLESS.values(), ids=ENDLESS)
async def test_a_list_without_end_is_left(
    following: Callable[[str], str], asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PAGES", 50)

    def answer(request: Json) -> Json:
        return {"result": {"tools": [], "nextCursor": following(request["params"].get("cursor", ""))}}

    talk = Agreed({"tools/list": answer}, Era.LEGACY, tools={})
    failure = await talk.lost(read_catalog(talk.session, timeout=SOON))
    assert failure == Failure(Reason.PROTOCOL, f"tools/list has no end: stopped after {asked} pages")
    assert len(talk.server.sent) == asked
    assert talk.session.loss is None


@pytest.mark.parametrize("body", [{}, {"tools": "none"}, {"tools": [], "nextCursor": 7}, {"tools": {}}])
async def test_a_list_that_cannot_be_read_is_a_failure_of_the_protocol(body: Json) -> None:
    talk = Agreed({"tools/list": result(body)}, Era.LEGACY, tools={})
    assert (await talk.lost(read_catalog(talk.session, timeout=SOON))).reason is Reason.PROTOCOL


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
