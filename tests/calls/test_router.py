"""Forwarded calls: where they go, what changes on the way and what does not, and how each of them ends once."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from typing import Any

import anyio
import pytest

from mcp_multi_server.calls import call
from mcp_multi_server.calls.context import LINKS_LOOKED_UP
from mcp_multi_server.core.errors import INTERNAL_ERROR, INVALID_PARAMS, PARSE_ERROR, RESOURCE_NOT_FOUND_LEGACY
from mcp_multi_server.core.events import RequestDone
from mcp_multi_server.core.lifecycle import Failure, Reason, State
from tests.fixtures.fixture import META, MODERN, member

from ..client import ENVELOPE, Client, Message
from ..fleet import Fleet, Script, deepest, fleet

pytestmark = pytest.mark.anyio

PAIRS = [("legacy", "legacy"), ("legacy", "modern"), ("modern", "legacy"), ("modern", "modern")]
SAME = [("legacy", "legacy"), ("modern", "modern")]
EXACT = '{"z":123456789012345678901234567890,"a":1.0,"e":1E+2,"m":-0.0,"s":"\\u00e9\\/\\ud83d\\ude00","n":[ ]}'
MODERN_META = json.dumps(ENVELOPE)
NOT_STARTED = Failure(Reason.SPAWN, "command not found", permanent=True)


def full(name: str = "one", era: str = "legacy", **options: Any) -> Script:
    offers: Message = {"prompts": ["greet"], "resources": ["note://one"], "templates": ["note://{x}"]}
    return Script(name, era=era, **(offers | options))


def mute(name: str = "one", **options: Any) -> Script:
    """A server whose tools are answered by the test alone."""
    script = full(name, **options)
    script.replies["tools/call"] = None
    return script


def params_of(line: str) -> Message:
    found: Message = json.loads(line)["params"]
    return found


async def exchange(running: Fleet, client: Client, method: str, params: str) -> tuple[str, str]:
    """The params that the server got and the result that the client got, both byte for byte."""
    await client.post(method, params)
    answer = await client.answer_line()
    (script,) = running.scripts.values()
    return member(script.of(method)[-1], "params"), member(answer, "result")


# --- bytes and eras --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("client_era", "server_era"), SAME)
@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("tools/call", '"name":"echo","arguments":' + EXACT),
        ("prompts/get", '"arguments":' + EXACT + ',"name":"greet"'),
        ("resources/read", '"uri":"note://one","x":' + EXACT),
        ("resources/read", '"x":' + EXACT + ',"uri":"note:\\/\\/one"'),
        ("completion/complete", '"ref":{"type":"ref/prompt","name":"greet","x":1.0},"argument":' + EXACT),
        ("completion/complete", '"ref":{"type":"ref/resource","uri":"note://{x}"},"argument":' + EXACT),
        ("completion/complete", '"ref":{"type":"ref/resource","uri":"note://one"},"argument":' + EXACT),
    ],
)
async def test_where_nothing_changes_the_very_bytes_are_forwarded(
    client_era: str, server_era: str, method: str, body: str
) -> None:
    server = full(era=server_era)
    result = '{"contents":[{"uri":"note://one","text":"\\u00e9"}],"x":' + EXACT + ',  "isError" : false}'
    server.replies[method] = result
    async with fleet(server) as running:
        client = await running.of_era(client_era)
        meta = f',"_meta":{MODERN_META}' if client_era == "modern" else ""
        sent = f"{{{body}{meta}}}"
        assert await exchange(running, client, method, sent) == (sent, result)


@pytest.mark.parametrize(("client_era", "server_era"), PAIRS)
@pytest.mark.parametrize(
    ("method", "asked", "own"),
    [
        ("tools/call", {"name": "one__echo", "arguments": {"a": 1}}, {"name": "echo", "arguments": {"a": 1}}),
        ("prompts/get", {"name": "one__greet"}, {"name": "greet"}),
        ("resources/read", {"uri": "one:note://one"}, {"uri": "note://one"}),
        ("resources/read", {"uri": "one:note://unlisted"}, {"uri": "note://unlisted"}),
        (
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "one__greet", "x": 1}, "argument": {}},
            {"ref": {"type": "ref/prompt", "name": "greet", "x": 1}, "argument": {}},
        ),
        (
            "completion/complete",
            {"ref": {"type": "ref/resource", "uri": "one:note://{x}"}, "argument": {}},
            {"ref": {"type": "ref/resource", "uri": "note://{x}"}, "argument": {}},
        ),
    ],
)
async def test_the_server_gets_its_own_names_and_its_own_era(
    client_era: str, server_era: str, method: str, asked: Message, own: Message
) -> None:
    server = full(era=server_era)
    server.replies[method] = '{"resultType":"complete","x-top":1}' if server_era == "modern" else '{"x-top":1}'
    async with fleet(server) as running:
        client = await running.of_era(client_era)
        given = {"traceparent": "00-1", "vendor/x": 12345678901234567890}
        result = await client.result(method, {**asked, "_meta": given})
        sent = params_of(server.of(method)[0])
        meta = sent.pop("_meta")
        assert sent == own
        assert given.items() <= meta.items()
        assert (meta.get(META + "protocolVersion") == MODERN) == (server_era == "modern")
        assert (META + "clientCapabilities" in meta) == (server_era == "modern")
        assert result["x-top"] == 1
        assert ("resultType" in result) == (client_era == "modern")
        assert (META + "serverInfo" in result.get("_meta", {})) == (client_era == "modern" and server_era == "legacy")


async def test_a_modern_server_is_told_who_the_legacy_client_is() -> None:
    server = full(era="modern")
    async with fleet(server) as running:
        client = await running.legacy()
        await client.result("tools/call", {"name": "echo"})
        meta = params_of(server.of("tools/call")[0])["_meta"]
        assert meta[META + "clientInfo"] == {"name": "tester", "version": "1", "x-vendor": True}
        assert meta[META + "clientCapabilities"] == {}, "what a server may ask of a host is not forwarded"


async def test_a_request_without_params_or_meta_stays_without() -> None:
    server = full()
    async with fleet(server) as running:
        client = await running.client(modern=True)
        await client.result("tools/call", {"name": "echo"})
        assert params_of(server.of("tools/call")[0]) == {"name": "echo"}


@pytest.mark.parametrize(("client_era", "server_era"), PAIRS)
async def test_a_servers_error_comes_back_as_it_is(client_era: str, server_era: str) -> None:
    server = mute(era=server_era)
    async with fleet(server) as running:
        client = await running.of_era(client_era)
        await client.post("tools/call", {"name": "echo"})
        error = '{"code":-4242,"message":"no \\u00e9","data":' + EXACT + ',"x":1.0}'
        server.answer(member(await server.got("tools/call"), "id"), error=error)
        assert member(await client.answer_line(), "error") == error


@pytest.mark.parametrize(
    ("client_era", "server_era", "given", "expected"),
    [
        ("legacy", "legacy", RESOURCE_NOT_FOUND_LEGACY, RESOURCE_NOT_FOUND_LEGACY),
        ("modern", "legacy", RESOURCE_NOT_FOUND_LEGACY, INVALID_PARAMS),
        ("modern", "modern", INVALID_PARAMS, INVALID_PARAMS),
    ],
)
async def test_resource_not_found_has_the_code_of_the_clients_era(
    client_era: str, server_era: str, given: int, expected: int
) -> None:
    server = full(era=server_era)
    server.replies["resources/read"] = None
    async with fleet(server) as running:
        client = await running.of_era(client_era)
        await client.post("resources/read", {"uri": "note://one"})
        error = f'{{"code":{given},"message":"Resource not found","data":{{"uri":"note://one"}}}}'
        server.answer(member(await server.got("resources/read"), "id"), error=error)
        answered = json.loads(await client.answer_line())["error"]
        assert (answered["code"], answered["data"]) == (expected, {"uri": "note://one"})


async def test_a_kind_of_result_that_only_modern_clients_know_is_explained_to_legacy_ones() -> None:
    server = full(era="modern")
    server.replies["tools/call"] = '{"resultType":"task","task":{}}'
    async with fleet(server) as running:
        modern, legacy = await running.client(modern=True), await running.legacy()
        assert (await modern.result("tools/call", {"name": "echo"}))["resultType"] == "task"
        error = await legacy.error("tools/call", {"name": "echo"})
        assert (error["code"], MODERN in error["message"]) == (INTERNAL_ERROR, True)


@pytest.mark.parametrize("result", ['{"\\ud800":1,"isError":true,"uri":"x"}', '{"content":"x","uri":1,"isError":1}'])
@pytest.mark.parametrize(("client_era", "server_era"), PAIRS)
async def test_an_odd_result_is_answered_too(client_era: str, server_era: str, result: str) -> None:
    server = mute(era=server_era)
    async with fleet(server) as running:
        client = await running.of_era(client_era)
        for id in (1, 2):
            await client.post("tools/call", {"name": "echo"}, id=id)
            server.answer(member(await server.got("tools/call", number=id), "id"), result=result)
            assert json.loads(await client.answer_line(id))["result"]


# --- URIs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uri", ["note://one", "note://two", "one:note://one", "one:note://unlisted", "web+x:y"])
async def test_a_uri_comes_back_in_the_form_it_was_asked_in(uri: str) -> None:
    server = full()
    own = uri.removeprefix("one:")
    server.replies["resources/read"] = json.dumps({"contents": [{"uri": own, "text": "é", "x-vendor": 1.0}]})
    async with fleet(server) as running:
        client = await running.legacy()
        result = await client.result("resources/read", {"uri": uri})
        assert params_of(server.of("resources/read")[0])["uri"] == own
        assert result == {"contents": [{"uri": uri, "text": "é", "x-vendor": 1.0}]}


LINKED = {
    "content": [
        {"type": "resource_link", "uri": "note://same", "name": "on both", "x-vendor": 1.0},
        {"type": "resource_link", "uri": "note://only-one", "name": "listed"},
        {"type": "resource", "resource": {"uri": "note://hidden", "text": "in full", "_meta": {"uri": "kept"}}},
        {"type": "text", "text": '"uri":"note://same"'},
        {"type": "resource_link", "uri": 5},
        {"type": "later", "uri": "note://same"},
    ],
    "structuredContent": {"uri": "note://same"},
}


async def test_links_get_the_servers_name_only_where_they_would_not_lead_back() -> None:
    one = Script("one", resources=["note://same", "note://only-one"])
    two = Script("two", tools=["other"], resources=["note://same"])
    one.replies["tools/call"] = json.dumps(LINKED)
    async with fleet(one, two) as running:
        client = await running.legacy()
        result = await client.result("tools/call", {"name": "echo"})
        expected = json.loads(json.dumps(LINKED))
        expected["content"][0]["uri"] = "one:note://same"
        expected["structuredContent"]["uri"] = "one:note://same"
        assert result == expected


async def test_links_in_prompts_are_treated_alike() -> None:
    one, two = Script("one", prompts=["greet"], resources=["note://a"]), Script("two", resources=["note://a"])
    link = {"type": "resource_link", "uri": "note://a", "name": "a"}
    messages = [
        {"role": "user", "content": link},
        {"role": "user", "content": [link]},
        {"role": "user", "content": "x"},
    ]
    one.replies["prompts/get"] = json.dumps({"messages": messages[:2]})
    async with fleet(one, two) as running:
        client = await running.legacy()
        result = await client.result("prompts/get", {"name": "greet"})
        named = link | {"uri": "one:note://a"}
        assert [message["content"] for message in result["messages"]] == [named, [named]]
        one.replies["prompts/get"] = odd = json.dumps({"messages": messages}, separators=(",", ":"))
        await client.post("prompts/get", {"name": "greet"})
        assert member(await client.answer_line(), "result") == odd, "another shape is not touched"


async def test_a_renamed_link_leads_back() -> None:
    one, two = Script("one", resources=["note://a"]), Script("two", resources=["note://a"])
    one.replies["tools/call"] = json.dumps({"content": [{"type": "resource_link", "uri": "note://a", "name": "a"}]})
    async with fleet(one, two) as running:
        client = await running.legacy()
        (block,) = (await client.result("tools/call", {"name": "echo"}))["content"]
        await client.result("resources/read", {"uri": block["uri"]})
        assert (len(one.of("resources/read")), len(two.of("resources/read"))) == (1, 0)


WEB = ["https://example.com/docs", "http://x", "mailto:a@example.com", "data:text/plain,hi", "urn:isbn:0", "other://x"]


@pytest.mark.parametrize("uri", WEB)
@pytest.mark.parametrize("others", [0, 2])
async def test_a_link_that_is_no_resource_of_its_server_stays_as_it_came(uri: str, others: int) -> None:
    one = Script("one", resources=["note://a"], templates=["note://{id}"])
    more = [Script(f"more{n}", tools=[], resources=["note://a"]) for n in range(others)]
    link = {"type": "resource_link", "uri": uri, "name": "n"}
    embedded = {"type": "resource", "resource": {"uri": uri, "text": "t"}}
    given = json.dumps({"content": [link, embedded], "structuredContent": {"result": [link]}}, separators=(",", ":"))
    one.replies["tools/call"] = given
    async with fleet(one, *more) as running:
        client = await running.legacy()
        await client.post("tools/call", {"name": "echo"})
        assert member(await client.answer_line(), "result") == given


@pytest.mark.parametrize("uri", ["https://a/1", "note://1"])
async def test_a_resource_that_two_servers_offer_is_named_in_content_and_structured_content_alike(uri: str) -> None:
    template = f"{uri[:-1]}{{id}}"
    one, two = Script("one", templates=[template]), Script("two", tools=[], resources=["x:y"], templates=[template])
    link = {"type": "resource_link", "uri": uri, "name": "n"}
    structured = {"result": [link, {"deep": {"er": uri}}, f"see {uri}"], "big": 12345678901234567890123}
    one.replies["tools/call"] = json.dumps({"content": [link], "structuredContent": structured})
    async with fleet(one, two) as running:
        client = await running.legacy()
        result = await client.result("tools/call", {"name": "echo"})
        named = link | {"uri": f"one:{uri}"}
        assert result["content"] == [named]
        found = result["structuredContent"]
        assert found == structured | {"result": [named, {"deep": {"er": f"one:{uri}"}}, f"see {uri}"]}
        await client.result("resources/read", {"uri": result["content"][0]["uri"]})
        assert (len(one.of("resources/read")), len(two.of("resources/read"))) == (1, 0)


async def test_of_very_many_different_links_the_last_ones_are_not_looked_up() -> None:
    one, two = (Script(name, templates=["note://{id}"]) for name in ("one", "two"))
    uris = [f"note://{number}" for number in range(LINKS_LOOKED_UP + 2)]
    links = [{"type": "resource_link", "uri": uri, "name": "n"} for uri in [*uris, uris[0]]]
    one.replies["tools/call"] = json.dumps({"content": links})
    async with fleet(one, two) as running:
        client = await running.legacy()
        content = (await client.result("tools/call", {"name": "echo"}))["content"]
        named = [f"one:{uri}" for uri in uris]
        expected = [*named[:LINKS_LOOKED_UP], *uris[LINKS_LOOKED_UP:], named[0]]
        assert [block["uri"] for block in content] == expected


# --- what leads nowhere ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "params", "code", "words"),
    [
        ("tools/call", {"name": "none"}, INVALID_PARAMS, "Unknown tool: none"),
        ("tools/call", {"name": "one__none"}, INVALID_PARAMS, "Unknown tool: one__none"),
        ("tools/call", {}, INVALID_PARAMS, "params.name must be a string"),
        ("prompts/get", {"name": "none"}, INVALID_PARAMS, "Unknown prompt: none"),
        ("prompts/get", {"name": 5}, INVALID_PARAMS, "params.name must be a string"),
        ("resources/read", {"uri": None}, INVALID_PARAMS, "params.uri must be a string"),
        ("resources/read", {"uri": "note://both"}, RESOURCE_NOT_FOUND_LEGACY, "one:note://both"),
        ("resources/read", {"uri": "what://ever"}, RESOURCE_NOT_FOUND_LEGACY, "what://ever"),
        ("completion/complete", {}, INVALID_PARAMS, "params.ref must be an object"),
        ("completion/complete", {"ref": []}, INVALID_PARAMS, "params.ref must be an object"),
        ("completion/complete", {"ref": {"type": "ref/tool"}}, INVALID_PARAMS, "params.ref.type"),
        ("completion/complete", {"ref": {"type": "ref/prompt"}}, INVALID_PARAMS, "params.ref.name"),
        ("completion/complete", {"ref": {"type": "ref/resource", "uri": 1}}, INVALID_PARAMS, "params.ref.uri"),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "none"}}, INVALID_PARAMS, "none"),
    ],
)
async def test_what_leads_nowhere_says_why(method: str, params: Message, code: int, words: str) -> None:
    one, two = full(resources=["note://both"]), full("two", tools=["other"], resources=["note://both"])
    async with fleet(one, two) as running:
        client = await running.legacy()
        error = await client.error(method, params)
        assert error["code"] == code
        assert words in error["message"]
        if code == RESOURCE_NOT_FOUND_LEGACY:
            assert error["data"] == {"uri": params["uri"]}
            modern = await running.client(modern=True)
            assert (await modern.error(method, params))["code"] == INVALID_PARAMS
        assert not [*one.of(method), *two.of(method)]


async def test_a_name_of_a_megabyte_is_not_repeated() -> None:
    async with fleet(full()) as running:
        client = await running.legacy()
        assert len(json.dumps(await client.error("tools/call", {"name": "n" * 1_000_000}))) < 1000


# --- progress --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("client_era", "server_era"), PAIRS)
@pytest.mark.parametrize("token", ['"mine"', "7", "0", '""', "123456789012345678901234567890", '"\\u00e9"'])
async def test_progress_comes_back_under_the_clients_own_token(client_era: str, server_era: str, token: str) -> None:
    server = mute(era=server_era)
    async with fleet(server) as running:
        client = await (await running.rested()).of_era(client_era)
        meta = (MODERN_META if client_era == "modern" else "{}")[:-1]
        meta += f'{"," if client_era == "modern" else ""}"progressToken":{token}}}'
        await client.post("tools/call", f'{{"name":"echo","_meta":{meta}}}')
        sent = await server.got("tools/call")
        ours = member(sent, "params", "_meta", "progressToken")
        assert ours == member(sent, "id"), "a token of our own, as two clients may choose the same"
        server.report(ours, "1E+2")
        told = (await client.line()).decode()
        assert member(told, "params", "progressToken") == token
        assert member(told, "params", "progress") == "1E+2"
        assert member(told, "params", "x-vendor") == "1.0"
        server.answer(member(sent, "id"), result="{}")
        server.report(ours)
        await client.answer_line()
        assert await client.settled() == [], "progress after the result is dropped"


async def test_progress_goes_to_the_client_whose_call_it_is() -> None:
    server = mute()
    async with fleet(server) as running:
        first, second = await (await running.rested()).legacy(), await running.legacy()
        await first.post("tools/call", {"name": "echo", "_meta": {"progressToken": "same"}})
        await first.post("tools/call", {"name": "echo"}, id=2)
        tokenless = await server.got("tools/call", number=2)
        assert "_meta" not in params_of(tokenless)
        await second.post("tools/call", {"name": "echo", "_meta": {"progressToken": "same"}})
        last = await server.got("tools/call", number=3)
        for token in (member(tokenless, "id"), "9999", '"x"', '"same"', "null", "-1", "1.5", "{}"):
            server.report(token)
        server.report(member(last, "id"), "0.25")
        told = (await second.notification())["params"]
        assert (told["progressToken"], told["progress"]) == ("same", 0.25)
        assert await first.settled() == []


# --- deadlines and cancellation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("server_era", ["legacy", "modern"])
async def test_a_call_that_is_not_answered_in_time_fails_and_the_server_is_told(server_era: str) -> None:
    server = mute(era=server_era, entry={"timeout": 0.1})
    async with fleet(server) as running:
        client = await running.legacy()
        error = await client.error("tools/call", {"name": "echo"})
        assert error["code"] == INTERNAL_ERROR
        assert error["message"].startswith("server 'one' did not answer within 0.1")
        assert error["data"] == {"server": "one", "state": "degraded", "reason": "timeout", "retryAt": None}
        sent, told = server.of("tools/call")[0], await server.got("notifications/cancelled")
        assert params_of(told)["requestId"] == json.loads(sent)["id"]
        assert (META + "protocolVersion" in params_of(told).get("_meta", {})) == (server_era == "modern")
        server.answer(member(sent, "id"), result='{"late":1}')
        assert await client.result("ping") == {}, "what comes late is dropped"
        done = await running.event(RequestDone, lambda event: event.method == "tools/call")
        assert (done.server, done.tool, done.error) == ("one", "echo", "timeout")


async def test_progress_gives_a_call_more_time_but_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a timeout that outlasts the pauses of a loaded machine between two reports, and an end that comes soon."""
    monkeypatch.setattr(call, "LONGEST_FACTOR", 3)
    timeout = 0.4
    server = mute(entry={"timeout": timeout})
    async with fleet(server) as running:
        client = await (await running.rested()).legacy()
        loop = asyncio.get_running_loop()
        started = loop.time()
        await client.post("tools/call", {"name": "echo", "_meta": {"progressToken": 1}})
        token = member(await server.got("tools/call"), "id")

        async def go_on() -> None:
            while True:
                server.report(token)
                await anyio.sleep(timeout / 20)  # the pace of the server, not a wait for anything

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(go_on)
            error = json.loads(await client.answer_line())["error"]
            tasks.cancel_scope.cancel()
        assert "did not answer" in error["message"]
        assert loop.time() - started >= 3 * timeout
        assert len(server.of("notifications/cancelled")) == 1


