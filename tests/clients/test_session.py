"""One client on the socket: what it may ask in either era, what it is answered, and how it is parted with."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anyio
import pytest

from mcp_multi_server.clients.session import FLOOD_LINES
from mcp_multi_server.core.errors import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    UNSUPPORTED_PROTOCOL_VERSION,
)
from mcp_multi_server.core.events import ClientGone, Rejected, RequestDone
from mcp_multi_server.core.lifecycle import State
from mcp_multi_server.core.protocol import OWN_INFO
from tests.fixtures.fixture import META, MODERN, member

from ..client import ENVELOPE, Client, Message
from ..fleet import Script, deepest, fleet

pytestmark = pytest.mark.anyio

CALLED = {"name": "echo", "arguments": {}}
READ = {"uri": "note://one"}
REF = {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "a", "value": ""}}
FORWARDED: list[tuple[str, Message]] = [
    ("tools/call", CALLED),
    ("prompts/get", {"name": "greet"}),
    ("resources/read", READ),
]
FORWARDED += [("completion/complete", REF)]
LISTS: list[tuple[str, Message]] = [
    (f"{kind}/list", {}) for kind in ("tools", "prompts", "resources", "resources/templates")
]
COMMON: list[tuple[str, Message]] = [*FORWARDED, *LISTS]
SUBSCRIBED: Message = {"notifications": {"toolsListChanged": True}}
INITIALIZE: Message = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
NOWHERE: list[tuple[str, Message]] = [("resources/subscribe", READ), ("tasks/list", {})]
ONLY_LEGACY: list[tuple[str, Message]] = [
    ("ping", {}),
    ("initialize", INITIALIZE),
    ("logging/setLevel", {"level": "info"}),
]


def full() -> Script:
    """A server that offers one of each kind."""
    script = Script("one", prompts=["greet"], resources=["note://one"], templates=["note://{x}"])
    script.replies |= {"prompts/get": '{"messages":[]}', "resources/read": '{"contents":[]}'}
    return script


# --- what each era may ask -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "params"), [*COMMON, ("ping", {}), ("initialize", INITIALIZE)])
async def test_a_legacy_client_is_served_what_its_era_has(method: str, params: Message) -> None:
    async with fleet(full()) as running:
        client = await running.legacy()
        result = await client.result(method, params)
        assert "resultType" not in result
        assert "ttlMs" not in result


@pytest.mark.parametrize(("method", "params"), [*COMMON, ("server/discover", {})])
async def test_a_modern_client_is_served_what_its_era_has(method: str, params: Message) -> None:
    async with fleet(full()) as running:
        client = await running.client(modern=True)
        result = await client.result(method, params)
        assert result["resultType"] == "complete"
        assert result["_meta"][META + "serverInfo"] == OWN_INFO
        cacheable = method in ("resources/read", "server/discover") or method.endswith("/list")
        assert ("ttlMs" in result, "cacheScope" in result) == (cacheable, cacheable)


@pytest.mark.parametrize(("method", "params"), [*ONLY_LEGACY, *NOWHERE, ("no/such", {})])
async def test_a_modern_request_for_what_its_era_lacks_is_unknown(method: str, params: Message) -> None:
    async with fleet(full()) as running:
        client = await running.client(modern=True)
        assert (await client.error(method, params))["code"] == METHOD_NOT_FOUND


@pytest.mark.parametrize("method", ["server/discover", "subscriptions/listen", "no/such", *(m for m, _ in NOWHERE)])
async def test_a_legacy_request_for_what_its_era_lacks_is_unknown(method: str) -> None:
    async with fleet(full()) as running:
        client = await running.legacy()
        assert (await client.error(method, SUBSCRIBED))["code"] == METHOD_NOT_FOUND


@pytest.mark.parametrize(
    ("method", "code"),
    [
        ("tools/list", INVALID_REQUEST),
        ("tools/call", INVALID_REQUEST),
        ("no/such", METHOD_NOT_FOUND),
        ("server/discover", INVALID_PARAMS),
        ("subscriptions/listen", INVALID_PARAMS),
    ],
)
async def test_before_anything_else_a_client_says_which_era_it_speaks(method: str, code: int) -> None:
    async with fleet(full()) as running:
        client = await running.client()
        error = await client.error(method, CALLED)
        assert error["code"] == code
        if code != METHOD_NOT_FOUND:
            assert META + "protocolVersion" in error["message"], "it says how to go on"
        assert await client.result("ping") == {}, "a ping needs no handshake"


async def test_an_unknown_method_is_named_in_brief() -> None:
    async with fleet(full()) as running:
        client = await running.legacy()
        error = await client.error("x" * 100_000)
        assert error["code"] == METHOD_NOT_FOUND
        assert len(error["message"]) < 200


async def test_both_eras_are_served_on_one_connection() -> None:
    async with fleet(full()) as running:
        client = await running.client()
        await client.result("server/discover", {"_meta": ENVELOPE})
        await client.initialize()
        assert "resultType" not in await client.result("tools/list")
        assert (await client.result("tools/list", {"_meta": ENVELOPE}))["resultType"] == "complete"
        assert "resultType" not in await client.result("tools/call", CALLED)


@pytest.mark.parametrize(
    ("meta", "code"),
    [
        ({META + "protocolVersion": MODERN}, INVALID_PARAMS),
        ({META + "protocolVersion": 1, META + "clientCapabilities": {}}, INVALID_PARAMS),
        ({META + "protocolVersion": None, META + "clientCapabilities": {}}, INVALID_PARAMS),
        ({META + "protocolVersion": MODERN, META + "clientCapabilities": "all"}, INVALID_PARAMS),
        ({META + "protocolVersion": MODERN, META + "clientCapabilities": None}, INVALID_PARAMS),
        ({META + "protocolVersion": "2025-11-25", META + "clientCapabilities": {}}, UNSUPPORTED_PROTOCOL_VERSION),
        ({META + "protocolVersion": "2099-01-01", META + "clientCapabilities": {}}, UNSUPPORTED_PROTOCOL_VERSION),
        ("none", INVALID_PARAMS),
        ([], INVALID_PARAMS),
    ],
)
async def test_an_incomplete_envelope_is_refused(meta: object, code: int) -> None:
    async with fleet(full()) as running:
        client = await running.client()
        error = await client.error("tools/call", {**CALLED, "_meta": meta})
        assert error["code"] == code
        assert "_meta" in error["message"] or code == UNSUPPORTED_PROTOCOL_VERSION
        if code == UNSUPPORTED_PROTOCOL_VERSION:
            assert isinstance(meta, dict)
            assert error["data"] == {"supported": [MODERN], "requested": meta[META + "protocolVersion"]}
        assert not running.scripts["one"].of("tools/call")


async def test_initialize_names_the_version_and_what_is_offered() -> None:
    async with fleet(full()) as running:
        client = await running.client()
        result = await client.result("initialize", INITIALIZE | {"protocolVersion": "2024-11-05"})
        assert result["protocolVersion"] == "2024-11-05"
        assert result["serverInfo"] == OWN_INFO
        assert result["capabilities"]["tools"] == {"listChanged": True}
        discovered = await client.result("server/discover", {"_meta": ENVELOPE})
        assert discovered["supportedVersions"] == [MODERN]
        assert discovered["capabilities"] == result["capabilities"]


@pytest.mark.parametrize("method", [method for method, _ in LISTS])
async def test_a_cursor_is_refused_as_lists_have_one_page(method: str) -> None:
    async with fleet(full()) as running:
        client = await running.legacy()
        error = await client.error(method, {"cursor": "next"})
        assert error["code"] == INVALID_PARAMS
        assert "cursor" in error["message"]


async def test_who_a_client_says_it_is_shows_in_the_status_in_brief() -> None:
    async with fleet(full()) as running:
        client = await running.client(modern=True)
        await client.result("server/discover", {"_meta": {META + "clientInfo": {"name": "n" * 5000, "version": "1"}}})
        (row,) = (await client.result("daemon/status"))["clients"]
        assert (row["name"], row["era"]) == ("n" * 100, "modern")


@pytest.mark.parametrize("info", ["me", 5, None, [], {"name": 5}, {}])
async def test_odd_client_info_is_no_reason_to_refuse(info: object) -> None:
    async with fleet(full()) as running:
        client = await running.client()
        await client.result("initialize", INITIALIZE | {"clientInfo": info})
        await client.notify("notifications/initialized")
        assert (await client.result("tools/call", CALLED))["content"]


# --- ids and messages that are none ----------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["0", "7", '"7"', "-3", "123456789012345678901234567890", '""', '"\\u00e9\\/\\n"'])
async def test_an_id_comes_back_byte_for_byte(id: str) -> None:
    async with fleet(full()) as running:
        client = await running.legacy()
        for method, params in (("ping", {}), ("tools/call", CALLED), ("no/such", {})):
            await client.write(f'{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{json.dumps(params)}}}\n')
            assert member((await client.line()).decode(), "id") == id


@pytest.mark.parametrize(
    ("line", "code", "id"),
    [
        ("{", PARSE_ERROR, "null"),
        ("no", PARSE_ERROR, "null"),
        ('{"jsonrpc":"2.0","id":1,"method":"ping"} x', PARSE_ERROR, "null"),
        ("[]", INVALID_REQUEST, "null"),
        ('[{"jsonrpc":"2.0","id":1,"method":"ping"}]', INVALID_REQUEST, "null"),
        ("5", INVALID_REQUEST, "null"),
        ('{"id":1,"method":"ping"}', INVALID_REQUEST, "1"),
        ('{"jsonrpc":"1.0","id":"a","method":"ping"}', INVALID_REQUEST, '"a"'),
        ('{"jsonrpc":"2.0","id":null,"method":"ping"}', INVALID_REQUEST, "null"),
        ('{"jsonrpc":"2.0","id":1.5,"method":"ping"}', INVALID_REQUEST, "null"),
        ('{"jsonrpc":"2.0","id":true,"method":"ping"}', INVALID_REQUEST, "null"),
        ('{"jsonrpc":"2.0","id":[1],"method":"ping"}', INVALID_REQUEST, "null"),
        ('{"jsonrpc":"2.0","id":2,"method":5}', INVALID_REQUEST, "2"),
        ('{"jsonrpc":"2.0","id":2,"method":"ping","params":[1]}', INVALID_REQUEST, "2"),
        ('{"jsonrpc":"2.0","id":2,"method":"ping","params":3}', INVALID_REQUEST, "2"),
        ('{"jsonrpc":"2.0","id":2,"method":""}', INVALID_REQUEST, "2"),
        ('{"jsonrpc":"2.0","id":2}', INVALID_REQUEST, "2"),
        ('{"jsonrpc":"2.0"}', INVALID_REQUEST, "null"),
        ("[" * 100_000, PARSE_ERROR, "null"),
        (
            '{"jsonrpc":"2.0","id":3,"method":"ping","params":{"a":' + "[" * 100_000 + "]" * 100_000 + "}}",
            PARSE_ERROR,
            "null",
        ),
    ],
)
async def test_a_line_that_is_no_request_is_refused_and_the_next_one_served(line: str, code: int, id: str) -> None:
    async with fleet(full()) as running:
        client = await running.legacy()
        await client.write(f"{line}\n")
        refusal = (await client.line()).decode()
        assert member(refusal, "id") == id
        assert json.loads(refusal)["error"]["code"] == code
        assert await client.result("ping") == {}
        assert (await running.event(Rejected)).reason == "invalid_message"


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("ping", "null"),
        ("tools/list", "null"),
        ("tools/list", '{"cursor":null}'),
        ("tools/list", '{"_meta":null}'),
        ("tools/call", '{"name":"echo","arguments":{},"_meta":null}'),
    ],
)
async def test_null_where_a_member_is_left_out_is_taken_for_that(method: str, params: str) -> None:
    one = Script("one")
    async with fleet(one) as running:
        client = await running.legacy()
        await client.write(f'{{"jsonrpc":"2.0","id":77,"method":"{method}","params":{params}}}\n')
        assert "result" in await client.message()
        assert not [line for line in one.of("tools/call") if "_meta" in line], "servers refuse it"


async def test_bytes_that_are_no_text_are_refused() -> None:
    async with fleet(full()) as running:
        client = await running.client()
        await client.write(b'{"jsonrpc":"2.0","id":4,"method":"ping","params":{"a":"\xff"}}\n')
        assert (await client.message())["error"]["code"] == PARSE_ERROR


async def test_answers_unknown_notifications_and_blank_lines_are_let_pass() -> None:
    async with fleet(full()) as running:
        client = await running.legacy()
        await client.write('{"jsonrpc":"2.0","id":9,"result":{}}\n{"jsonrpc":"2.0","id":9,"error":{"code":1}}\n\n \t\n')
        await client.notify("notifications/roots/list_changed")
        await client.notify("notifications/cancelled")
        await client.notify("notifications/cancelled", {"requestId": 99})
        await client.notify("notifications/cancelled", {"requestId": {"deep": [1]}, "reason": 5})
        await client.notify("notifications/progress", {"progressToken": 1, "progress": 2})
        assert await client.settled() == []


@pytest.mark.parametrize("params", ['{"name":"\\ud800"}', '{"name":{}}', '{"name":null}', "{}", '{"NAME":"echo"}'])
async def test_a_name_that_cannot_be_read_is_refused(params: str) -> None:
    async with fleet(full()) as running:
        client = await running.legacy()
        assert (await client.error("tools/call", params))["code"] == INVALID_PARAMS


async def test_half_an_emoji_in_a_key_is_no_reason_to_refuse() -> None:
    async with fleet(full()) as running:
        client = await running.legacy()
        assert (await client.result("tools/call", '{"name":"echo","\\ud800":1}'))["content"]


DEEP = [
    '"id":1,"method":"tools/call","params":{"name":%s}',
    '"id":1,"method":"tools/call","params":{"name":"echo","_meta":%s}',
    '"id":1,"method":"tools/call","params":{"name":"one__echo","_meta":{"a":%s,"progressToken":%s}}',
    '"id":1,"method":"completion/complete","params":{"ref":{"type":%s}}',
    '"id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"one__greet","x":%s}}',
    '"id":1,"method":"initialize","params":{"protocolVersion":%s,"clientInfo":{"name":%s}}',
    '"id":1,"method":"daemon/logs","params":{"server":%s}',
    '"method":"notifications/cancelled","params":{"requestId":5,"reason":%s}',
]


@pytest.mark.parametrize("body", DEEP)
async def test_however_deep_params_are_nested_nothing_goes_wrong_inside(body: str) -> None:
    """Who looks inside params stands deeper in the stack than who read the line, which leaves a gap."""
    async with fleet(full()) as running:
        client = await (await running.rested()).legacy()
        answers = []
        limit = deepest()
        for depth in (*range(100, 900, 100), *range(limit - 70, limit + 10)):
            nested = "[" * depth + "]" * depth
            await client.write(f'{{"jsonrpc":"2.0",{body.replace("%s", nested)}}}\n')
            if '"id"' in body:
                answers.append(await client.message())
        await client.post("ping", id="fence")
        while (message := await client.message()).get("id") != "fence":
            answers.append(message)
        codes = {answer["error"]["code"] for answer in answers if "error" in answer}
        assert codes <= {PARSE_ERROR, INVALID_PARAMS}, codes
        assert PARSE_ERROR in codes
        (session,) = running.gateway.sessions.values()
        assert not session.open_requests


async def test_a_line_over_the_cap_is_refused_with_its_id_and_the_next_one_served() -> None:
    async with fleet(full(), daemon={"limits": {"clientLine": 4096}}) as running:
        client = await running.client()
        padding = "x" * 100_000
        await client.write(f'{{"jsonrpc":"2.0","id":"big","method":"ping","params":{{"a":"{padding}"}}}}\n')
        refused = await client.message()
        assert (refused["id"], refused["error"]["code"]) == ("big", INVALID_REQUEST)
        assert "4096" in refused["error"]["message"]
        await client.write(f'{{"jsonrpc":"2.0","method":"ping","params":{{"a":"{padding}"}},"id":12}}\n')
        assert (await client.message())["id"] == 12
        await client.write(f'{{"method":"ping","params":{{"a":"{padding}","id":13}}, "x":1}}\n')
        assert (await client.message())["id"] is None, "an id that cannot be told is not guessed"
        assert await client.result("ping") == {}


async def test_an_unfinished_line_is_cut_off_in_time() -> None:
    async with fleet(full(), daemon={"limits": {"partialLine": 0.1}}) as running:
        client = await running.client()
        await client.write('{"jsonrpc":"2.0",')
        (told,) = await client.ended()
        assert (told["id"], told["error"]["code"]) == (None, INVALID_REQUEST)
        assert "0.1 s" in told["error"]["message"]
        assert (await running.event(Rejected)).reason == "cut_off"


async def test_whole_lines_keep_a_slow_client_alive() -> None:
    async with fleet(full(), daemon={"limits": {"partialLine": 0.15}}) as running:
        client = await running.client()
        ping = '{"jsonrpc":"2.0","id":1,"method":"ping"}'
        await client.write(ping[:9])
        for _ in range(4):
            await anyio.sleep(0.06)  # the pace of the client, not a wait for anything
            await client.write(ping[9:] + "\n" + ping[:9])
            assert (await client.message())["result"] == {}
        await client.write(ping[9:] + "\n")
        assert (await client.message())["result"] == {}


async def test_a_client_that_sends_nothing_but_garbage_is_cut_off() -> None:
    async with fleet(full()) as running:
        flooder, other = await running.client(), await running.client()
        await flooder.write("x\n" * (2 * FLOOD_LINES))
        answers = await flooder.ended()
        assert len(answers) == FLOOD_LINES + 1
        assert "invalid messages" in (await running.event(ClientGone)).reason
        assert await other.result("ping") == {}


# --- in flight -------------------------------------------------------------------------------------------------------


async def test_an_id_in_use_is_refused_until_it_is_answered() -> None:
    one = full()
    one.replies["tools/call"] = None
    async with fleet(one) as running:
        client = await running.legacy()
        await client.post("tools/call", CALLED, id="a")
        sent = await one.got("tools/call")
        assert (await client.error("tools/call", CALLED, id="a"))["code"] == INVALID_REQUEST
        assert (await client.error("ping", id="a"))["code"] == INVALID_REQUEST
        one.answer(member(sent, "id"), result="{}")
        assert await client.message() == {"jsonrpc": "2.0", "id": "a", "result": {}}
        assert await client.result("ping", id="a") == {}
        assert len(one.of("tools/call")) == 1


@pytest.mark.parametrize(
    ("method", "params"), [("tools/call", CALLED), ("subscriptions/listen", SUBSCRIBED), ("daemon/events", {})]
)
async def test_requests_that_wait_have_a_cap_and_the_others_go_on(method: str, params: Message) -> None:
    one = full()
    one.replies["tools/call"] = None
    async with fleet(one, daemon={"limits": {"inFlight": 3}}) as running:
        client = await running.client(modern=True)
        for id in range(3):
            await client.post(method, params, id=id)
        error = await client.error(method, params, id="one more")
        assert (error["code"], "3 requests" in error["message"]) == (INTERNAL_ERROR, True)
        assert (await running.event(Rejected)).reason == "in_flight"
        assert (await client.result("tools/list", id="list"))["tools"], "what is answered at once takes no place"
        await client.notify("notifications/cancelled", {"requestId": 0})
        await client.post(method, params, id="after")
        (session,) = running.gateway.sessions.values()
        await client.result("tools/list", id="list")
        assert len(session.open_requests) == 3
        assert all(id in session.open_requests for id in (b"1", b"2", b'"after"'))


async def test_what_was_done_is_observed_once_with_its_outcome() -> None:
    async with fleet(full()) as running:
        client = await running.legacy()
        await client.result("tools/call", CALLED)
        await client.error("tools/call", {"name": "none"})
        await client.error("no/such")
        done = [event for event in running.events if isinstance(event, RequestDone)][1:]
        assert [(e.method, e.server, e.tool, e.error) for e in done] == [
            ("tools/call", "one", "echo", ""),
            ("tools/call", "", "", str(INVALID_PARAMS)),
            ("no/such", "", "", str(METHOD_NOT_FOUND)),
        ]


# --- list_changed and subscriptions ----------------------------------------------------------------------------------


def changed(capability: str) -> str:
    return f'{{"jsonrpc":"2.0","method":"notifications/{capability}/list_changed"}}'


async def test_a_burst_of_changes_is_told_once_to_those_who_said_initialized() -> None:
    one = full()
    async with fleet(one) as running:
        await running.rested()
        client, half = await running.legacy(), await running.client()
        await half.result("initialize", INITIALIZE)
        one.lists["tools/list"] = ("tools", "name", ["echo", "new"])
        for _ in range(5):
            one.say(changed("tools"))
        assert await client.notification() == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        assert [tool["name"] for tool in (await client.result("tools/list"))["tools"]] == ["echo", "new"]
        one.lists["prompts/list"] = ("prompts", "name", [])
        one.say(changed("prompts"))
        assert (await client.notification())["method"] == "notifications/prompts/list_changed", "nothing else before"
        assert await half.settled() == [], "the handshake is not finished"


async def test_resources_and_templates_are_told_of_as_one() -> None:
    one = full()
    async with fleet(one) as running:
        await running.rested()
        client = await running.legacy()
        one.lists["resources/list"] = ("resources", "uri", [])
        one.lists["resources/templates/list"] = ("resourceTemplates", "uriTemplate", [])
        one.say(changed("resources"))
        assert (await client.notification())["method"] == "notifications/resources/list_changed"
        assert await client.settled() == []


async def test_lists_that_look_the_same_are_not_told_of() -> None:
    one = full()
    async with fleet(one) as running:
        await running.rested()
        client = await running.legacy()
        one.say(changed("tools"))
        await one.got("tools/list", number=2)
        one.lists["prompts/list"] = ("prompts", "name", ["other"])
        one.say(changed("prompts"))
        assert (await client.notification())["method"] == "notifications/prompts/list_changed"
        assert await client.settled() == []


@pytest.mark.parametrize("id", ["7", '"7"', "0", '"\\u00e9"', "123456789012345678901234567890"])
async def test_a_subscription_is_acknowledged_first_and_bears_the_raw_id(id: str) -> None:
    one = full()
    async with fleet(one) as running:
        await running.rested()
        client = await running.client(modern=True)
        wanted = {"toolsListChanged": True, "promptsListChanged": False, "x": True, "resourceSubscriptions": ["a"]}
        params = json.dumps({"notifications": wanted, "_meta": ENVELOPE})
        await client.write(f'{{"jsonrpc":"2.0","id":{id},"method":"subscriptions/listen","params":{params}}}\n')
        first = (await client.line()).decode()
        assert json.loads(first)["method"] == "notifications/subscriptions/acknowledged"
        assert json.loads(first)["params"]["notifications"] == {"toolsListChanged": True}
        assert member(first, "params", "_meta", META + "subscriptionId") == id
        one.lists["tools/list"] = ("tools", "name", [])
        one.lists["prompts/list"] = ("prompts", "name", [])
        one.say(changed("tools"))
        told = (await client.line()).decode()
        assert json.loads(told)["method"] == "notifications/tools/list_changed"
        assert member(told, "params", "_meta", META + "subscriptionId") == id
        assert await client.settled() == [], "the prompts were not asked for"


async def test_each_subscription_is_told_for_itself_until_it_is_cancelled() -> None:
    one = full()
    async with fleet(one) as running:
        await running.rested()
        client = await running.client(modern=True)
        for id in (1, 2):
            await client.post("subscriptions/listen", SUBSCRIBED, id=id)
            await client.notification()
        await client.notify("notifications/cancelled", {"requestId": 1, "reason": "enough"})
        await client.settled()
        one.lists["tools/list"] = ("tools", "name", [])
        one.say(changed("tools"))
        assert (await client.notification())["params"]["_meta"] == {META + "subscriptionId": 2}
        assert await client.settled() == []


@pytest.mark.parametrize("params", [{}, {"notifications": []}, {"notifications": "all"}, {"notifications": None}])
async def test_a_subscription_to_nothing_readable_is_refused(params: Message) -> None:
    async with fleet(full()) as running:
        client = await running.client(modern=True)
        assert (await client.error("subscriptions/listen", params))["code"] == INVALID_PARAMS


async def test_subscriptions_end_gracefully_when_the_daemon_stops() -> None:
    async with fleet(full()) as running:
        client = await running.client(modern=True)
        await client.post("subscriptions/listen", SUBSCRIBED, id="s")
        await client.notification()
        running.gateway.close("the daemon stops")
        (last,) = await client.ended()
        assert last["id"] == "s"
        assert last["result"] == {"resultType": "complete", "_meta": {META + "subscriptionId": "s"}}


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_a_client_that_closes_one_side_gets_its_answers() -> None:
    one = full()
    one.replies["tools/call"] = None
    async with fleet(one) as running:
        await running.rested()
        client = await running.legacy()
        await client.post("tools/call", CALLED)
        client.socket.shutdown(1)
        sent = await one.got("tools/call")
        one.answer(member(sent, "id"), result='{"late":1}')
        assert [message["result"] for message in await client.ended()] == [{"late": 1}]
        assert (await running.event(ClientGone)).reason == "closed"


@pytest.mark.parametrize("calls", [False, True])
async def test_a_client_that_closes_one_side_and_only_listens_is_parted_with(calls: bool) -> None:
    """`calls`: the answer to its call comes first."""
    one = full()
    one.replies["tools/call"] = None
    async with fleet(one) as running:
        await running.rested()
        client = await running.client(modern=True)
        await client.post("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, id="s")
        await client.notification()
        if calls:
            await client.post("tools/call", CALLED)
            sent = await one.got("tools/call")
        client.socket.shutdown(1)
        if calls:
            one.answer(member(sent, "id"), result='{"late":1}')
        assert [message["id"] for message in await client.ended()] == [1, "s"][not calls :]
        assert (await running.event(ClientGone)).reason == "closed"


async def test_a_client_that_leaves_has_its_servers_told_and_its_held_calls_forgotten() -> None:
    one, two = full(), Script("two", tools=["other"])
    one.replies["tools/call"] = None
    two.away = True
    async with fleet(one, two, up=False) as running:
        await running.state("one", State.READY)
        client = await running.legacy()
        await client.post("tools/call", CALLED, id=1)
        await client.post("tools/call", {"name": "two__other"}, id=2)
        await client.post("daemon/events", id=3)
        sent = await one.got("tools/call")
        await client.notification()
        assert running.router.held == 1
        client.close()
        told = json.loads(await one.got("notifications/cancelled"))
        assert told["params"]["requestId"] == json.loads(sent)["id"]
        await running.event(ClientGone)
        assert not running.router.held
        two.come()
        await running.state("two", State.READY)
        assert not two.of("tools/call")


async def test_a_client_that_never_reads_is_cut_off_and_nobody_else_notices() -> None:
    one = full()
    one.replies["tools/call"] = json.dumps({"content": [{"type": "text", "text": "x" * 500_000}]})
    limits = {"outgoing": 2**20, "clientLine": 2**16, "serverLine": 2**20}
    async with fleet(one, daemon={"limits": limits}) as running:
        deaf, other = await running.legacy(), await running.legacy()
        for id in range(20):
            await deaf.post("tools/call", CALLED, id=id)
        gone = await running.event(ClientGone)
        assert (gone.client, gone.reason.startswith("does not read")) == (1, True)
        assert (await running.event(Rejected)).reason == "cut_off"
        assert len((await other.result("tools/call", CALLED))["content"][0]["text"]) == 500_000


async def test_no_timer_or_call_is_left_of_a_client_that_is_gone() -> None:
    async with fleet(full()) as running:
        client = await running.client(modern=True)
        await client.post("subscriptions/listen", SUBSCRIBED)
        await client.notification()
        (session,) = running.gateway.sessions.values()
        await client.write("{")
        client.close()
        await running.event(ClientGone)
        assert not session.open_requests
        scheduled: list[Any] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # no public way
        assert not [handle for handle in scheduled if not handle.cancelled() and "_line_is_late" in repr(handle)]


async def test_several_messages_in_one_write_are_answered_in_order() -> None:
    async with fleet(full()) as running:
        client: Client = await running.legacy()
        lines = [f'{{"jsonrpc":"2.0","id":{id},"method":"ping"}}' for id in range(50)]
        data = ("\r\n".join(lines) + "\n").encode()
        for at in range(0, len(data), 333):
            await client.write(data[at : at + 333])
        assert [(await client.message())["id"] for _ in range(50)] == list(range(50))
