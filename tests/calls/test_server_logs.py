"""Log messages of servers: who gets them, and what servers are told of that."""

from __future__ import annotations

import json

import pytest

from mcp_multi_server.core.errors import INVALID_PARAMS
from mcp_multi_server.core.events import ClientGone, RequestDone
from mcp_multi_server.core.lifecycle import State
from tests.fixtures.fixture import META, member

from ..client import Client, Message
from ..fleet import Script, fleet

pytestmark = pytest.mark.anyio

CALL: Message = {"name": "echo"}
LOG_LEVEL = META + "logLevel"
EXACT = '{"z":123456789012345678901234567890,"a":1.0}'


def logging(name: str = "one", **options: object) -> Script:
    """A server that logs, and whose tools are answered by the test alone."""
    script = Script(name, logs=True, **options)  # type: ignore[arg-type]  # passed on as they are
    script.replies["tools/call"] = None
    return script


def log(server: Script, level: str, data: str = '"x"') -> None:
    server.tell("notifications/message", f'{{"level":"{level}","logger":"l","data":{data}}}')


def levels_told(server: Script) -> list[str]:
    return [json.loads(line)["params"]["level"] for line in server.of("logging/setLevel")]


async def calling(client: Client, server: Script, meta: Message | None = None, *, id: int = 1, number: int = 1) -> str:
    await client.post("tools/call", CALL | ({"_meta": meta} if meta else {}), id=id)
    return member(await server.got("tools/call", number=number), "id")


async def heard(client: Client) -> list[str]:
    """The levels of the messages that it got by now."""
    found = [told for told in await client.settled() if told["method"] == "notifications/message"]
    return [message["params"]["level"] for message in found]


async def test_servers_that_log_are_told_the_lowest_level_that_a_client_wants() -> None:
    one, silent, modern = logging(), Script("two"), logging("three", era="modern")
    async with fleet(one, silent, modern) as running:
        client, other = await running.legacy(), await running.legacy()
        assert await client.result("logging/setLevel", {"level": "error"}) == {}
        assert await other.result("logging/setLevel", {"level": "notice"}) == {}
        await client.result("logging/setLevel", {"level": "critical"})
        await one.got("logging/setLevel", number=2)
        await client.result("logging/setLevel", {"level": "debug"})
        await client.result("logging/setLevel", {"level": "debug"})
        other.close()
        await running.event(ClientGone)
        await client.result("logging/setLevel", {"level": "alert"})
        assert levels_told(one) == ["error", "notice", "debug", "alert"]
        assert levels_told(silent) == levels_told(modern) == []


async def test_when_who_wanted_most_is_gone_the_level_rises() -> None:
    server = logging()
    async with fleet(server) as running:
        client, other = await running.legacy(), await running.legacy()
        await client.result("logging/setLevel", {"level": "error"})
        await other.result("logging/setLevel", {"level": "debug"})
        other.close()
        await server.got("logging/setLevel", number=3)
        assert levels_told(server) == ["error", "debug", "error"]


async def test_a_new_connection_is_told_once() -> None:
    server = logging()
    async with fleet(server) as running:
        client = await running.legacy()
        await client.result("logging/setLevel", {"level": "info"})
        await server.got("logging/setLevel")
        server.die()
        await running.until(lambda: server.opened == 2 or None)
        await running.state("one", State.READY)
        assert levels_told(server) == ["info", "info"]
        assert server.lines.index(server.of("logging/setLevel")[1]) > server.lines.index(server.of("tools/list")[1])


@pytest.mark.parametrize("answer", [None, "7"])
async def test_a_server_that_does_not_take_the_level_goes_on_all_the_same(answer: str | None) -> None:
    server = logging()
    server.replies["logging/setLevel"] = answer
    async with fleet(server) as running:
        client = await running.legacy()
        await client.result("logging/setLevel", {"level": "info"})
        sent = await server.got("logging/setLevel")
        if answer is None:
            server.answer(member(sent, "id"), error='{"code":-32601,"message":"no"}')
        server.answer(await calling(client, server), result="{}")
        await client.answer_line()
        assert (await running.state("one", State.READY)).restarts == 0


@pytest.mark.parametrize("level", [None, "loud", 3, ["info"]])
async def test_a_level_that_is_none_is_refused(level: object) -> None:
    server = logging()
    async with fleet(server) as running:
        legacy, modern = await running.legacy(), await running.client(modern=True)
        params = {} if level is None else {"level": level}
        assert (await legacy.error("logging/setLevel", params))["code"] == INVALID_PARAMS
        if level is not None:
            error = await modern.error("tools/call", CALL | {"_meta": {LOG_LEVEL: level}})
            assert (error["code"], LOG_LEVEL in error["message"]) == (INVALID_PARAMS, True)
        assert levels_told(server) == []
        assert not server.of("tools/call")