@pytest.mark.parametrize(("client_era", "server_era"), PAIRS)
async def test_a_cancelled_call_is_not_answered_and_its_server_told_why(client_era: str, server_era: str) -> None:
    server = mute(era=server_era)
    async with fleet(server) as running:
        client = await (await running.rested()).of_era(client_era)
        await client.post("tools/call", {"name": "echo"}, id="a")
        sent = await server.got("tools/call")
        await client.notify("notifications/cancelled", {"requestId": "a", "reason": "enough é"})
        told = params_of(await server.got("notifications/cancelled"))
        assert (told["requestId"], told["reason"]) == (json.loads(sent)["id"], "enough é")
        server.answer(member(sent, "id"), result="{}")
        assert await client.result("tools/list", id=2)
        await client.post("tools/call", {"name": "echo"}, id="a")
        again = await server.got("tools/call", number=2)
        server.answer(member(again, "id"), result='{"second":1}')
        assert json.loads(await client.answer_line("a"))["result"]["second"] == 1


async def test_cancelling_what_is_answered_or_someone_elses_changes_nothing() -> None:
    server = mute()
    async with fleet(server) as running:
        client, other = await (await running.rested()).legacy(), await running.legacy()
        await client.post("tools/call", {"name": "echo"}, id=5)
        sent = await server.got("tools/call")
        await other.notify("notifications/cancelled", {"requestId": 5})
        await client.notify("notifications/cancelled", {"requestId": "5"})
        await other.settled()
        server.answer(member(sent, "id"), result="{}")
        assert json.loads(await client.answer_line(5))["result"] == {}
        await client.notify("notifications/cancelled", {"requestId": 5})
        await client.settled()
        assert not server.of("notifications/cancelled")


