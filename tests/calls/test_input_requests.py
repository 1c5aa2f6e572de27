"""What servers ask of clients: each question reaches its own client, in that one's era, and ends once on both sides."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mcp_multi_server.calls import client_requests, input_request, input_requests
from mcp_multi_server.calls.call import ROUNDS
from mcp_multi_server.core.errors import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND
from mcp_multi_server.core.events import RequestDone
from mcp_multi_server.core.lifecycle import State
from tests.fixtures.fixture import META, member

from ..client import Client, Message
from ..fleet import Fleet, Script, fleet

pytestmark = pytest.mark.anyio

CAN: Message = {"sampling": {}, "elicitation": {"form": {}, "url": {}}, "roots": {"listChanged": True}}
ALL = ["sampling", "elicitation", "roots"]
EXACT = '{"z":123456789012345678901234567890,"a":1.0,"e":1E+2,"s":"\\u00e9\\/"}'
CALL: Message = {"name": "echo"}
SAMPLING = "sampling/createMessage"
ASKED = '{"resultType":"input_required","inputRequests":{"who":{"method":"elicitation/create","params":{"x":1.0}}}%s}'


def mute(name: str = "one", **options: Any) -> Script:
    """A server whose tools are answered by the test alone, and which may ask everything."""
    options["entry"] = {"mayAsk": ALL} | options.get("entry", {})
    script = Script(name, **options)
    script.replies["tools/call"] = None
    return script


@asynccontextmanager
async def meeting(client_era: str, **options: Any) -> AsyncIterator[tuple[Script, Client]]:
    """A server that is `mute`, up and heard of, and a client of this era that can be asked everything."""
    server = mute(**options)
    async with fleet(server) as running:
        await running.rested()
        yield server, await running.of_era(client_era, CAN)


def params_of(line: str) -> Message:
    found: Message = json.loads(line)["params"]
    return found


async def calling(client: Client, server: Script, *, id: object = 1, number: int = 1) -> str:
    """A call that is with the server; the id under which it got it."""
    await client.post("tools/call", CALL, id=id)
    return member(await server.got("tools/call", number=number), "id")


async def refused(server: Script, id: str = "1") -> Message:
    """The error that its question got."""
    found: Message = json.loads(await server.response(id))["error"]
    return found


async def asked(client: Client, id: object = 1) -> Message:
    """The answer to a modern call that asks for something."""
    result: Message = json.loads(await client.answer_line(id))["result"]
    assert result["resultType"] == "input_required", result
    return result


def back(first: Message, response: str = EXACT, **others: Any) -> str:
    """The params of the call made once more, with one response to all that was asked, byte for byte."""
    responses = ",".join(f'"{key}":{response}' for key in first["inputRequests"])
    meta = {"_meta": {META + "protocolVersion": "2026-07-28", META + "clientCapabilities": CAN}}
    rest = json.dumps({**CALL, **meta, "requestState": first["requestState"], **others})
    return f'{{"inputResponses":{{{responses}}},{rest[1:]}'


# --- a legacy client and a legacy server ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [SAMPLING, "elicitation/create", "roots/list"])
async def test_a_question_and_its_answer_are_passed_on_as_they_are(method: str) -> None:
    async with meeting("legacy") as (server, client):
        call = await calling(client, server)
        server.ask(method, f'{{"x":{EXACT},"_meta":{{"vendor/y":1.0}}}}', id='"a/\\u00e9"')
        line = (await client.line()).decode()
        question = json.loads(line)
        assert question["method"] == method
        assert member(line, "params", "x") == EXACT
        assert member(line, "params", "_meta", "vendor/y") == "1.0"
        assert question["params"]["_meta"]["serverName"] == "one", "people must see who asks"
        await client.reply(question, result=EXACT)
        assert member(await server.response('"a/\\u00e9"'), "result") == EXACT
        server.answer(call, result="{}")
        assert json.loads(await client.answer_line())["result"] == {}


async def test_a_question_without_params_still_says_who_asks() -> None:
    async with meeting("legacy") as (server, client):
        await calling(client, server)
        server.ask("roots/list")
        assert (await client.question())["params"] == {"_meta": {"serverName": "one"}}


async def test_a_clients_error_is_passed_on_as_it_is() -> None:
    async with meeting("legacy") as (server, client):
        await calling(client, server)
        server.ask(SAMPLING, "{}")
        error = f'{{"code":-1,"message":"no","data":{EXACT}}}'
        await client.reply(await client.question(), error=error)
        assert member(await server.response(), "error") == error


@pytest.mark.parametrize("answer", ["[]", "null", '"text"'])
async def test_an_answer_that_is_none_becomes_an_error(answer: str) -> None:
    async with meeting("legacy") as (server, client):
        await calling(client, server)
        server.ask(SAMPLING, "{}")
        await client.reply(await client.question(), result=answer)
        assert (await refused(server))["code"] == INTERNAL_ERROR


async def test_questions_of_several_calls_and_servers_are_kept_apart() -> None:
    one, two = mute(), mute("two", tools=["other"])
    async with fleet(one, two) as running:
        await running.rested()
        client = await running.legacy(CAN)
        await calling(client, one)
        await client.post("tools/call", {"name": "other"}, id=2)
        await two.got("tools/call")
        one.ask(SAMPLING, '{"of":"one"}', id="7")
        two.ask(SAMPLING, '{"of":"two"}', id="7")
        first, second = await client.question(), await client.question()
        assert [question["params"]["of"] for question in (first, second)] == ["one", "two"]
        await client.reply(second, result='{"to":"two"}')
        await client.reply(first, result='{"to":"one"}')
        assert params_free(await one.response("7")) == {"to": "one"}
        assert params_free(await two.response("7")) == {"to": "two"}


def params_free(line: str) -> Message:
    found: Message = json.loads(line)["result"]
    return found


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize(
    ("method", "params", "capabilities", "code"),
    [
        (SAMPLING, "{}", {"elicitation": {}}, METHOD_NOT_FOUND),
        ("elicitation/create", "{}", {"sampling": {}}, METHOD_NOT_FOUND),
        ("elicitation/create", "{}", {"elicitation": None}, METHOD_NOT_FOUND),
        ("elicitation/create", '{"mode":"url"}', {"elicitation": {"form": {}}}, INVALID_PARAMS),
        ("roots/list", "{}", {}, METHOD_NOT_FOUND),
        ("no/such", "{}", CAN, METHOD_NOT_FOUND),
    ],
)
async def test_a_client_is_asked_only_what_it_declares(
    era: str, method: str, params: str, capabilities: Message, code: int
) -> None:
    server = mute()
    async with fleet(server) as running:
        await running.rested()
        client = await running.of_era(era, capabilities)
        call = await calling(client, server)
        server.ask(method, params)
        assert (await refused(server))["code"] == code
        server.answer(call, result="{}")
        assert "result" in json.loads(await client.answer_line())
        assert await client.settled() == []


@pytest.mark.parametrize(
    ("entry", "declared"),
    [
        ({}, {"sampling": {}, "elicitation": {"form": {}, "url": {}}}),
        ({"mayAsk": []}, {}),
        ({"mayAsk": ["roots", "sampling"]}, {"sampling": {}, "roots": {}}),
    ],
)
async def test_a_server_is_told_what_its_entry_lets_it_ask(entry: Message, declared: Message) -> None:
    server = Script("one", entry=entry)
    server.replies["tools/call"] = None
    async with fleet(server) as running:
        await running.rested()
        assert params_of(server.of("initialize")[0])["capabilities"] == declared
        client = await running.legacy(CAN)
        await calling(client, server)
        server.ask("roots/list", id="5")
        if "roots" in declared:
            await client.question()
        else:
            assert (await refused(server, "5"))["code"] == METHOD_NOT_FOUND


async def test_with_calls_of_two_clients_nobody_is_asked() -> None:
    server = mute()
    async with fleet(server) as running:
        await running.rested()
        one, other = await running.legacy(CAN), await running.client(modern=True, capabilities=CAN)
        await calling(one, server)
        call = await calling(other, server, number=2)
        server.ask(SAMPLING, "{}")
        error = await refused(server)
        assert (error["code"], "several clients" in error["message"]) == (INTERNAL_ERROR, True)
        server.answer(call, result="{}")
        await other.answer_line()
        server.ask(SAMPLING, "{}", id="2")
        assert (await one.question())["method"] == SAMPLING, "the calls that are left are one client's"
        assert await other.settled() == []


async def test_without_a_call_nobody_is_asked() -> None:
    async with meeting("legacy") as (server, client):
        server.ask(SAMPLING, "{}")
        error = await refused(server)
        assert (error["code"], "nobody to ask" in error["message"]) == (INTERNAL_ERROR, True)
        assert await client.settled() == []


async def test_the_one_client_whose_servers_they_are_is_asked_without_a_call_too() -> None:
    server = mute()
    async with fleet(server) as running:
        await running.rested()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        running.gateway.adopt(theirs)
        client = Client(ours, modern=False, capabilities=CAN)
        running.clients.append(client)
        await client.initialize()
        server.ask("roots/list")
        await client.reply(await client.question(), result='{"roots":[]}')
        assert params_free(await server.response()) == {"roots": []}
        client.close()
        await running.until(lambda: not running.gateway.sessions)
        server.ask("roots/list", id="2")
        assert "nobody to ask" in (await refused(server, "2"))["message"]


async def test_an_id_in_use_is_refused_until_it_is_answered() -> None:
    async with meeting("legacy") as (server, client):
        await calling(client, server)
        server.ask(SAMPLING, '{"n":1}')
        question = await client.question()
        server.ask(SAMPLING, '{"n":2}')
        assert (await refused(server))["code"] == INVALID_REQUEST
        server.lines.clear()
        await client.reply(question, result="{}")
        assert params_free(await server.response()) == {}


async def test_questions_that_wait_have_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_requests, "MOST_OPEN", 2)
    async with meeting("legacy") as (server, client):
        await calling(client, server)
        for id in ("1", "2", "3"):
            server.ask(SAMPLING, "{}", id=id)
        assert "2 input requests" in (await refused(server, "3"))["message"]
        first = await client.question()
        await client.reply(first, result="{}")
        await server.response("1")
        server.ask(SAMPLING, "{}", id="4")
        assert [(await client.question())["id"] - first["id"] for _ in range(2)] == [1, 2]


async def test_that_a_user_is_done_at_a_url_hears_the_client_that_was_asked() -> None:
    server = mute()
    done = '{"elicitationId":"e\u00e9","x":1.0}'
    async with fleet(server) as running:
        await running.rested()
        client, other = await running.legacy(CAN), await running.legacy(CAN)
        await calling(client, server)
        server.ask("elicitation/create", '{"mode":"url","url":"https://x","elicitationId":"e\u00e9"}')
        await client.reply(await client.question(), result='{"action":"accept"}')
        await server.response()
        for _ in range(2):
            server.tell("notifications/elicitation/complete", done)
        told = await client.settled()
        assert [(one["method"], one["params"]) for one in told] == [
            ("notifications/elicitation/complete", json.loads(done))
        ]
        assert await other.settled() == []


# --- how a question ends ----------------------------------------------------------------------------------------------


async def test_what_a_server_takes_back_the_client_hears_and_its_late_answer_is_dropped() -> None:
    async with meeting("legacy") as (server, client):
        await calling(client, server)
        server.ask(SAMPLING, "{}", id='"q"')
        question = await client.question()
        server.tell("notifications/cancelled", '{"requestId":"q","reason":"enough é"}')
        told = await client.notification()
        assert told["params"] == {"requestId": question["id"], "reason": "enough é"}
        await client.reply(question, result="{}")
        await client.settled()
        server.ask(SAMPLING, "{}", id='"q"')
        await client.reply(await client.question(), result='{"second":1}')
        assert params_free(await server.response('"q"')) == {"second": 1}


async def test_with_its_call_cancelled_a_question_ends_on_both_sides() -> None:
    async with meeting("legacy") as (server, client):
        await calling(client, server)
        server.ask(SAMPLING, "{}")
        question = await client.question()
        await client.notify("notifications/cancelled", {"requestId": 1})
        assert (await client.notification())["params"]["requestId"] == question["id"]
        assert "has ended" in (await refused(server))["message"]


async def test_with_its_call_answered_a_question_ends_on_both_sides() -> None:
    async with meeting("legacy") as (server, client):
        call = await calling(client, server)
        server.ask(SAMPLING, "{}")
        question = await client.question()
        server.answer(call, result="{}")
        assert (await client.notification())["params"]["requestId"] == question["id"]
        assert json.loads(await client.answer_line())["result"] == {}
        assert "has ended" in (await refused(server))["message"]


async def test_while_another_call_of_the_client_runs_there_a_question_stays() -> None:
    async with meeting("legacy") as (server, client):
        first = await calling(client, server, id=1)
        await calling(client, server, id=2, number=2)
        server.ask(SAMPLING, "{}")
        question = await client.question()
        server.answer(first, result="{}")
        await client.answer_line(1)
        await client.reply(question, result='{"still":1}')
        assert params_free(await server.response()) == {"still": 1}


async def test_a_client_that_leaves_answers_nothing_and_its_server_hears_so() -> None:
    async with meeting("legacy") as (server, client):
        call = await calling(client, server)
        server.ask(SAMPLING, "{}")
        await client.question()
        client.close()
        assert (await refused(server))["code"] == INTERNAL_ERROR
        assert params_of(await server.got("notifications/cancelled"))["requestId"] == int(call)


async def test_a_client_that_has_said_all_cannot_be_asked() -> None:
    async with meeting("legacy") as (server, client):
        call = await calling(client, server)
        server.ask(SAMPLING, "{}")
        await client.question()
        client.socket.shutdown(socket.SHUT_WR)
        assert "gone" in (await refused(server))["message"]
        server.ask(SAMPLING, "{}", id="2")
        assert "gone" in (await refused(server, "2"))["message"]
        server.answer(call, result='{"done":1}')
        assert [found["result"] for found in await client.ended() if "result" in found] == [{"done": 1}]


async def test_a_server_that_dies_takes_its_questions_back() -> None:
    server = mute()
    async with fleet(server) as running:
        await running.rested()
        client = await running.legacy(CAN)
        await calling(client, server)
        server.ask(SAMPLING, "{}")
        question = await client.question()
        server.die()
        assert json.loads(await client.answer_line())["error"]["data"]["server"] == "one"
        cancelled = await client.notification()
        assert (cancelled["method"], cancelled["params"]["requestId"]) == ("notifications/cancelled", question["id"])
        await running.state("one", State.READY)
        await client.reply(question, result="{}")
        await client.settled()
        assert not server._responses("1"), "the new connection asked nothing"


async def test_who_thinks_longer_than_the_call_may_take_is_not_cut_off() -> None:
    server = mute(entry={"timeout": 0.1})
    async with fleet(server) as running:
        await running.rested()
        client, other = await running.legacy(CAN), await running.legacy()
        call = await calling(client, server)
        server.ask(SAMPLING, "{}")
        question = await client.question()
        late = await other.error("tools/call", CALL)
        assert "did not answer within" in late["message"], "so more than the timeout has passed"
        await client.reply(question, result="{}")
        await server.response()
        server.answer(call, result='{"in":"time"}')
        assert json.loads(await client.answer_line())["result"] == {"in": "time"}


async def test_after_the_answer_the_time_of_the_call_runs_on() -> None:
    async with meeting("legacy", entry={"timeout": 0.1}) as (server, client):
        await calling(client, server)
        server.ask(SAMPLING, "{}")
        await client.reply(await client.question(), result="{}")
        await server.response()
        assert "did not answer within" in json.loads(await client.answer_line())["error"]["message"]


async def test_thinking_too_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_request, "PERSON_ANSWERS_WITHIN", 0.05)
    async with meeting("legacy") as (server, client):
        call = await calling(client, server)
        server.ask(SAMPLING, "{}")
        question = await client.question()
        assert "did not answer within" in (await refused(server))["message"]
        assert (await client.notification())["params"]["requestId"] == question["id"]
        server.answer(call, result="{}")
        assert json.loads(await client.answer_line())["result"] == {}


# --- a modern client and a legacy server ------------------------------------------------------------------------------


async def test_a_modern_client_is_asked_by_the_answer_and_comes_back_with_its_own() -> None:
    async with meeting("modern") as (server, client):
        call = await calling(client, server)
        server.ask(SAMPLING, f'{{"x":{EXACT}}}')
        line = await client.answer_line()
        first = json.loads(line)["result"]
        ((key, request),) = first["inputRequests"].items()
        assert (first["resultType"], request["method"]) == ("input_required", SAMPLING)
        assert member(line, "result", "inputRequests", key, "params", "x") == EXACT
        assert request["params"]["_meta"]["serverName"] == "one"
        await client.post("tools/call", back(first), id=2)
        assert member(await server.response(), "result") == EXACT
        server.answer(call, result='{"content":[]}')
        done = json.loads(await client.answer_line(2))["result"]
        assert (done["resultType"], done["content"]) == ("complete", [])
        assert len(server.of("tools/call")) == 1, "the server got the call once"


async def test_each_question_of_a_call_is_a_round() -> None:
    async with meeting("modern") as (server, client):
        call = await calling(client, server, id=0)
        for number in range(1, 4):
            server.ask(SAMPLING, f'{{"n":{number}}}', id=str(number))
            first = await asked(client, number - 1)
            assert [one["params"]["n"] for one in first["inputRequests"].values()] == [number]
            await client.post("tools/call", back(first), id=number)
            await server.response(str(number))
        server.answer(call, result="{}")
        assert json.loads(await client.answer_line(3))["result"]["resultType"] == "complete"


async def test_what_is_asked_meanwhile_or_left_unanswered_is_asked_next_time() -> None:
    async with meeting("modern") as (server, client):
        await calling(client, server)
        server.ask(SAMPLING, '{"n":1}', id="1")
        server.ask(SAMPLING, '{"n":2}', id="2")
        first = await asked(client)
        await client.post("tools/call", back(first | {"inputRequests": {}}), id=2)
        second = await asked(client, 2)
        assert [one["params"]["n"] for one in second["inputRequests"].values()] == [1, 2]
        assert first["requestState"] != second["requestState"]
        await client.post("tools/call", back(second), id=3)
        await server.response("1")
        await server.response("2")


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "other"},
        {"requestState": "mcp-multi-server.guessed"},
        {"requestState": "mcp-multi-server."},
    ],
)
async def test_a_state_goes_on_with_nothing_but_its_own_call(changed: Message) -> None:
    async with meeting("modern", tools=["echo", "other"]) as (server, client):
        await calling(client, server)
        server.ask(SAMPLING, "{}")
        first = await asked(client)
        assert (await client.error("tools/call", back(first, **changed), id=2))["code"] == INVALID_PARAMS
        assert (await client.error("prompts/get", back(first), id=3))["code"] == INVALID_PARAMS
        assert not server._responses("1")
        await client.post("tools/call", back(first), id=4)
        await server.response()


async def test_a_state_is_good_for_one_time() -> None:
    async with meeting("modern") as (server, client):
        call = await calling(client, server)
        server.ask(SAMPLING, "{}")
        first = await asked(client)
        await client.post("tools/call", back(first), id=2)
        await server.response()
        assert (await client.error("tools/call", back(first), id=3))["code"] == INVALID_PARAMS
        server.answer(call, result="{}")
        await client.answer_line(2)
        assert (await client.error("tools/call", back(first), id=4))["code"] == INVALID_PARAMS
        assert len(server.of("tools/call")) == 1


@pytest.mark.parametrize("responses", ["[]", '"x"', '{"ask-1":1}'])
async def test_responses_that_cannot_be_read_are_refused_and_may_be_given_again(responses: str) -> None:
    async with meeting("modern") as (server, client):
        await calling(client, server)
        server.ask(SAMPLING, "{}")
        first = await asked(client)
        wrong = back(first, inputResponses=json.loads(responses))
        assert (await client.error("tools/call", wrong, id=2))["code"] == INVALID_PARAMS
        await client.post("tools/call", back(first), id=3)
        await server.response()


async def test_a_modern_client_may_come_back_over_another_connection() -> None:
    server = mute()
    async with fleet(server) as running:
        await running.rested()
        client = await running.client(modern=True, capabilities=CAN)
        call = await calling(client, server)
        server.ask(SAMPLING, "{}")
        first = await asked(client)
        client.close()
        await running.until(lambda: not running.gateway.sessions)
        another = await running.client(modern=True, capabilities=CAN)
        await another.post("tools/call", back(first), id="b")
        await server.response()
        server.answer(call, result='{"x":1}')
        assert json.loads(await another.answer_line("b"))["result"]["x"] == 1


async def test_the_end_of_a_call_that_came_meanwhile_is_told_on_return() -> None:
    async with meeting("modern") as (server, client):
        call = await calling(client, server)
        server.ask(SAMPLING, "{}")
        first = await asked(client)
        server.answer(call, result='{"x":1}')
        assert await client.settled() == []
        assert (await client.result("tools/call", back(first), id=2))["x"] == 1


async def test_a_server_that_died_meanwhile_is_told_on_return() -> None:
    server = mute()
    async with fleet(server) as running:
        await running.rested()
        client = await running.client(modern=True, capabilities=CAN)
        await calling(client, server)
        server.ask(SAMPLING, "{}")
        first = await asked(client)
        server.die()
        await running.until(lambda: server.opened == 2 or None)
        error = await client.error("tools/call", back(first), id=2)
        assert (error["code"], error["data"]["server"]) == (INTERNAL_ERROR, "one")


async def test_what_the_server_took_back_meanwhile_is_not_asked_again() -> None:
    async with meeting("modern") as (server, client):
        call = await calling(client, server)
        server.ask(SAMPLING, "{}")
        first = await asked(client)
        server.tell("notifications/cancelled", '{"requestId":1}')
        await client.post("tools/call", back(first), id=2)
        await client.settled()
        server.answer(call, result='{"x":1}')
        assert json.loads(await client.answer_line(2))["result"]["x"] == 1
        assert not server._responses("1")


async def test_a_client_that_never_comes_back_ends_call_and_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_request, "PERSON_ANSWERS_WITHIN", 0.05)
    async with meeting("modern") as (server, client):
        call = await calling(client, server)
        server.ask(SAMPLING, "{}")
        first = await asked(client)
        assert params_of(await server.got("notifications/cancelled"))["requestId"] == int(call)
        assert "has ended" in (await refused(server))["message"]
        assert (await client.error("tools/call", back(first), id=2))["code"] == INVALID_PARAMS


async def test_a_client_that_left_ends_them_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_requests, "COME_BACK_WITHIN", 0.05)
    async with meeting("modern") as (server, client):
        call = await calling(client, server)
        server.ask(SAMPLING, "{}")
        await asked(client)
        client.close()
        assert params_of(await server.got("notifications/cancelled"))["requestId"] == int(call)
        assert "has ended" in (await refused(server))["message"]


async def test_a_client_that_left_stands_in_nobodys_way_for_long() -> None:
    server = mute()
    async with fleet(server) as running:
        await running.rested()
        gone, here = await running.client(modern=True, capabilities=CAN), await running.legacy(CAN)
        first = await calling(gone, server)
        server.ask(SAMPLING, "{}")
        await asked(gone)
        gone.close()
        await running.until(lambda: len(running.gateway.sessions) == 1 or None)
        await calling(here, server, number=2)
        server.ask(SAMPLING, "{}", id="2")
        assert "several clients" in (await refused(server, "2"))["message"], "it may have been asked for either"
        assert params_of(await server.got("notifications/cancelled"))["requestId"] == int(first)
        assert "has ended" in (await refused(server))["message"]
        server.ask(SAMPLING, "{}", id="3")
        await here.question()


async def test_calls_that_wait_for_their_client_have_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_requests, "POSTPONED_BY_ONE", 1)
    server, other = mute(), mute("two", tools=["other"])
    async with fleet(server, other) as running:
        await running.rested()
        client = await running.client(modern=True, capabilities=CAN)
        await calling(client, server)
        server.ask(SAMPLING, "{}")
        first = await asked(client)
        await client.post("tools/call", {"name": "other"}, id=2)
        second = member(await other.got("tools/call"), "id")
        other.ask(SAMPLING, "{}")
        assert "too many" in (await refused(other))["message"]
        other.answer(second, result="{}")
        await client.answer_line(2)
        await client.post("tools/call", back(first), id=3)
        await server.response()


async def test_the_id_of_a_call_that_waits_for_its_client_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_request, "PERSON_ANSWERS_WITHIN", 0.05)
    async with meeting("modern", tools=["echo"]) as (server, client):
        await calling(client, server, id="same")
        server.ask(SAMPLING, "{}")
        await asked(client, "same")
        again = await calling(client, server, id="same", number=2)
        await server.got("notifications/cancelled")
        server.answer(again, result='{"second":1}')
        assert json.loads(await client.answer_line("same"))["result"]["second"] == 1


async def test_progress_is_told_only_while_the_client_waits_for_an_answer() -> None:
    async with meeting("modern") as (server, client):
        await client.post("tools/call", CALL | {"_meta": {"progressToken": "p"}})
        token = member(await server.got("tools/call"), "id")
        server.ask(SAMPLING, "{}")
        first = await asked(client)
        server.report(token, "0.1")
        meta = {META + "protocolVersion": "2026-07-28", META + "clientCapabilities": CAN, "progressToken": "q"}
        await client.post("tools/call", back(first, _meta=meta), id=2)
        await server.response()
        server.report(token, "0.9")
        told = await client.notification()
        assert (told["params"]["progressToken"], told["params"]["progress"]) == ("q", 0.9)


async def test_a_call_is_counted_once_for_its_server_and_each_round_for_the_client() -> None:
    server = mute()
    async with fleet(server) as running:
        await running.rested()
        client = await running.client(modern=True, capabilities=CAN)
        call = await calling(client, server)
        server.ask(SAMPLING, "{}")
        await client.post("tools/call", back(await asked(client)), id=2)
        await server.response()
        server.answer(call, result="{}")
        await client.answer_line(2)
        done = [event for event in running.events if isinstance(event, RequestDone) and event.method == "tools/call"]
        assert [(event.server, event.tool, event.error) for event in done] == [("", "", ""), ("one", "echo", "")]


# --- a legacy client and a modern server ------------------------------------------------------------------------------


def needing(state: str | None = '"s \\u00e9\\/"') -> str:
    """A result that asks for something, and wants `state` back."""
    return ASKED % ("" if state is None else f',"requestState":{state}')


async def test_a_legacy_client_is_asked_by_requests_and_the_call_made_once_more() -> None:
    async with meeting("legacy", era="modern") as (server, client):
        await client.post("tools/call", CALL | {"arguments": {"a": 1}, "_meta": {"progressToken": "p"}})
        first = await server.got("tools/call")
        assert params_of(first)["_meta"][META + "clientCapabilities"] == CAN
        server.answer(member(first, "id"), result=needing())
        question = await client.question()
        assert question["method"] == "elicitation/create"
        assert question["params"] == {"x": 1.0, "_meta": {"serverName": "one"}}
        await client.reply(question, result=EXACT)
        second = await server.got("tools/call", number=2)
        assert member(second, "params", "inputResponses", "who") == EXACT
        assert member(second, "params", "requestState") == '"s \\u00e9\\/"'
        assert params_of(second)["arguments"] == {"a": 1}
        assert params_of(second)["_meta"]["progressToken"] == json.loads(second)["id"]
        server.report(member(second, "id"))
        assert (await client.notification())["params"]["progressToken"] == "p"
        server.answer(member(second, "id"), result='{"resultType":"complete","content":[]}')
        assert json.loads(await client.answer_line())["result"] == {"content": []}


async def test_all_of_a_round_is_asked_at_once_and_answered_together() -> None:
    server = mute(era="modern")
    requests = {name: {"method": SAMPLING, "params": {"of": name}} for name in ("a", "b")}
    async with fleet(server) as running:
        await running.rested()
        client = await running.legacy(CAN)
        call = await calling(client, server)
        server.answer(call, result=json.dumps({"resultType": "input_required", "inputRequests": requests}))
        found = [await client.question(), await client.question()]
        for question in reversed(found):
            await client.reply(question, result=json.dumps({"to": question["params"]["of"]}))
        second = params_of(await server.got("tools/call", number=2))
        assert second["inputResponses"] == {"a": {"to": "a"}, "b": {"to": "b"}}
        assert "requestState" not in second


async def test_a_server_may_ask_several_times_but_not_without_end() -> None:
    async with meeting("legacy", era="modern") as (server, client):
        call = await calling(client, server)
        for number in range(ROUNDS):
            server.answer(call, result=needing(f'"{number}"'))
            await client.reply(await client.question(), result="{}")
            line = await server.got("tools/call", number=number + 2)
            assert params_of(line)["requestState"] == str(number)
            call = member(line, "id")
        server.answer(call, result=needing())
        error = json.loads(await client.answer_line())["error"]
        assert (error["code"], "more than 10 times" in error["message"]) == (INTERNAL_ERROR, True)


async def test_a_server_that_asks_for_time_is_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_request, "POLL", 0.01)
    server = mute(era="modern")
    async with fleet(server) as running:
        await running.rested()
        client = await running.legacy()
        call = await calling(client, server)
        server.answer(call, result='{"resultType":"input_required","requestState":"later"}')
        second = await server.got("tools/call", number=2)
        assert params_of(second)["requestState"] == "later"
        assert "inputResponses" not in params_of(second)
        server.answer(member(second, "id"), result="{}")
        assert json.loads(await client.answer_line())["result"] == {}


@pytest.mark.parametrize(
    ("capabilities", "result", "words"),
    [
        ({}, needing(), "server 'one' asks for input: the client does not support elicitation/create"),
        (CAN, ASKED.replace("elicitation/create", "no/such") % "", "no/such is not supported"),
        (CAN, '{"resultType":"input_required","inputRequests":[]}', "in a way that cannot be read"),
        (CAN, '{"resultType":"input_required","inputRequests":{"a":{"method":1}}}', "in a way that cannot be read"),
        (CAN, '{"resultType":"input_required","inputRequests":{"a":{}}}', "in a way that cannot be read"),
        (CAN, '{"resultType":"input_required"}', "without saying what"),
    ],
)
async def test_what_cannot_be_asked_fails_the_call_with_the_reason(
    capabilities: Message, result: str, words: str
) -> None:
    server = mute(era="modern")
    async with fleet(server) as running:
        await running.rested()
        client = await running.legacy(capabilities)
        server.answer(await calling(client, server), result=result)
        error = json.loads(await client.answer_line())["error"]
        assert (error["code"], words in error["message"]) == (INTERNAL_ERROR, True), error
        assert await client.settled() == []


async def test_words_in_a_result_ask_for_nothing() -> None:
    async with meeting("legacy", era="modern") as (server, client):
        call = await calling(client, server)
        server.answer(call, result='{"resultType":"complete","x":"input_required"}')
        assert json.loads(await client.answer_line())["result"] == {"x": "input_required"}


async def test_a_client_that_refuses_ends_the_call_and_what_else_was_asked() -> None:
    server = mute(era="modern")
    requests = {name: {"method": SAMPLING} for name in ("a", "b")}
    async with fleet(server) as running:
        await running.rested()
        client = await running.legacy(CAN)
        call = await calling(client, server)
        server.answer(call, result=json.dumps({"resultType": "input_required", "inputRequests": requests}))
        first, second = await client.question(), await client.question()
        await client.reply(first, error='{"code":-1,"message":"rather not"}')
        assert (await client.notification())["params"]["requestId"] == second["id"]
        error = json.loads(await client.answer_line())["error"]
        assert (error["code"], "rather not" in error["message"]) == (INTERNAL_ERROR, True)
        await client.reply(second, result="{}")
        await client.settled()
        assert len(server.of("tools/call")) == 1


async def test_a_call_cancelled_while_its_client_is_asked_is_not_made_again() -> None:
    server = mute(era="modern")
    async with fleet(server) as running:
        await running.rested()
        client = await running.legacy(CAN)
        server.answer(await calling(client, server), result=needing())
        question = await client.question()
        await client.notify("notifications/cancelled", {"requestId": 1})
        assert (await client.notification())["params"]["requestId"] == question["id"]
        await client.reply(question, result="{}")
        await client.settled()
        assert len(server.of("tools/call")) == 1
        done = await running.event(RequestDone, lambda event: event.method == "tools/call")
        assert done.error == "cancelled"


async def test_a_client_that_leaves_while_it_is_asked_leaves_nothing() -> None:
    server = mute(era="modern")
    async with fleet(server) as running:
        await running.rested()
        client = await running.legacy(CAN)
        server.answer(await calling(client, server), result=needing())
        await client.question()
        client.close()
        await running.until(lambda: not running.gateway.sessions)
        scheduled: list[Any] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # no public way
        assert not [handle for handle in scheduled if not handle.cancelled() and "InputRound" in repr(handle)]


async def test_thinking_for_a_modern_server_has_an_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_request, "PERSON_ANSWERS_WITHIN", 0.05)
    async with meeting("legacy", era="modern") as (server, client):
        server.answer(await calling(client, server), result=needing())
        question = await client.question()
        assert (await client.notification())["params"]["requestId"] == question["id"]
        assert "did not answer within" in json.loads(await client.answer_line())["error"]["message"]


async def test_a_server_that_went_away_while_the_client_was_asked_is_named() -> None:
    server = mute(era="modern")
    async with fleet(server) as running:
        await running.rested()
        client = await running.legacy(CAN)
        server.answer(await calling(client, server), result=needing())
        question = await client.question()
        server.away = True
        server.die()
        await running.state("one", State.BACKOFF, State.CONNECTING)
        await client.reply(question, result="{}")
        error = json.loads(await client.answer_line())["error"]
        assert (error["code"], error["data"]["server"]) == (INTERNAL_ERROR, "one")
        server.come()


# --- a modern client and a modern server ------------------------------------------------------------------------------


async def test_between_modern_ones_all_of_it_passes_untouched() -> None:
    async with meeting("modern", era="modern") as (server, client):
        call = await calling(client, server)
        server.answer(call, result=needing())
        line = await client.answer_line()
        assert member(line, "result") == needing()
        again = back(json.loads(line)["result"])
        await client.post("tools/call", again, id=2)
        assert member(await server.got("tools/call", number=2), "params") == again


async def test_a_modern_server_may_ask_nothing_by_requests() -> None:
    async with meeting("modern", era="modern") as (server, client):
        call = await calling(client, server)
        server.ask(SAMPLING, "{}")
        server.answer(call, result="{}")
        assert json.loads(await client.answer_line())["result"] == {}
        assert await client.settled() == []


def all_postponed(running: Fleet) -> int:
    return running.router.postponed


async def test_nothing_is_left_of_a_question_that_was_answered() -> None:
    server = mute()
    async with fleet(server) as running:
        await running.rested()
        modern, legacy = await running.client(modern=True, capabilities=CAN), await running.legacy(CAN)
        call = await calling(modern, server)
        server.ask(SAMPLING, "{}")
        first = await asked(modern)
        assert all_postponed(running) == 1
        await modern.post("tools/call", back(first), id=2)
        await server.response()
        server.answer(call, result="{}")
        await modern.answer_line(2)
        call = await calling(legacy, server, number=2)
        server.ask(SAMPLING, "{}", id="2")
        await legacy.reply(await legacy.question(), result="{}")
        await server.response("2")
        server.answer(call, result="{}")
        await legacy.answer_line()
        assert all_postponed(running) == 0
        session = running.supervisor.snapshot.servers["one"].live
        assert session is not None
        assert (session.input_requests, session.pending.waiters()) == ({}, [])
        assert not any(len(session.client_requests) for session in running.gateway.sessions.values())
        scheduled: list[Any] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # no public way
        assert not [handle for handle in scheduled if not handle.cancelled() and "InputRequest" in repr(handle)]
