"""How long a call may take: what its client asks for, what the entry says, and what becomes of the server then."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mcp_multi_server.core.errors import INTERNAL_ERROR, INVALID_PARAMS
from mcp_multi_server.core.lifecycle import State
from tests.fixtures.fixture import member

from ..client import ENVELOPE, Message
from ..fleet import Script, fleet

pytestmark = pytest.mark.anyio

KEY = "mcp-multi-server/timeout"
EXACT = '{"z":123456789012345678901234567890,"a":1.0,"s":"\\u00e9\\/"}'
REQUESTS: dict[str, Message] = {
    "tools/call": {"name": "echo"},
    "prompts/get": {"name": "greet"},
    "resources/read": {"uri": "note://one"},
    "completion/complete": {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {}},
}


def script(*, era: str = "legacy", **entry: Any) -> Script:
    """A server that answers none of the four."""
    made = Script("one", era=era, prompts=["greet"], resources=["note://one"], entry=entry)
    made.replies |= dict.fromkeys(REQUESTS, None)
    return made


def limited(method: str, seconds: object) -> Message:
    return {**REQUESTS[method], "_meta": {KEY: seconds}}


@pytest.mark.parametrize("method", REQUESTS)
async def test_a_client_may_give_a_call_less_time_than_its_server(method: str) -> None:
    server = script(timeout=60)
    async with fleet(server) as running:
        client = await running.legacy()
        error = await client.error(method, limited(method, 0.1))
        assert (error["code"], error["data"]["reason"]) == (INTERNAL_ERROR, "timeout")
        assert "did not answer within 0.1" in error["message"]
        assert await server.got("notifications/cancelled")
        assert error["data"]["state"] == "ready", "that one client is in a hurry is no fault of the server"


@pytest.mark.parametrize("method", REQUESTS)
async def test_a_client_may_give_a_call_more_time_than_its_server(method: str) -> None:
    server = script(timeout=0.1)
    async with fleet(server) as running:
        impatient, patient = await running.legacy(), await running.legacy()
        await patient.post(method, limited(method, 30))
        await server.got(method)
        await impatient.error(method, REQUESTS[method])
        server.answer(member(server.of(method)[0], "id"), result='{"x":1}')
        assert member(await patient.answer_line(), "result") == '{"x":1}'


@pytest.mark.parametrize("seconds", [0, -1, "9", None, True, [], {}, "soon"])
async def test_what_is_no_number_of_seconds_is_refused_with_its_field(seconds: object) -> None:
    server = script()
    async with fleet(server) as running:
        client = await running.legacy()
        error = await client.error("tools/call", limited("tools/call", seconds))
        assert error["code"] == INVALID_PARAMS
        assert KEY in error["message"]
        assert not server.of("tools/call")


@pytest.mark.parametrize("seconds", ["1e999", "-0.0", "9" * 5000, "1e-999"])
async def test_a_number_that_is_no_time_is_refused_too(seconds: str) -> None:
    async with fleet(script()) as running:
        client = await running.legacy()
        error = await client.error("tools/call", f'{{"name":"echo","_meta":{{"{KEY}":{seconds}}}}}')
        assert (error["code"], KEY in error["message"]) == (INVALID_PARAMS, True)


@pytest.mark.parametrize("seconds", ["1e300", "5", "0.5e1"])
async def test_any_number_greater_than_nothing_is_a_time(seconds: str) -> None:
    server = Script("one")
    async with fleet(server) as running:
        client = await running.legacy()
        await client.result("tools/call", f'{{"name":"echo","_meta":{{"{KEY}":{seconds}}}}}')


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_the_server_is_not_told_of_it_and_gets_everything_else_as_it_came(era: str) -> None:
    server = Script("one", era=era)
    async with fleet(server) as running:
        client = await running.of_era(era)
        meta = {**(ENVELOPE if era == "modern" else {}), "x": 1}
        for given in ({}, {KEY: 30}):
            written = json.dumps({**meta, **given}, separators=(",", ":"))
            await client.result("tools/call", f'{{"arguments":{EXACT},"name":"echo","_meta":{written}}}')
        plain, limited = (member(line, "params") for line in server.of("tools/call"))
        assert limited == plain


async def test_where_nothing_else_is_in_it_the_whole_meta_is_left_out() -> None:
    server = Script("one")
    async with fleet(server) as running:
        client = await running.legacy()
        await client.result("tools/call", f'{{"arguments":{EXACT},"name":"echo","_meta":{{"{KEY}":9}}}}')
        assert member(server.of("tools/call")[0], "params") == f'{{"arguments":{EXACT},"name":"echo"}}'


async def test_a_call_that_is_held_has_no_more_time_than_its_client_gives_it() -> None:
    server = script()
    async with fleet(server, daemon={"hold": 60}) as running:
        client = await running.legacy()
        server.away = True
        server.die()
        error = await client.error("tools/call", limited("tools/call", 0.1))
        assert error["data"]["state"] in ("connecting", "backoff")


async def test_progress_renews_what_the_client_gave() -> None:
    server = script(timeout=60)
    async with fleet(server) as running:
        client, loop = await running.legacy(), asyncio.get_running_loop()
        seconds = 0.4
        meta = {KEY: seconds, "progressToken": "t"}
        await client.post("tools/call", {"name": "echo", "_meta": meta})
        token = json.loads(await server.got("tools/call"))["params"]["_meta"]["progressToken"]
        started = loop.time()
        while loop.time() - started < 2 * seconds:
            server.report(str(token))
            await asyncio.sleep(seconds / 10)  # the pace of the server, not a wait for anything
        error = json.loads(await client.answer_line())["error"]
        assert error["data"]["reason"] == "timeout"
        assert 2 * seconds <= loop.time() - started < 30


async def test_a_server_whose_call_is_late_is_degraded_for_being_busy_and_its_status_says_so() -> None:
    server = script(timeout=0.1)
    server.replies["ping"] = None
    async with fleet(server) as running:
        client = await running.legacy()
        error = await client.error("tools/call", REQUESTS["tools/call"])
        assert error["data"]["state"] == "degraded"
        (row,) = (await client.result("daemon/status"))["servers"]
        assert row["state"] == "degraded"
        assert row["reason"].startswith("busy: ")
        server.answer(member(server.of("tools/call")[0], "id"), result="{}")
        await running.state("one", State.READY)
        (row,) = (await client.result("daemon/status"))["servers"]
        assert (row["state"], row["reason"], server.opened) == ("ready", None, 1)