# --- a server that is away -------------------------------------------------------------------------------------------


async def test_a_sent_call_whose_server_dies_fails_and_is_never_sent_again() -> None:
    server = mute()
    async with fleet(server) as running:
        client = await running.legacy()
        await client.post("tools/call", {"name": "echo"})
        await server.got("tools/call")
        server.die()
        error = json.loads(await client.answer_line())["error"]
        assert error["code"] == INTERNAL_ERROR
        assert "exited with code 3" in error["message"]
        assert "may or may not have been carried out" in error["message"]
        assert (error["data"]["server"], error["data"]["reason"]) == ("one", "exit")
        await server.tried(2)
        await running.state("one", State.READY)
        server.replies["tools/call"] = "{}"
        assert await client.result("tools/call", {"name": "echo"}, id=2) == {}
        assert len(server.of("tools/call")) == 2, "the lost one and the last one"


async def test_the_error_of_a_lost_call_names_the_state_and_the_next_attempt() -> None:
    server = mute()
    async with fleet(server) as running:
        client = await running.legacy()
        await client.post("tools/call", {"name": "echo"})
        await server.got("tools/call")
        server.die()
        data = json.loads(await client.answer_line())["error"]["data"]
        assert data["state"] == "backoff"
        assert data["retryAt"].endswith("+00:00")


