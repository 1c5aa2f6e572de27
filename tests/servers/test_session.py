"""What a server says of its own accord, once a session is agreed."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_multi_server.core.catalog.catalog import Kind
from mcp_multi_server.core.errors import METHOD_NOT_FOUND
from mcp_multi_server.core.protocol import Era

from ..scripted import Json, silence
from .talk import Agreed, Talk

pytestmark = pytest.mark.anyio


async def test_a_legacy_server_is_answered() -> None:
    talk = Agreed({}, Era.LEGACY)
    for id in (7, "a"):
        talk.server.say({"jsonrpc": "2.0", "id": id, "method": "ping"})
        talk.server.say({"jsonrpc": "2.0", "id": id, "method": "sampling/createMessage", "params": {"x": 1}})
    assert [message["id"] for message in talk.server.sent] == [7, 7, "a", "a"]
    assert [message.get("result") for message in talk.server.sent] == [{}, None, {}, None]
    assert talk.server.sent[1]["error"]["code"] == METHOD_NOT_FOUND


async def test_a_modern_server_must_not_ask_and_gets_no_answer() -> None:
    talk = Agreed({}, Era.MODERN)
    for method in ("ping", "roots/list", "elicitation/create"):
        talk.server.say({"jsonrpc": "2.0", "id": 1, "method": method})
    assert talk.server.sent == []


async def test_progress_reaches_the_call_whose_token_it_carries() -> None:
    talk = Talk({"tools/call": silence})
    (one, first), (two, second) = talk.call(), talk.call()

    def progress(token: Any) -> Json:
        return {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}}

    talk.server.say(progress(second["id"]))
    strays: list[Any] = [999, "999", "", None, 1.5, {}, -1, [first["id"]]]
    for stray in strays:
        talk.server.say(progress(stray))
    talk.server.say(b'{"jsonrpc":"2.0","method":"notifications/progress"}')
    talk.server.say(
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%b}}' % (b"9" * 5000)
    )
    assert (len(one.reported), len(two.reported)) == (0, 1)
    assert two.reported[0].keys() == {"progressToken", "progress"}
    assert talk.exchange.loss is None


@pytest.mark.parametrize("form", [str, float])
async def test_a_token_that_comes_back_as_another_type_is_understood_and_told_of_once(form: type) -> None:
    talk = Talk({"tools/call": silence})
    call, request = talk.call()
    for _ in range(2):
        params = {"progressToken": form(request["id"]), "progress": 1}
        talk.server.say({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
    assert len(call.reported) == 2
    assert all("with an id of another type than was sent" in what for what in talk.owner.peculiarities)
    assert talk.owner.invalid == []


async def test_progress_after_the_answer_reaches_nobody() -> None:
    talk = Talk({"tools/call": silence})
    call, request = talk.call()
    talk.server.answer(request, result={})
    talk.server.say({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": request["id"]}})
    assert call.reported == []


async def test_a_changed_list_is_told_by_its_kind_and_other_news_are_dropped() -> None:
    talk = Agreed({}, Era.LEGACY)
    for method in ("tools/list_changed", "resources/list_changed", "message", "cancelled", "none/such"):
        talk.server.say({"jsonrpc": "2.0", "method": f"notifications/{method}", "params": {}})
    assert talk.owner.changed == [Kind.TOOL, Kind.RESOURCE, Kind.TEMPLATE]
    assert talk.owner.invalid == []


async def test_a_log_level_is_told_once_and_to_legacy_servers_that_log() -> None:
    logs: Json = {"logging": {}}
    told = ["logging/setLevel"]
    for era, capabilities, expected in ((Era.LEGACY, logs, told * 2), (Era.LEGACY, Json(), []), (Era.MODERN, logs, [])):
        talk = Agreed({"logging/setLevel": silence}, era, **capabilities)
        for level in ("info", "info", "debug"):
            talk.session.set_log_level(level)
        assert talk.server.methods() == expected
        for request in talk.server.sent:
            talk.server.answer(request, result={})
        assert talk.owner.invalid == []
