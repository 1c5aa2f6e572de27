"""The bridge's decisions: what a host sees of a daemon that is away, restarted, stopped or unwilling."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core.bridge import memory as bridge_memory
from mcp_multi_server.core.bridge.bridge import BARRIER, GREETING_PATIENCE, OWN
from mcp_multi_server.core.bridge.dialing import LONGEST_PAUSE, REFUSED_PAUSE
from mcp_multi_server.core.bridge.held import MOST_LINES
from mcp_multi_server.core.bridge.requests import MOST_LATE, PING_AFTER, PING_PATIENCE
from mcp_multi_server.core.catalog.catalog import Kind
from mcp_multi_server.core.errors import INTERNAL_ERROR, INVALID_REQUEST
from mcp_multi_server.core.index import STATE_KEY
from mcp_multi_server.core.protocol import SUBSCRIPTION_KEY

from .bridged import AGREED, CALL, GONE, INITIALIZE, INITIALIZED, Message, Table, dump, legacy, listing, methods

REFUSED: Message = {"code": INVALID_REQUEST, "message": "user 7 may not use this daemon", "data": {"reason": "access"}}
FULL: Message = {"code": INTERNAL_ERROR, "message": "more than 2 clients", "data": {"reason": "clients"}}
LISTEN: Message = {
    "id": "s",
    "method": "subscriptions/listen",
    "params": {"notifications": {"toolsListChanged": True}, "_meta": {"io.modelcontextprotocol/protocolVersion": "x"}},
}
ACKNOWLEDGED: Message = {
    "method": "notifications/subscriptions/acknowledged",
    "params": {"_meta": {SUBSCRIPTION_KEY: "s"}, "notifications": {"toolsListChanged": True}},
}


def call(id: object, **more: Any) -> Message:
    return {"id": id, **CALL, **more}


def the_error(messages: list[Message], id: object) -> Message:
    (message,) = messages
    assert message["id"] == id
    error: Message = message["error"]
    return error


# --- lines are passed on -------------------------------------------------------------------------------------------

FROM_HOST = [
    b'{"jsonrpc": "2.0", "id":1e0,"method":"tools/call", "params":{"big":123456789012345678901234567890,"x":1.0}}',
    b'{"method":"ping","id":1,"x":"\\u00e9\\/"}\r',
    b'{"id":5,"result":{}}',
    b"no JSON at all",
    b"[]",
    b"\xff\xfe",
    b'{"jsonrpc":"2.0","method":"notifications/cancelled"}',
    b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":[]}}',
]


@pytest.mark.parametrize("line", FROM_HOST)
def test_what_the_host_says_reaches_the_daemon_byte_for_byte(line: bytes) -> None:
    table = legacy()
    table.say(line)
    assert table.bridge.to_daemon == [line + b"\n"]


@pytest.mark.parametrize("line", [*FROM_HOST, b'{"id":null,"error":{}}', b'{"id":"never asked","result":1.0}'])
def test_what_the_daemon_says_reaches_the_host_byte_for_byte(line: bytes) -> None:
    table = legacy()
    table.send(line)
    assert table.bridge.to_host == [line + b"\n"]


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=40) | st.sampled_from(FROM_HOST)), max_size=12))
def test_nothing_that_either_side_says_breaks_the_bridge(lines: list[tuple[bool, bytes]]) -> None:
    table = legacy()
    for by_host, line in lines:
        (table.say if by_host else table.send)(line)
    table.lose()
    table.after(20)
    table.bridge.left(table.now)
    table.after(2)
    assert table.is_over()


def test_a_message_over_the_cap_is_answered_as_the_daemon_would() -> None:
    table = legacy()
    table.bridge.too_long(b'{"jsonrpc":"2.0","id":4,"method":"tools/call","pa', b'xx"}}', 100)
    table.bridge.too_long(b"xxx", b"xxx", 100)
    first, second = table.told()
    assert (first["id"], second["id"]) == (4, None)
    assert first["error"] == {"code": INVALID_REQUEST, "message": "a message may have at most 100 bytes"}


def test_an_answer_over_the_cap_is_an_error_for_who_waits_for_it() -> None:
    table = legacy()
    table.say(call(4))
    table.bridge.answer_too_long(b'{"jsonrpc":"2.0","id":4,"result":{"xx', b"x}}", 100)
    assert "more than 100 bytes" in the_error(table.told(), 4)["message"]
    table.bridge.answer_too_long(b'{"jsonrpc":"2.0","id":4,"result":{"xx', b"x}}", 100)
    assert table.told() == []


# --- a daemon that is away ------------------------------------------------------------------------------------------


def test_the_first_thing_on_a_connection_is_a_ping_and_the_rest_waits_for_its_answer() -> None:
    table = Table()
    table.say(INITIALIZE)
    table.bridge.opened(table.now)
    (ping,) = table.got()
    assert ping["method"] == "ping"
    assert ping["id"].startswith(OWN)
    table.say(call(1))
    assert table.got() == []
    table.answer(ping["id"])
    assert [message["id"] for message in table.got()] == [0, 1]
    assert table.told() == [], "the host sees nothing of it"


@pytest.mark.parametrize(("was_there", "patience"), [(False, 10.0), (True, 5.0)])
def test_a_request_waits_for_the_daemon_and_then_fails_with_the_reason(was_there: bool, patience: float) -> None:
    table = legacy() if was_there else Table()
    if was_there:
        table.lose()
    table.bridge.not_there(table.now, "no socket at /x")
    table.say(call(1))
    table.after(patience - 0.1)
    assert table.told() == []
    table.after(0.2)
    error = the_error(table.told(), 1)
    assert error["code"] == INTERNAL_ERROR
    assert error["message"] == "no socket at /x; the request was not carried out"
    assert error["data"] == {"server": None, "state": None, "reason": "daemon_away", "retryAt": None, "sent": False}
    assert table.connect()[-1:] != [call(1)], "what was answered is not sent any more"


def test_held_requests_are_sent_in_order_once_the_daemon_is_back() -> None:
    table = legacy()
    table.lose()
    table.say(call(1), {"method": "notifications/other"}, call(2))
    sent = [message for message in table.connect() if message.get("id") in (1, 2) or "other" in message["method"]]
    assert [message.get("id") for message in sent] == [1, None, 2]


def test_a_held_request_that_the_client_cancels_is_forgotten() -> None:
    table = legacy()
    table.lose()
    table.say(call(1), call(2), {"method": "notifications/cancelled", "params": {"requestId": 1}})
    assert [message["id"] for message in table.connect() if message["method"] == "tools/call"] == [2]


def test_what_is_held_has_a_cap() -> None:
    table = Table()
    table.say(*(call(id) for id in range(MOST_LINES + 1)), {"method": "notifications/one/too/many"})
    assert "too many" in the_error(table.told(), MOST_LINES)["message"]
    assert len(table.connect()) == MOST_LINES


def test_the_bytes_that_are_held_have_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_multi_server.core.bridge.held.MOST_BYTES", 1000)
    table = Table()
    table.say(call(1, more="x" * 600), call(2, more="x" * 600), call(3))
    assert the_error(table.told(), 2)
    assert [message["id"] for message in table.connect()] == [1, 3]


def test_attempts_are_quick_at_first_and_never_end() -> None:
    table, attempts = Table(), list[float]()
    while len(attempts) < 50:
        if table.bridge.wants_to_dial(table.now):
            attempts.append(table.now)
            table.bridge.not_there(table.now, "no")
        table.after(0.01)
    pauses = [later - sooner for sooner, later in pairwise(attempts)]
    assert pauses[0] < 0.1
    assert sum(pauses[:3]) < 0.5
    assert max(pauses) < LONGEST_PAUSE + 0.1
    assert pauses[-1] > LONGEST_PAUSE - 0.1


def test_a_connection_that_ends_at_once_again_and_again_is_not_made_in_a_tight_loop() -> None:
    table = Table()
    made = 0
    for _ in range(1000):
        if table.bridge.wants_to_dial(table.now):
            made += 1
            table.connect()
            table.lose()
        table.after(0.01)
    assert made < 20


def test_people_are_told_of_an_absence_and_of_its_end_once_for_each_reason() -> None:
    table = Table()
    for _ in range(5):
        table.bridge.not_there(table.now, "no socket at /x")
        table.after(0.4)
    assert table.said() == "no socket at /x; waiting for it"
    table.bridge.not_there(table.now, "permission denied")
    table.after(1)
    assert table.said() == "permission denied; waiting for it"
    table.connect()
    assert table.said() == "connected to the daemon"
    table.after(10)
    table.lose()
    table.after(1)
    table.connect()
    assert table.said() == f"{GONE}; waiting for it\nthe daemon is back"


def test_a_short_absence_in_which_nothing_was_lost_is_nobodys_concern() -> None:
    table = legacy()
    table.after(10)
    table.lose()
    table.after(0.2)
    table.connect()
    assert table.said() == ""


# --- a daemon that is lost ------------------------------------------------------------------------------------------


def test_what_was_in_flight_is_answered_with_an_error_that_says_what_is_not_known() -> None:
    table = legacy()
    table.say(call("a"), {"id": 2, "method": "resources/read", "params": {"uri": "x:y"}})
    table.got()
    table.lose()
    first, second = table.told()
    assert first["error"] == {
        "code": INTERNAL_ERROR,
        "message": f"{GONE}; the call may or may not have been carried out",
        "data": {"server": None, "state": None, "reason": "daemon_lost", "retryAt": None, "sent": True},
    }
    assert (first["id"], second["id"]) == ("a", 2)
    assert "the request may or may not" in second["error"]["message"]
    assert "2 requests were under way" in table.said()
    assert "tools/call" not in methods(table.connect())


def test_what_was_certainly_not_sent_is_sent_later() -> None:
    table = legacy()
    table.say(call(1), call(2))
    table.got()
    table.say(call(3))  # the shell has not even taken it
    table.lose(call(2))
    assert [message["id"] for message in table.told()] == [1]
    table.say(call(4))
    sent = [message["id"] for message in table.connect() if message["method"] == "tools/call"]
    assert sent == [2, 3, 4]


@given(st.lists(st.sampled_from(["call", "answer", "lose", "lose unsent", "back", "cancel", "wait"]), max_size=40))
def test_no_call_is_sent_twice_and_each_gets_one_answer(steps: list[str]) -> None:
    """Whatever happens in whichever order, also where the connection goes with lines that were not sent."""
    table, last, open_, sent, answers, cancelled = legacy(), 0, list[int](), list[int](), list[int](), set[int]()
    live, unsent = True, list[Message]()

    def look() -> None:
        new = [message for message in table.got() if message.get("method") == "tools/call"]
        unsent.extend(new)
        answers.extend(message["id"] for message in table.told() if "method" not in message)

    def flush() -> None:
        look()
        sent.extend(message["id"] for message in unsent)
        open_.extend(message["id"] for message in unsent)
        unsent.clear()

    for step in steps:
        if step == "call":
            last += 1
            table.say(call(last))
        elif step == "answer" and live:
            flush()
            if open_:
                table.answer(open_.pop(0))
        elif step.startswith("lose") and live:
            look()
            if step == "lose":
                flush()
            table.lose(*unsent)
            live, open_ = False, []
            unsent.clear()
        elif step == "back" and not live:
            table.bridge.opened(table.now)
            table.answer(table.got()[0]["id"])
            live = True
        elif step == "cancel" and last:
            cancelled.add(last)
            table.say({"method": "notifications/cancelled", "params": {"requestId": last}})
        elif step == "wait" and not live:
            table.after(6)
        look()
    assert len(sent) == len(set(sent))
    assert len(answers) == len(set(answers))
    if live:
        flush()
        for id in open_:
            table.answer(id)
    table.lose() if live else None
    table.after(6)
    look()
    assert set(answers) | cancelled == set(range(1, last + 1))


@pytest.mark.parametrize("method", ["initialize", "tools/list", "ping", "logging/setLevel", "server/discover"])
def test_what_the_daemon_answers_by_itself_is_asked_again(method: str) -> None:
    table = Table()
    table.connect()
    asked = {"id": 5, "method": method, "params": {"level": "info"}}
    table.say(asked)
    assert len(table.got()) == 1
    table.lose()
    assert table.told() == []
    (again,) = table.connect()
    assert again == {"jsonrpc": "2.0", **asked}


def test_requests_of_a_daemon_that_is_gone_are_withdrawn_and_late_answers_go_nowhere() -> None:
    table = legacy()
    question: Message = {"id": 41, "method": "sampling/createMessage", "params": {}}
    table.send(question, question | {"id": 42}, question | {"id": 43})
    table.say({"id": 42, "result": {}})
    table.send({"method": "notifications/cancelled", "params": {"requestId": 43}})
    table.told(), table.got()
    table.lose()
    (told,) = table.told()
    assert told["method"] == "notifications/cancelled"
    assert told["params"] == {"requestId": 41, "reason": GONE}
    table.connect()
    table.say({"id": 41, "result": {"late": True}})
    assert table.got() == []
    table.send(question | {"id": 44})
    table.say({"id": 44, "result": {}})
    assert [message["id"] for message in table.got()] == [44]


def test_an_answer_that_comes_while_the_daemon_is_away_is_dropped() -> None:
    table = legacy()
    table.send({"id": 41, "method": "roots/list"})
    table.lose()
    table.say({"id": 41, "result": {}}, {"id": None, "result": {}})
    assert {41, None}.isdisjoint(message.get("id", 0) for message in table.connect())


def test_streams_of_the_daemons_own_end_with_it() -> None:
    table = legacy()
    table.say({"id": 1, "method": "daemon/events"}, {"id": 2, "method": "daemon/logs", "params": {"follow": True}})
    table.lose()
    assert sorted(message["id"] for message in table.told()) == [1, 2]


def test_requests_whose_late_answers_are_waited_for_have_a_cap() -> None:
    table = legacy()
    for id in range(MOST_LATE + 1):
        table.send({"id": id, "method": "roots/list"})
    table.lose()
    table.connect()
    table.say({"id": 0, "result": {}}, {"id": MOST_LATE, "result": {}})
    assert [message["id"] for message in table.got()] == [0], "of the oldest nothing is known any more"


# --- what the next daemon hears -------------------------------------------------------------------------------------


def test_the_handshake_level_and_subscriptions_are_said_again_and_their_answers_kept_back() -> None:
    table = legacy()
    level = {"id": 1, "method": "logging/setLevel", "params": {"level": "debug"}}
    subscribe = {"id": 2, "method": "resources/subscribe", "params": {"uri": "a:1"}}
    other = {"id": 3, "method": "resources/subscribe", "params": {"uri": "a:2"}}
    refused = {"id": 4, "method": "resources/subscribe", "params": {"uri": "a:3"}}
    senseless = {"id": 6, "method": "resources/subscribe"}
    table.say(level, subscribe, other, refused, senseless)
    for id in (1, 2, 3, 6):
        table.answer(id)
    table.send({"id": 4, "error": {"code": -32601, "message": "no"}})
    table.say({"id": 5, "method": "resources/unsubscribe", "params": {"uri": "a:1"}})
    table.answer(5)
    table.got(), table.told()
    table.lose()
    said = table.connect()
    assert methods(said) == ["initialize", "notifications/initialized", "logging/setLevel", "resources/subscribe"]
    assert said[0]["params"] == INITIALIZE["params"]
    assert said[3]["params"] == {"uri": "a:2"}
    ids = [message["id"] for message in said if "id" in message]
    assert all(id.startswith(OWN) for id in ids)
    assert len(set(ids)) == 3
    table.answer(ids[0], AGREED)
    for id in ids[1:]:
        table.send({"id": id, "error": {"code": -32601, "message": "unknown here"}})
    assert table.told() == []


def test_a_client_between_the_two_halves_of_its_handshake_goes_on_with_the_next_daemon() -> None:
    table = Table()
    table.connect()
    table.say(INITIALIZE)
    table.answer(0, AGREED)
    table.lose()
    table.say(INITIALIZED)
    assert methods(table.connect()) == ["initialize", "notifications/initialized"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"result": AGREED}, ""),
        ({"result": AGREED | {"protocolVersion": "2025-11-25"}}, "speaks MCP 2025-11-25 instead of MCP 2025-06-18"),
        (
            {"error": {"code": -32602, "message": "never heard of it"}},
            "refuses the client's handshake: never heard of it",
        ),
    ],
)
def test_a_daemon_that_agrees_to_something_else_is_told_of(answer: Message, said: str) -> None:
    table = legacy()
    table.lose()
    (handshake, _) = table.connect()
    table.send({"id": handshake["id"], **answer})
    assert said in table.said() if said else table.said() == ""
    table.say(call(1))
    assert methods(table.got()) == ["tools/call"], "the client goes on all the same"


def test_a_subscription_is_made_again_under_its_own_id_and_acknowledged_once() -> None:
    table = Table()
    table.connect()
    table.say(LISTEN)
    unknown = ACKNOWLEDGED | {"params": {"_meta": {SUBSCRIPTION_KEY: "of another client"}}}
    table.send(ACKNOWLEDGED, unknown)
    assert len(table.told()) == 2
    table.got()
    table.send({"id": "s", "result": {"resultType": "complete"}})  # as a daemon does that stops
    table.lose()
    assert table.connect() == [{"jsonrpc": "2.0", **LISTEN}]
    table.send(ACKNOWLEDGED)
    assert table.told() == [], "the client sees one subscription, without a break"


def test_a_subscription_that_ends_while_the_daemon_stays_has_ended() -> None:
    table = Table()
    table.connect()
    table.say(LISTEN)
    table.send(ACKNOWLEDGED)
    table.told()
    table.send({"id": "s", "result": {"resultType": "complete"}})
    assert table.told() == []
    table.after(1.1)
    assert [message["id"] for message in table.told()] == ["s"]
    table.lose()
    assert table.connect() == []


@pytest.mark.parametrize("how", ["refused", "cancelled", "cancelled while away"])
def test_a_subscription_that_is_no_more_is_not_made_again(how: str) -> None:
    table = Table()
    table.connect()
    table.say(LISTEN)
    cancel = {"method": "notifications/cancelled", "params": {"requestId": "s"}}
    if how == "refused":
        table.send({"id": "s", "error": {"code": -32602, "message": "no"}})
        assert len(table.told()) == 1
    elif how == "cancelled":
        table.say(cancel)
    table.got()
    table.lose()
    if how == "cancelled while away":
        table.say(cancel)
    assert table.connect() == []


# --- lists that are not the same any more ---------------------------------------------------------------------------


def read_lists(table: Table, **results: Message) -> None:
    for at, (method, result) in enumerate(results.items()):
        table.say({"id": f"list{at}", "method": f"{method}/list"})
        table.answer(f"list{at}", result)
    table.got(), table.told()


def lists_asked(table: Table) -> dict[str, str]:
    return {message["method"]: message["id"] for message in table.connect() if message["method"].endswith("/list")}


@pytest.mark.parametrize(
    ("now", "differs"),
    [
        (listing("a", "b"), False),
        (listing("a", "b", **{STATE_KEY: "connecting"}), False),
        (listing("a"), True),
        (listing("b", "a"), True),
        (listing("a", "b", other=1), True),
    ],
    ids=["the same", "its server away", "one less", "another order", "another meta"],
)
def test_a_list_that_the_client_knows_is_compared_with_the_new_daemons(now: Message, differs: bool) -> None:
    table = legacy()
    read_lists(table, tools=listing("a", "b"))
    table.lose()
    asked = lists_asked(table)
    assert list(asked) == ["tools/list"], "others were never read"
    table.answer(asked["tools/list"], now)
    assert methods(table.told()) == (["notifications/tools/list_changed"] if differs else [])
    table.lose()
    table.answer(lists_asked(table)["tools/list"], now)
    assert table.told() == [], "told once"


def test_resources_and_their_templates_share_a_notification() -> None:
    table = legacy()
    table.say({"id": 1, "method": "resources/list"}, {"id": 2, "method": "resources/templates/list"})
    table.answer(1, {"resources": []})
    table.answer(2, {"resourceTemplates": []})
    table.got(), table.told()
    table.lose()
    asked = lists_asked(table)
    table.answer(asked["resources/list"], {"resources": [{"uri": "a:1"}]})
    table.answer(asked["resources/templates/list"], {"resourceTemplates": [{"uriTemplate": "a:{x}"}]})
    assert methods(table.told()) == ["notifications/resources/list_changed"]


def test_a_modern_client_hears_of_a_changed_list_through_its_subscription() -> None:
    table = Table()
    table.connect()
    table.say(LISTEN, LISTEN | {"id": 5, "params": {"notifications": {"promptsListChanged": True}}})
    read_lists(table, tools=listing("a"))
    table.lose()
    table.answer(lists_asked(table)["tools/list"], listing("b"))
    (told,) = table.told()
    assert told["method"] == "notifications/tools/list_changed"
    assert told["params"] == {"_meta": {SUBSCRIPTION_KEY: "s"}}


@pytest.mark.parametrize(
    "answer", [{"error": {"code": 1, "message": ""}}, {"result": {}}, {"result": {"tools": [], "nextCursor": "x"}}]
)
def test_a_list_that_cannot_be_compared_is_not_told_of(answer: Message) -> None:
    table = legacy()
    read_lists(table, tools=listing("a"))
    table.lose()
    table.send({"id": lists_asked(table)["tools/list"], **answer})
    assert table.told() == []
    table.say({"id": 9, "method": "tools/list"})
    table.send({"id": 9, **answer})
    table.told()
    table.lose()
    assert lists_asked(table) == {}, "and what the client was answered so is not compared later"


def test_a_page_is_not_compared() -> None:
    table = legacy()
    table.say({"id": 1, "method": "tools/list", "params": {"cursor": "x"}})
    table.answer(1, listing("a"))
    table.lose()
    assert lists_asked(table) == {}


def test_the_lists_are_those_that_the_daemon_has() -> None:
    assert {kind.list_method: (kind.member, kind.capability) for kind in Kind} == bridge_memory.LISTS
    assert bridge_memory.AWAY_MARK == STATE_KEY
    assert bridge_memory.SUBSCRIPTION_KEY == SUBSCRIPTION_KEY
    for _, subject in bridge_memory.LISTS.values():
        assert {kind.list_changed for kind in Kind} >= {f"notifications/{subject}/list_changed"}
        assert {kind.subscription for kind in Kind} >= {f"{subject}ListChanged"}


# --- a daemon that does not answer ----------------------------------------------------------------------------------


def test_a_daemon_that_answers_nothing_is_asked_for_a_sign_of_life_and_then_given_up() -> None:
    table = legacy()
    table.say(call(1))
    table.got()
    table.after(PING_AFTER - 0.1)
    assert table.got() == []
    table.after(1.2)
    assert methods(table.got()) == ["ping"]
    table.after(PING_PATIENCE - 2)
    assert not table.hung_up()
    table.after(2.1)
    assert table.hung_up() == "the daemon does not answer"
    table.lose(why=table.bridge.hang_up)
    assert "may or may not have been carried out" in the_error(table.told(), 1)["message"]


@pytest.mark.parametrize("sign", ["the answer to the ping", "anything"])
def test_a_slow_call_of_a_daemon_that_lives_is_waited_for(sign: str) -> None:
    table = legacy()
    table.say(call(1))
    table.got()
    for _ in range(100):
        table.after(PING_AFTER + 1.1)
        (ping,) = table.got()
        table.answer(ping["id"]) if sign.startswith("the") else table.send({"method": "notifications/message"})
    assert not table.hung_up()
    assert all("id" not in message for message in table.told())


def test_without_an_open_request_a_silent_daemon_is_left_alone_and_nothing_is_due() -> None:
    table = legacy()
    table.say({"id": 1, "method": "daemon/events"}, LISTEN)
    table.got()
    table.after(0.1)
    assert table.bridge.wait(table.now) is None
    table.after(1000)
    assert table.got() == []
    assert not table.hung_up()


def test_a_request_with_a_time_limit_of_its_own_is_answered_soon_after_it() -> None:
    table = legacy()
    table.say(call(1, params={"name": "t", "_meta": {"mcp-multi-server/timeout": 1}}), call(2))
    table.got()
    table.after(1.1)
    (ping,) = table.got()
    assert ping["method"] == "ping"
    table.after(2.1)
    assert "may or may not" in the_error(table.told(), 1)["message"]
    table.answer(1, {"late": True})
    table.answer(2)
    assert [message["id"] for message in table.told()] == [2], "an answer after the error would be a second one"


def test_a_time_limit_of_a_request_is_the_daemons_business_while_it_lives() -> None:
    table = legacy()
    table.say(call(1, params={"_meta": {"mcp-multi-server/timeout": 1}}))
    table.got()
    table.after(1.1)
    table.answer(table.got()[0]["id"])
    table.after(4)
    assert table.told() == []
    table.answer(1, {"in": "time"})
    assert [message["result"] for message in table.told()] == [{"in": "time"}]


def test_a_daemon_that_takes_a_connection_and_does_not_answer_is_not_there() -> None:
    table = Table()
    table.say(INITIALIZE)
    table.bridge.opened(table.now)
    table.after(5.1)
    assert "takes connections but does not answer" in the_error(table.told(), 0)["message"]
    assert "takes connections but does not answer; waiting" in table.said()
    table.after(GREETING_PATIENCE - 6)
    assert not table.hung_up()
    table.after(2)
    assert table.hung_up()


# --- a daemon that turns us away ------------------------------------------------------------------------------------


def turned_away(table: Table, error: Message, *, by_id: bool = True) -> None:
    table.bridge.opened(table.now)
    (ping,) = table.got()
    table.send({"id": ping["id"] if by_id else None, "error": error})
    assert table.hung_up()
    table.lose(why=table.bridge.hang_up)


@pytest.mark.parametrize("by_id", [True, False])
def test_who_has_no_access_hears_it_as_the_answer_to_each_request(by_id: bool) -> None:
    table = Table()
    table.say(INITIALIZE)
    turned_away(table, REFUSED, by_id=by_id)
    assert the_error(table.told(), 0) == REFUSED
    table.say(call(1), {"method": "notifications/initialized"})
    assert the_error(table.told(), 1) == REFUSED
    table.after(0)
    assert "the daemon refuses this client: user 7 may not use this daemon" in table.said()
    table.after(REFUSED_PAUSE - 1)
    assert not table.bridge.wants_to_dial(table.now)
    table.after(1.1)
    assert table.bridge.wants_to_dial(table.now), "the rules may have changed"
    table.say(call(2))
    assert the_error(table.told(), 2) == REFUSED
    table.connect()
    table.say(call(3))
    assert methods(table.got()) == ["tools/call"]


def test_a_daemon_that_is_full_is_tried_again_and_says_so_in_the_end() -> None:
    table = Table()
    table.say(INITIALIZE)
    turned_away(table, FULL)
    assert table.told() == []
    table.after(1.1)
    assert table.bridge.wants_to_dial(table.now)
    turned_away(table, FULL)
    table.after(5)
    assert the_error(table.told(), 0) == FULL
    table.say(call(1))
    assert methods(table.connect()) == ["tools/call"]


def test_a_refusal_is_forgotten_with_the_daemon_that_said_it() -> None:
    table = Table()
    turned_away(table, REFUSED)
    table.bridge.not_there(table.now, "no socket at /x")
    table.say(call(1))
    table.after(6)
    assert "no socket at /x" in the_error(table.told(), 1)["message"]


@pytest.mark.parametrize(
    "noise", [b"\xff\xfe", b'{"method":"notifications/x"}', b'{"id":9,"result":{}}', b'{"id":null,"result":{}}']
)
def test_what_comes_before_the_answer_to_the_ping_is_not_from_a_daemon(noise: bytes) -> None:
    table = Table()
    table.bridge.opened(table.now)
    table.send(noise)
    assert table.bridge.to_host == []
    assert not table.hung_up()
    table.answer(table.got()[0]["id"])
    table.say(call(1))
    assert methods(table.got()) == ["tools/call"]


def test_another_kind_of_daemon_that_does_not_know_ping_is_there_all_the_same() -> None:
    table = Table()
    table.bridge.opened(table.now)
    table.send({"id": table.got()[0]["id"], "error": {"code": -32601, "message": "Method not found"}})
    table.say(call(1))
    assert methods(table.got()) == ["tools/call"]


# --- progress -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "progress", "apart"), [(7, 7, True), ("a", "a", True), (None, 7, False), (7, 8, False), (7, None, False)]
)
def test_a_result_is_kept_apart_from_the_progress_before_it(token: object, progress: object, apart: bool) -> None:
    table = legacy()
    table.say(call(1, params={"_meta": {"progressToken": token}}))
    if progress is not None:
        table.send({"method": "notifications/progress", "params": {"progressToken": progress, "progress": 1}})
    table.answer(1)
    assert (BARRIER in table.bridge.to_host) is apart
    assert table.bridge.to_host[-1] == dump({"id": 1, "result": {}}) + b"\n"


# --- a client that leaves -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("live", [True, False])
def test_who_waits_for_nothing_is_gone_at_once(live: bool) -> None:
    table = legacy()
    table.say(LISTEN, {"id": 1, "method": "daemon/events"})
    if not live:
        table.lose()
        table.told()
    table.bridge.left(table.now)
    assert table.is_over()
    assert not table.bridge.unanswered
    assert not table.bridge.wants_to_dial(table.now + 10)


def test_calls_in_flight_get_their_time_and_are_then_cancelled() -> None:
    table = legacy(linger=1.5)
    table.say(call(1), call(2))
    table.got()
    table.bridge.left(table.now)
    table.after(1.4)
    table.answer(1)
    assert not table.is_over()
    table.after(0.2)
    assert table.is_over()
    assert table.bridge.unanswered == 1
    (told,) = table.got()
    assert told["method"] == "notifications/cancelled"
    assert told["params"]["requestId"] == 2


def test_the_last_answer_ends_it() -> None:
    table = legacy()
    table.say(call(1))
    table.bridge.left(table.now)
    assert not table.is_over()
    table.answer(1)
    assert table.is_over()
    assert not table.bridge.unanswered
    assert not table.bridge.is_unserved


def test_a_client_that_has_left_is_asked_nothing() -> None:
    table = legacy()
    table.say(call(1))
    table.send({"id": 41, "method": "elicitation/create"})
    table.told(), table.got()
    table.bridge.left(table.now)
    table.send({"id": 42, "method": "elicitation/create"})
    assert [(message["id"], message["error"]["message"]) for message in table.got()] == [
        (41, "the client is gone"),
        (42, "the client is gone"),
    ]
    assert table.told() == []


def test_held_requests_of_a_client_that_has_left_wait_for_the_daemon_no_longer_than_it_lingers() -> None:
    table = Table(linger=1.5)
    table.bridge.not_there(table.now, "no socket at /x")
    table.say(call(1))
    table.bridge.left(table.now)
    table.after(1.4)
    assert table.bridge.wants_to_dial(table.now)
    assert not table.is_over()
    table.after(0.2)
    assert table.is_over()
    assert table.bridge.is_unserved
    assert "no socket at /x" in the_error(table.told(), 1)["message"]


def test_json_that_is_said_again_is_the_clients_own() -> None:
    """Only the id is another one."""
    table = Table()
    table.connect()
    table.say(INITIALIZE | {"extra": {"big": 123456789012345678901234567890}})
    table.answer(0, AGREED)
    table.got()
    table.lose()
    (again,) = table.connect()
    assert json.loads(json.dumps(again)) | {"id": 0} == {"jsonrpc": "2.0", **INITIALIZE, "extra": again["extra"]}
    assert again["extra"]["big"] == 123456789012345678901234567890