async def test_a_call_to_a_server_that_is_coming_back_waits_and_is_answered() -> None:
    server = full()
    async with fleet(server) as running:
        client = await running.legacy()
        server.away = True
        server.die()
        await client.post("tools/call", {"name": "echo"})
        await server.tried(2)
        await client.result("ping", id="ping")
        assert running.router.held == 1
        assert not server.of("tools/call")
        server.come()
        assert "content" in json.loads(await client.answer_line())["result"]
        assert len(server.of("tools/call")) == 1


async def test_a_call_in_the_moment_of_a_loss_waits_for_the_next_connection() -> None:
    """Between the loss and the end of the transport nothing answers any more."""
    server = full()
    async with fleet(server) as running:
        client = await running.legacy()
        server.leaving = asyncio.Event()
        server.die()
        await client.post("tools/call", {"name": "echo"})
        await client.result("ping", id="ping")
        assert not server.of("tools/call"), "sent into a connection that is over"
        server.leaving.set()
        assert "content" in json.loads(await client.answer_line())["result"]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {"name": "one__echo"}),
        ("prompts/get", {"name": "one__greet"}),
        ("resources/read", {"uri": "one:note://x"}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "one__greet"}, "argument": {}}),
        ("completion/complete", {"ref": {"type": "ref/resource", "uri": "one:note://{x}"}, "argument": {}}),
    ],
)
async def test_a_qualified_name_of_a_server_that_was_never_ready_waits_for_it(method: str, params: Message) -> None:
    server = full()
    server.away = True
    async with fleet(server, up=False) as running:
        client = await running.legacy()
        await client.post(method, params)
        await client.result("ping", id="ping")
        assert running.router.held == 1
        server.come()
        assert "result" in json.loads(await client.answer_line())
        assert len(server.of(method)) == 1
        assert not running.router.held