async def test_legacy_clients_get_messages_from_their_level_on() -> None:
    server = logging()
    async with fleet(server) as running:
        await running.rested()
        much, little, nothing = [await running.legacy() for _ in range(3)]
        await much.result("logging/setLevel", {"level": "debug"})
        await little.result("logging/setLevel", {"level": "error"})
        for level in ("debug", "warning", "error", "loud"):
            log(server, level)
        assert await heard(much) == ["debug", "warning", "error", "loud"]
        assert await heard(little) == ["error", "loud"]
        assert await heard(nothing) == []


async def test_a_message_keeps_its_bytes_and_says_whose_it_is() -> None:
    server = logging()
    async with fleet(server) as running:
        client = await (await running.rested()).legacy()
        await client.result("logging/setLevel", {"level": "debug"})
        log(server, "info", EXACT)
        line = (await client.line()).decode()
        assert member(line, "params", "data") == EXACT
        assert json.loads(line)["params"]["_meta"] == {"serverName": "one"}


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_modern_clients_get_messages_while_a_call_that_wants_them_runs_there(era: str) -> None:
    server, elsewhere = logging(era=era), Script("two", tools=["other"])
    elsewhere.replies["tools/call"] = None
    async with fleet(server, elsewhere) as running:
        await running.rested()
        wants, calls, waits = [await running.client(modern=True) for _ in range(3)]
        log(server, "emergency")
        call = await calling(wants, server, {LOG_LEVEL: "warning"})
        await calling(calls, server, number=2)
        await waits.post("tools/call", {"name": "other", "_meta": {LOG_LEVEL: "debug"}})
        await elsewhere.got("tools/call")
        log(server, "info")
        log(server, "error")
        assert await heard(wants) == ["error"]
        server.answer(call, result="{}")
        await wants.answer_line()
        log(server, "error")
        assert await heard(wants) == await heard(calls) == await heard(waits) == []


async def test_one_message_comes_once_to_a_client_with_several_calls() -> None:
    server = logging()
    async with fleet(server) as running:
        client = await (await running.rested()).client(modern=True)
        for id in (1, 2):
            await calling(client, server, {LOG_LEVEL: "info"}, id=id, number=id)
        log(server, "error")
        assert await heard(client) == ["error"]


async def test_a_legacy_server_is_told_what_calls_of_modern_clients_want() -> None:
    server = logging()
    async with fleet(server) as running:
        client = await running.client(modern=True)
        for number, level in enumerate(("error", "warning", "alert", "warning"), 1):
            await calling(client, server, {LOG_LEVEL: level}, id=number, number=number)
        assert levels_told(server) == ["error", "warning"], "and stays at the lowest so far"


async def test_a_modern_server_is_told_with_each_call_of_a_legacy_client() -> None:
    server = logging(era="modern")
    async with fleet(server) as running:
        client = await (await running.rested()).legacy()
        await calling(client, server)
        await client.result("logging/setLevel", {"level": "notice"}, id=2)
        await calling(client, server, id=3, number=2)
        without, with_level = (json.loads(line)["params"]["_meta"] for line in server.of("tools/call"))
        assert LOG_LEVEL not in without
        assert with_level[LOG_LEVEL] == "notice"


async def test_a_modern_servers_message_is_none_of_the_business_of_clients_without_a_call_there() -> None:
    server = logging(era="modern")
    async with fleet(server) as running:
        await running.rested()
        calls, other = await running.legacy(), await running.legacy()
        for client in (calls, other):
            await client.result("logging/setLevel", {"level": "debug"})
        await calling(calls, server)
        log(server, "info")
        assert await heard(calls) == ["info"]
        assert await heard(other) == []


async def test_a_client_that_does_not_read_is_cut_off_and_the_next_one_is_told_on() -> None:
    server = logging()
    limits = {"outgoing": 2**20, "clientLine": 2**16, "serverLine": 2**20}
    async with fleet(server, daemon={"limits": limits}) as running:
        deaf, other = await running.legacy(), await (await running.rested()).legacy()
        await deaf.result("logging/setLevel", {"level": "debug"})
        for _ in range(40):
            log(server, "info", json.dumps("x" * 100_000))
        gone = await running.event(ClientGone)
        assert gone.reason.startswith("does not read")
        await other.result("logging/setLevel", {"level": "debug"})
        log(server, "info")
        assert await heard(other) == ["info"]


async def test_what_is_said_to_servers_about_levels_is_no_request_of_a_client() -> None:
    server = logging()
    async with fleet(server) as running:
        client = await running.legacy()
        await client.result("logging/setLevel", {"level": "debug"})
        await client.settled()
        done = [event for event in running.events if isinstance(event, RequestDone)]
        assert [event.server for event in done if event.method == "logging/setLevel"] == [""]
