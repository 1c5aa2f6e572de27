"""Which era is agreed on, whatever a server answers or does not."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from mcp_multi_server.core import protocol
from mcp_multi_server.core.catalog.catalog import Kind
from mcp_multi_server.core.errors import METHOD_NOT_FOUND
from mcp_multi_server.core.lifecycle import Failure, Reason
from mcp_multi_server.core.protocol import Era

from ..scripted import GONE, LEGACY, MODERN, UNKNOWN, Answer, Json, refusal, result, silence, unknown
from .talk import Talk

pytestmark = pytest.mark.anyio


async def test_a_modern_server_is_asked_one_question() -> None:
    talk = Talk({"server/discover": result({**MODERN, "instructions": "be kind"})})
    found = await talk.agree()
    assert (found.era, found.version, found.instructions) == (Era.MODERN, "2026-07-28", "be kind")
    assert talk.server.methods() == ["server/discover"]
    assert talk.server.sent[0]["params"]["_meta"][protocol.VERSION_KEY] == protocol.MODERN_VERSION
    assert not talk.handshake.is_probing


NOT_MODERN: dict[str, Answer] = {
    "unknown method": unknown,
    "initialize first": refusal(-32600),
    "any other error": refusal(-1),
    "no modern version": result({"supportedVersions": ["2030-01-01"]}),
    "another result": result({}),
    "not an object": result([]),
    "neither": lambda request: {},
    "malformed error": lambda request: {"error": "go away"},
    "both": lambda request: {"result": 1, **UNKNOWN},
    "another version, legacy ones too": refusal(-32022, supported=["2030-01-01", "2024-11-05"]),
}


@pytest.mark.parametrize("answer", NOT_MODERN.values(), ids=NOT_MODERN)
async def test_what_is_no_modern_answer_means_legacy(answer: Answer) -> None:
    talk = Talk({"server/discover": answer, "initialize": result(LEGACY)})
    found = await talk.agree()
    assert (found.era, found.version) == (Era.LEGACY, "2025-11-25")
    assert talk.server.methods() == ["server/discover", "initialize", "notifications/initialized"]
    assert "_meta" not in talk.server.sent[1]["params"]


@pytest.mark.parametrize("data", [{"supported": ["2030-01-01"]}, {"supported": []}, {"supported": 3}, {}])
async def test_a_modern_server_of_another_version_only_is_out_of_reach(data: Json) -> None:
    talk = Talk({"server/discover": refusal(-32022, **data), "initialize": result(LEGACY)})
    failure = await talk.lost(talk.agree())
    assert (failure.reason, failure.permanent) == (Reason.PROTOCOL, True)
    assert talk.server.methods() == ["server/discover"]


async def test_a_server_that_ignores_the_probe_is_asked_to_initialize_and_both_stay_uncancelled() -> None:
    talk = Talk({"server/discover": silence, "initialize": result(LEGACY)})
    assert (await talk.agree()).era is Era.LEGACY
    assert talk.server.methods() == ["server/discover", "initialize", "notifications/initialized"]
    assert not talk.handshake.is_probing
    assert len(talk.exchange.pending) == 0


async def test_a_late_answer_to_the_probe_wins_over_none_to_initialize() -> None:
    talk = Talk({"server/discover": silence, "initialize": silence})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(talk.agree)
        initialize = await talk.server.request("initialize")
        talk.server.answer(talk.server.sent[0], result=MODERN)
    assert talk.agreed is not None
    assert talk.agreed.era is Era.MODERN
    talk.server.answer(initialize, error={"code": -32022, "message": "modern"})
    assert talk.owner.invalid == []
    assert talk.server.methods() == ["server/discover", "initialize"]


async def test_a_refused_initialize_leaves_the_late_probe_to_decide() -> None:
    talk = Talk({"server/discover": silence, "initialize": refusal(-32022)})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(talk.agree)
        await talk.server.request("initialize")
        await anyio.lowlevel.checkpoint()
        talk.server.answer(talk.server.sent[0], result=MODERN)
    assert talk.agreed is not None
    assert talk.agreed.era is Era.MODERN


async def test_a_late_refusal_of_the_probe_leaves_initialize_to_decide() -> None:
    talk = Talk({"server/discover": silence, "initialize": silence})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(talk.agree)
        initialize = await talk.server.request("initialize")
        talk.server.answer(talk.server.sent[0], **UNKNOWN)
        await anyio.lowlevel.checkpoint()
        talk.server.answer(initialize, result=LEGACY)
    assert talk.agreed is not None
    assert talk.agreed.era is Era.LEGACY


async def test_two_refusals_are_a_failure_that_may_pass() -> None:
    talk = Talk({"server/discover": silence, "initialize": refusal(-32000)})

    async def refuse_late() -> None:
        await talk.server.request("initialize")
        await anyio.lowlevel.checkpoint()
        talk.server.answer(talk.server.sent[0], **UNKNOWN)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(refuse_late)
        failure = await talk.lost(talk.agree())
    assert failure == Failure(Reason.PROTOCOL, "refused initialize: error -32000")


async def test_a_forced_legacy_server_is_never_probed() -> None:
    talk = Talk({"initialize": result({**LEGACY, "protocolVersion": "2024-11-05"})})
    assert (await talk.agree(Era.LEGACY)).version == "2024-11-05"
    assert talk.server.methods() == ["initialize", "notifications/initialized"]


async def test_a_forced_modern_server_is_never_initialized() -> None:
    talk = Talk({"server/discover": result(MODERN)})
    assert (await talk.agree(Era.MODERN)).era is Era.MODERN
    assert talk.server.methods() == ["server/discover"]


@pytest.mark.parametrize("answer", NOT_MODERN.values(), ids=NOT_MODERN)
async def test_a_forced_modern_server_that_is_none_fails_with_a_reason(answer: Answer) -> None:
    talk = Talk({"server/discover": answer, "initialize": result(LEGACY)})
    failure = await talk.lost(talk.agree(Era.MODERN))
    assert failure.reason is Reason.PROTOCOL
    assert "initialize" not in talk.server.methods()


@pytest.mark.parametrize(
    "body",
    [
        {**LEGACY, "protocolVersion": "1999-01-01"},
        {**LEGACY, "protocolVersion": 7},
        {**LEGACY, "protocolVersion": ["2025-11-25"]},
        {**LEGACY, "protocolVersion": None},
        {**LEGACY, "protocolVersion": "2026-07-28"},
        {},
    ],
)
async def test_an_unusable_protocol_version_is_permanent(body: Json) -> None:
    talk = Talk({"server/discover": unknown, "initialize": result(body)})
    failure = await talk.lost(talk.agree())
    assert (failure.reason, failure.permanent) == (Reason.PROTOCOL, True)
    assert "notifications/initialized" not in talk.server.methods()


@pytest.mark.parametrize("capabilities", [None, [], "tools", {"tools": None, "prompts": True, "resources": []}])
async def test_capabilities_of_the_wrong_shape_are_none(capabilities: Any) -> None:
    talk = Talk({"initialize": result({**LEGACY, "capabilities": capabilities, "instructions": 3})})
    found = await talk.agree(Era.LEGACY)
    assert not any(found.has(kind.capability) for kind in Kind)
    assert found.instructions == ""


@pytest.mark.parametrize("at", ["server/discover", "initialize"])
async def test_the_end_of_the_transport_ends_the_handshake(at: str) -> None:
    talk = Talk({"server/discover": silence, "initialize": silence})

    async def die() -> None:
        await talk.server.request(at)
        talk.server.die()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(die)
        assert await talk.lost(talk.agree()) is GONE
    assert talk.handshake.is_probing
    assert talk.agreed is None


async def test_a_cancelled_handshake_leaves_no_task_and_no_row() -> None:
    talk = Talk({"server/discover": silence, "initialize": silence})
    before = asyncio.all_tasks()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(talk.agree)
            await talk.server.request("initialize")
            scope.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert len(talk.exchange.pending) == 0


# --- what a server says before anything is agreed --------------------------------------------------------------------


async def test_a_ping_is_answered_and_any_other_request_refused_before_the_session_is_agreed() -> None:
    talk = Talk()
    for id in (7, "a"):
        talk.server.say({"jsonrpc": "2.0", "id": id, "method": "ping"})
        talk.server.say({"jsonrpc": "2.0", "id": id, "method": "sampling/createMessage", "params": {"x": 1}})
    assert [message["id"] for message in talk.server.sent] == [7, 7, "a", "a"]
    assert [message.get("result") for message in talk.server.sent] == [{}, None, {}, None]
    assert talk.server.sent[1]["error"]["code"] == METHOD_NOT_FOUND


async def test_a_server_that_asks_as_soon_as_it_hears_of_the_session_asks_the_session() -> None:
    talk = Talk({"initialize": result(LEGACY)})
    send = talk.server.send

    def ask_at_once(parts: Any) -> None:
        send(parts)
        if talk.server.methods()[-1] == "notifications/initialized":
            talk.server.say({"jsonrpc": "2.0", "method": "notifications/message", "params": {}})

    talk.server.send = ask_at_once  # type: ignore[method-assign]
    await talk.agree(Era.LEGACY)
    assert talk.owner.heard == ["notifications/message"]