async def test_a_held_call_whose_name_is_gone_when_the_server_is_back_is_unknown() -> None:
    server = full()
    async with fleet(server) as running:
        client = await running.legacy()
        server.away = True
        server.lists["tools/list"] = ("tools", "name", [])
        server.die()
        await client.post("tools/call", {"name": "echo"})
        await server.tried(2)
        server.come()
        assert json.loads(await client.answer_line())["error"]["code"] == INVALID_PARAMS


@pytest.mark.parametrize(
    ("daemon", "entry"), [({"hold": 0.1}, {}), ({"hold": 9}, {"hold": 0.1}), ({}, {"timeout": 0.1})]
)
async def test_a_held_call_fails_with_the_reason_when_its_time_is_over(daemon: Message, entry: Message) -> None:
    server = full(entry=entry)
    async with fleet(server, daemon=daemon) as running:
        client = await running.legacy()
        server.refusal = Failure(Reason.UNREACHABLE, "nobody there")
        server.die()
        await running.state("one", State.BACKOFF)
        error = await client.error("tools/call", {"name": "echo"})
        assert error["code"] == INTERNAL_ERROR
        data = error["data"]
        assert data["server"] == "one"
        assert data["state"] in ("backoff", "connecting")
        assert data["reason"] in ("unreachable", "exit")
        assert data["retryAt"] is None or data["retryAt"].endswith("+00:00")
        assert "server 'one' is" in error["message"]
        assert not running.router.held
        assert not server.of("tools/call")
        done = await running.event(RequestDone, lambda event: event.method == "tools/call")
        assert (done.server, done.error) == ("one", "unavailable")


@pytest.mark.parametrize("name", ["echo", "one__echo"])
async def test_a_call_that_never_left_us_is_sent_again_until_its_server_takes_it(name: str) -> None:
    server = mute()
    async with fleet(server) as running:
        client = await running.legacy()
        await client.post("tools/call", {"name": name, "_meta": {"progressToken": "mine"}})
        for nth in (1, 2):
            sent = await server.got("tools/call", number=nth)
            assert params_of(sent)["name"] == "echo"
            assert params_of(sent)["_meta"]["progressToken"] == json.loads(sent)["id"]
            server.lose(member(sent, "id"), Failure(Reason.UNREACHABLE, "connection refused", undone=True))
            assert running.router.held
        sent = await server.got("tools/call", number=3)
        server.answer(member(sent, "id"), result='{"content":[]}')
        assert "content" in json.loads(await client.answer_line())["result"]
        assert len([event for event in running.events if isinstance(event, RequestDone) and event.server]) == 1


@pytest.mark.parametrize("undone", [True, False])
async def test_a_call_that_is_lost_for_good_says_whether_it_was_sent(undone: bool) -> None:
    server = mute(entry={"hold": 0.1})
    async with fleet(server) as running:
        client = await running.legacy()
        await client.post("tools/call", {"name": "echo"})
        refused = Failure(Reason.UNREACHABLE, "connection refused", undone=undone)
        for nth in (1, 2) if undone else (1,):
            sent = await server.got("tools/call", number=nth)
            server.lose(member(sent, "id"), refused)
        error = json.loads(await client.answer_line())["error"]
        assert ("was not carried out" in error["message"]) == undone
        assert ("may or may not have been carried out" in error["message"]) == (not undone)
        assert error["data"]["reason"] == "unreachable"
        assert not running.router.held


async def test_a_call_that_waits_to_be_sent_again_can_be_cancelled() -> None:
    server = mute()
    async with fleet(server) as running:
        client = await running.legacy()
        await client.post("tools/call", {"name": "echo"}, id=7)
        sent = await server.got("tools/call")
        server.lose(member(sent, "id"), Failure(Reason.UNREACHABLE, "connection refused", undone=True))
        await client.notify("notifications/cancelled", {"requestId": 7})
        done = await running.event(RequestDone, lambda event: event.method == "tools/call")
        assert done.error == "cancelled"
        assert not running.router.held


async def test_a_call_to_a_parked_server_fails_at_once() -> None:
    server = full()
    async with fleet(server) as running:
        client = await running.legacy()
        server.refusal = NOT_STARTED
        server.die()
        await running.state("one", State.PARKED)
        for name in ("echo", "one__echo"):
            error = await client.error("tools/call", {"name": name})
            assert "parked (command not found)" in error["message"]
            assert error["data"] == {
                "server": "one",
                "state": "parked",
                "reason": "spawn",
                "retryAt": error["data"]["retryAt"],
            }
            assert error["data"]["retryAt"]


async def test_a_held_call_fails_once_its_server_is_parked() -> None:
    server = full()
    async with fleet(server, daemon={"hold": 60}) as running:
        client = await running.legacy()
        server.away = True
        server.die()
        await client.post("tools/call", {"name": "echo"})
        await server.tried(2)
        server.refusal = NOT_STARTED
        server.come()
        assert json.loads(await client.answer_line())["error"]["data"]["state"] == "parked"


async def test_a_held_call_that_is_cancelled_is_never_sent() -> None:
    server = full()
    async with fleet(server) as running:
        client = await (await running.rested()).legacy()
        server.away = True
        server.die()
        await server.tried(2)
        await client.post("tools/call", {"name": "echo"}, id="a")
        await client.notify("notifications/cancelled", {"requestId": "a"})
        await client.settled()
        assert not running.router.held
        server.come()
        await running.state("one", State.READY)
        assert await client.result("tools/call", {"name": "echo"}, id="b")
        assert len(server.of("tools/call")) == 1


async def test_a_call_brings_the_next_attempt_forward() -> None:
    server = full()
    async with fleet(server) as running:
        client = await running.legacy()
        server.refusal = NOT_STARTED
        server.die()
        parked = await running.state("one", State.PARKED)
        parked.status = replace(parked.status, state=State.BACKOFF, last_attempt=-math.inf)
        server.refusal = None
        assert await client.result("tools/call", {"name": "echo"})


async def test_calls_to_another_server_do_not_wait() -> None:
    one, two = full(), full("two", tools=["other"])
    async with fleet(one, two) as running:
        client = await running.legacy()
        one.away = True
        one.die()
        await client.post("tools/call", {"name": "echo"}, id="held")
        assert await client.result("tools/call", {"name": "other"}, id=2)
        one.come()
        await client.answer_line("held")


async def test_a_held_call_goes_to_the_server_that_has_the_name_by_then() -> None:
    one, two = full(), full("two")
    async with fleet(one, two, daemon={"hold": 60}) as running:
        client = await running.legacy()
        one.away = True
        one.die()
        await client.post("tools/call", {"name": "echo"})
        await one.tried(2)
        one.lists["tools/list"] = ("tools", "name", [])
        one.come()
        assert await client.answer_line()
        assert (len(one.of("tools/call")), len(two.of("tools/call"))) == (0, 1)


async def test_a_name_that_fits_two_servers_waits_for_the_one_it_fits_best() -> None:
    short, long = full("a", entry={"protocol": "legacy"}), full("a__b")
    short.refusal, long.away = NOT_STARTED, True
    async with fleet(short, long, up=False) as running:
        await running.state("a", State.PARKED)
        client = await running.legacy()
        await client.post("tools/call", {"name": "a__b__echo"})
        await client.result("ping", id="ping")
        long.come()
        assert "content" in json.loads(await client.answer_line())["result"]


async def test_held_calls_with_deep_params_harm_neither_the_server_nor_each_other() -> None:
    """They are looked into again from the stack of the server's task."""
    server = full()
    server.away = True
    async with fleet(server, up=False) as running:
        client = await running.legacy()
        limit = deepest()
        depths = range(limit - 100, limit + 10)
        for depth in depths:
            ref = f'{{"type":"ref/prompt","name":"one__greet","x":{"[" * depth + "]" * depth}}}'
            await client.post("completion/complete", f'{{"ref":{ref},"argument":{{}}}}', id=depth)
        await client.post("ping", id="fence")
        answers = []
        while (message := await client.message()).get("id") != "fence":
            answers.append(message)
        server.come()
        while len(answers) < len(depths):
            if "method" not in (message := await client.message()):
                answers.append(message)
        assert server.opened == 1, "it was not taken down"
        codes = [answer["error"]["code"] for answer in answers if "error" in answer]
        assert 0 < len(codes) < len(depths)
        assert PARSE_ERROR in codes
        assert set(codes) <= {INVALID_PARAMS, PARSE_ERROR}
