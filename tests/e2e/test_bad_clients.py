"""Clients that break the protocol, its limits or their connection: each gets its answer, nobody else notices."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fixtures.fixture import META
from tests.polling import eventually

from .entries import fixture
from .harness import Daemon
from .processes import memory_kib
from .wire import Closed, Wire

PARTIAL_LINE = 1.0
OUTGOING = 4 * 1024 * 1024
CLIENTS = 24
IN_FLIGHT = 16
LIMITS = {
    "partialLine": PARTIAL_LINE,
    "outgoing": OUTGOING,
    "serverLine": OUTGOING,
    "clients": CLIENTS,
    "inFlight": IN_FLIGHT,
}
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    servers = {"one": fixture("one", "--era", "legacy"), "two": fixture("two", "--era", "modern")}
    with Daemon(servers, settings={"limits": LIMITS}) as running:
        yield running.await_up()


@pytest.fixture
def good(daemon: Daemon) -> Iterator[Wire]:
    """A client that was there before, and is served as well as ever afterwards."""
    with daemon.legacy() as wire:
        yield wire
        begun = time.monotonic()
        assert wire.call("one__echo", {"n": 1})["structuredContent"]["server"] == "one"
        assert wire.call("two__echo", {"n": 1})["structuredContent"]["server"] == "two"
        assert time.monotonic() - begun < 5
    with daemon.modern() as fresh:
        assert fresh.call("two__echo")["structuredContent"]["server"] == "two"


@pytest.fixture
def bad(daemon: Daemon, good: Wire) -> Iterator[Wire]:
    """The client that the test is about; it has shaken hands."""
    with daemon.legacy() as wire:
        yield wire


NOT_JSON = -32700
NOT_A_REQUEST = -32600
NO_SUCH_METHOD = -32601
BAD_PARAMS = -32602
LINES: list[tuple[str, bytes, object, object]] = [
    ("half an object", b"{", NOT_JSON, None),
    ("prose", b"GET / HTTP/1.1", NOT_JSON, None),
    ("two values", b'{"jsonrpc":"2.0","id":1,"method":"ping"} {}', NOT_JSON, None),
    ("a lone quote", b'"', NOT_JSON, None),
    ("NaN", b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":NaN}}', NOT_JSON, None),
    ("invalid UTF-8", b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"\xff"}}', NOT_JSON, ...),
    ("a lone surrogate", b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"\\ud800"}}', ..., ...),
    ("NUL bytes", b"\0\0\0\0", NOT_JSON, None),
    ("an empty batch", b"[]", NOT_A_REQUEST, None),
    ("a batch", b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', NOT_A_REQUEST, None),
    ("a number", b"3", NOT_A_REQUEST, None),
    ("a string", b'"ping"', NOT_A_REQUEST, None),
    ("null", b"null", NOT_A_REQUEST, None),
    ("an empty object", b"{}", NOT_A_REQUEST, None),
    ("id null", b'{"jsonrpc":"2.0","id":null,"method":"ping"}', NOT_A_REQUEST, None),
    ("id a float", b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', NOT_A_REQUEST, None),
    ("id a boolean", b'{"jsonrpc":"2.0","id":true,"method":"ping"}', NOT_A_REQUEST, None),
    ("id an object", b'{"jsonrpc":"2.0","id":{},"method":"ping"}', NOT_A_REQUEST, None),
    ("no version", b'{"id":1,"method":"ping"}', NOT_A_REQUEST, 1),
    ("version 1.0", b'{"jsonrpc":"1.0","id":"v","method":"ping"}', NOT_A_REQUEST, "v"),
    ("method a number", b'{"jsonrpc":"2.0","id":1,"method":7}', NOT_A_REQUEST, 1),
    ("params an array", b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}', NOT_A_REQUEST, 1),
    ("params a string", b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":"x"}', NOT_A_REQUEST, 1),
    ("an unknown method", b'{"jsonrpc":"2.0","id":1,"method":"none/such"}', NO_SUCH_METHOD, 1),
    ("an unknown control method", b'{"jsonrpc":"2.0","id":1,"method":"daemon/none"}', NO_SUCH_METHOD, 1),
    ("an empty method", b'{"jsonrpc":"2.0","id":1,"method":""}', ..., 1),
]


@pytest.mark.parametrize(("line", "code", "id"), [case[1:] for case in LINES], ids=[case[0] for case in LINES])
def test_a_bad_line_is_answered_with_its_own_error(line: bytes, code: object, id: object, bad: Wire) -> None:
    bad.send(line)
    answer = next(message for message in iter(bad.message, None) if "method" not in message)
    assert code is ... or answer["error"]["code"] == code
    assert id is ... or answer["id"] == id
    assert isinstance(answer["error"]["message"], str)
    assert bad.call("one__echo")


CALLS: list[tuple[str, str, object]] = [
    ("tools/call", "{}", BAD_PARAMS),
    ("tools/call", '{"name":3}', BAD_PARAMS),
    ("tools/call", '{"name":"none_such"}', BAD_PARAMS),
    ("tools/call", '{"name":"one__none_such"}', BAD_PARAMS),
    ("tools/call", '{"name":"one__echo","_meta":"x"}', BAD_PARAMS),
    ("tools/call", '{"name":"one__echo","name":"one__none_such"}', ...),
    ("prompts/get", '{"name":"none_such"}', BAD_PARAMS),
    ("prompts/get", '{"name":null}', BAD_PARAMS),
    ("resources/read", '{"uri":17}', BAD_PARAMS),
    ("resources/read", "{}", BAD_PARAMS),
    ("completion/complete", "{}", BAD_PARAMS),
    ("completion/complete", '{"ref":"x","argument":{}}', BAD_PARAMS),
    ("completion/complete", '{"ref":{"type":"ref/none","name":"x"}}', BAD_PARAMS),
    ("tools/list", '{"cursor":"made up"}', BAD_PARAMS),
    ("tools/list", '{"cursor":7}', BAD_PARAMS),
    ("daemon/restart", "{}", BAD_PARAMS),
    ("daemon/restart", '{"server":"none_such"}', BAD_PARAMS),
    ("daemon/restart", '{"server":["one"]}', BAD_PARAMS),
    ("daemon/logs", '{"server":"none_such","lines":3}', BAD_PARAMS),
    ("daemon/logs", '{"server":"one","lines":"many"}', BAD_PARAMS),
    ("daemon/logs", '{"server":"one","lines":-1}', BAD_PARAMS),
    ("daemon/plan", '{"config":"x"}', ...),
    ("initialize", '{"protocolVersion":7}', ...),
]


@pytest.mark.parametrize(("method", "params", "code"), CALLS)
def test_wrong_params_are_an_error_with_the_callers_id(method: str, params: str, code: object, bad: Wire) -> None:
    bad.send(f'{{"jsonrpc":"2.0","id":"mine","method":"{method}","params":{params}}}'.encode())
    answer = bad.answer("mine")
    assert code is ... or answer["error"]["code"] == code
    assert bad.call("one__echo")


def test_an_error_never_repeats_what_was_sent_at_length(bad: Wire) -> None:
    """A message for people, not an echo: a megabyte of name comes back as a short text."""
    assert len(bad.error("tools/call", {"name": "n" * MIB})["message"]) < 1000
    assert len(bad.error("x" * MIB)["message"]) < 1000
    assert len(bad.error("resources/read", {"uri": "u:" + "n" * MIB})["message"]) < 5000


def test_a_modern_request_needs_its_whole_envelope(daemon: Daemon, good: Wire) -> None:
    with daemon.wire() as wire:
        version = {META + "protocolVersion": "2026-07-28"}
        assert wire.error("tools/list", {"_meta": version})["code"] == BAD_PARAMS
        unknown = wire.error("tools/list", {"_meta": {META + "protocolVersion": "2099-01-01", **CAPABILITIES}})
        assert unknown["code"] == -32022
        assert unknown["data"]["requested"] == "2099-01-01"
        assert "2026-07-28" in unknown["data"]["supported"]
        assert wire.result("tools/list", {"_meta": version | CAPABILITIES})["resultType"] == "complete"


CAPABILITIES: dict[str, Any] = {META + "clientCapabilities": {}}


def test_before_the_handshake_a_legacy_client_gets_errors(daemon: Daemon, good: Wire) -> None:
    with daemon.wire() as wire:
        assert "initialize" in wire.error("tools/list")["message"]
        assert "initialize" in wire.error("tools/call", {"name": "one__echo"})["message"]
        assert wire.error("none/such")["code"] == NO_SUCH_METHOD
        assert wire.result("ping") == {}
        assert wire.result("daemon/status")["servers"]
        assert wire.initialize()["protocolVersion"] == "2025-11-25"
        assert wire.call("one__echo")


def test_an_old_revision_is_spoken_and_an_unknown_one_is_answered_with_ours(daemon: Daemon) -> None:
    for asked, answered in (("2024-11-05", "2024-11-05"), ("2025-06-18", "2025-06-18"), ("1999-01-01", "2025-11-25")):
        with daemon.wire() as wire:
            assert wire.initialize(asked)["protocolVersion"] == answered


def test_answers_and_notifications_out_of_nowhere_are_ignored(bad: Wire) -> None:
    bad.send(b'{"jsonrpc":"2.0","id":5,"result":{}}')
    bad.send(b'{"jsonrpc":"2.0","id":"x","error":{"code":1,"message":"m"}}')
    bad.send(b'{"jsonrpc":"2.0","method":"notifications/none/such","params":{"a":1}}')
    bad.send(b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":424242}}')
    bad.send(b'{"jsonrpc":"2.0","method":"notifications/cancelled"}')
    bad.send(b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":{}}}')
    bad.send(b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":2}}')
    bad.send(b"")
    bad.send(b"   \t\r")
    assert bad.call("one__echo")
    assert bad.drain(quiet=0.1) == []


def test_an_id_in_use_is_refused_and_the_first_call_goes_on(bad: Wire) -> None:
    bad.post("tools/call", {"name": "one__slow", "arguments": {"seconds": 0.4, "steps": 0}}, id="twice")
    bad.post("tools/call", {"name": "one__echo"}, id="twice")
    answers = [bad.message(), bad.message()]
    assert [answer["id"] for answer in answers] == ["twice", "twice"]
    assert answers[0]["error"]["code"] == NOT_A_REQUEST
    assert answers[1]["result"]["structuredContent"]["seconds"] == 0.4


def test_nesting_without_end_is_refused(bad: Wire) -> None:
    depth = 200_000
    line = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    bad.send(line)
    assert bad.message()["error"]["code"] in (NOT_JSON, NOT_A_REQUEST)
    assert bad.call("one__echo")


def test_a_line_over_the_cap_is_refused_without_being_kept(daemon: Daemon, good: Wire) -> None:
    before = memory_kib(daemon.pid)
    with daemon.legacy() as wire:
        text = b"x" * (5 * MIB)
        wire.send(b'{"jsonrpc":"2.0","id":"long","method":"tools/call","params":{"name":"%b"}}' % text)
        try:
            answer = wire.message()
        except Closed:
            pass  # cutting such a client off is as good an answer
        else:
            assert answer["error"]["code"] in (NOT_JSON, NOT_A_REQUEST)
            assert answer["id"] in ("long", None)
    assert memory_kib(daemon.pid) - before < 16 * 1024


def test_a_line_without_an_end_does_not_fill_the_memory(daemon: Daemon, good: Wire) -> None:
    before = memory_kib(daemon.pid)
    with daemon.wire() as wire:
        try:
            for _ in range(64):
                wire.socket.sendall(b"x" * MIB)
        except OSError:
            pass  # cut off
        assert memory_kib(daemon.pid) - before < 16 * 1024


@pytest.mark.parametrize("begun", [b"{", b'{"jsonrpc":"2.0","id":1,', b"x" * 100_000])
def test_a_line_that_is_begun_and_not_ended_cuts_the_client_off(begun: bytes, daemon: Daemon, good: Wire) -> None:
    with daemon.wire() as wire:
        begun_at = time.monotonic()
        wire.socket.sendall(begun)
        assert wire.is_closed(within=PARTIAL_LINE + 5)
        assert time.monotonic() - begun_at > PARTIAL_LINE / 2


def test_a_client_that_drips_its_line_is_cut_off_too(daemon: Daemon, good: Wire) -> None:
    """One byte in time does not renew the time: the line as a whole has to end."""
    with daemon.wire() as wire:

        def dripped() -> bool:
            try:
                wire.socket.sendall(b"x")
            except OSError:
                return True
            return wire.is_closed(within=0.05)

        eventually(dripped, within=PARTIAL_LINE + 6, what="the end of a client that drips")


def test_an_idle_client_is_not_cut_off(daemon: Daemon) -> None:
    with daemon.legacy() as idle, daemon.wire() as other:
        other.socket.sendall(b"{")
        assert other.is_closed(within=PARTIAL_LINE + 5)
        assert idle.call("one__echo")


def test_a_client_that_never_reads_is_cut_off_and_harms_nobody(daemon: Daemon, good: Wire) -> None:
    before = memory_kib(daemon.pid)
    with daemon.legacy() as deaf:
        for number in range(16):
            deaf.post("tools/call", {"name": "one__big", "arguments": {"bytes": 2 * MIB}}, id=f"big {number}")
        slowest = 0.0
        for _ in range(50):
            begun = time.monotonic()
            good.call("two__echo")
            slowest = max(slowest, time.monotonic() - begun)
        assert slowest < 2
        eventually(lambda: _is_reset(deaf.socket), within=10, what="the end of the client that never reads")
    assert memory_kib(daemon.pid) - before < 8 * OUTGOING // 1024


def _is_reset(connection: socket.socket) -> bool:
    """Whether the other side is gone, found out by writing: reading is what this client does not do."""
    try:
        connection.sendall(b"\n")
    except OSError:
        return True
    return False


@pytest.mark.parametrize("server", ["one", "two"])
def test_the_server_is_told_when_a_client_vanishes_mid_call(server: str, daemon: Daemon, good: Wire) -> None:
    tag = f"vanished from {server}"
    with daemon.legacy() as wire:
        wire.post("tools/call", {"name": f"{server}__slow", "arguments": {"seconds": 30, "tag": tag}})
        eventually(lambda: tag in _calls(good, server)["running"], what="the call to run")
    cancelled = eventually(lambda: [c for c in _calls(good, server)["cancelled"] if c["tag"] == tag])
    assert len(cancelled) == 1
    assert tag not in _calls(good, server)["running"]


def _calls(wire: Wire, server: str) -> Any:
    return wire.call(f"{server}__cancelled_ids")["structuredContent"]


def test_half_a_connection_still_gets_its_answers(daemon: Daemon, good: Wire) -> None:
    """`printf … | socat` shuts its writing side before the answer is there."""
    with daemon.legacy() as wire:
        wire.post("tools/call", {"name": "one__slow", "arguments": {"seconds": 0.2, "steps": 0}}, id=1)
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.answer(1)["result"]["structuredContent"]["seconds"] == 0.2
        assert wire.is_closed()


def test_a_request_and_the_end_of_the_stream_in_one_breath(daemon: Daemon, good: Wire) -> None:
    with daemon.wire() as wire:
        wire.post("daemon/status", {}, id=1)
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.answer(1)["result"]["pid"] == daemon.pid


def test_the_end_of_the_stream_ends_a_last_line_without_a_newline(daemon: Daemon, good: Wire) -> None:
    with daemon.wire() as wire:
        wire.socket.sendall(b'{"jsonrpc":"2.0","id":1,"method":"daemon/status"}')
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.answer(1)["result"]["pid"] == daemon.pid


def test_more_calls_than_may_be_in_flight_are_answered_all_the_same(daemon: Daemon, good: Wire) -> None:
    with daemon.legacy() as eager:
        params = {"name": "one__slow", "arguments": {"seconds": 0.2, "steps": 0}}
        ids = [eager.post("tools/call", params) for _ in range(3 * IN_FLIGHT)]
        answers = [eager.answer(id) for id in ids]
    refused = [answer["error"] for answer in answers if "error" in answer]
    assert all(error["code"] == -32603 for error in refused)
    assert len(answers) - len(refused) >= IN_FLIGHT


def test_more_clients_than_there_is_room_for_are_turned_away(daemon: Daemon, good: Wire) -> None:
    present = len(daemon.status()["clients"])
    crowd = [daemon.wire() for _ in range(CLIENTS + 4)]
    served = []
    try:
        for wire in crowd:
            try:
                wire.post("daemon/status", {}, id=1)
                served.append("result" in wire.answer(1, within=5))
            except (Closed, TimeoutError, OSError):
                served.append(False)
    finally:
        for wire in crowd:
            wire.close()
    assert CLIENTS - present <= sum(served) <= CLIENTS
    eventually(lambda: len(daemon.status()["clients"]) <= present + 1, what="the crowd to be gone")


def test_connections_that_say_nothing_cost_nothing(daemon: Daemon, good: Wire) -> None:
    """Many come and go; what they held is given back."""

    def come_and_go() -> None:
        for _ in range(10):
            for _ in range(10):
                with daemon.wire() as wire:
                    wire.notify("notifications/none")
            daemon.status()  # it has seen them go: more at a time than it has room for are turned away

    come_and_go()
    before = len(_descriptors(daemon.pid))
    come_and_go()
    eventually(lambda: len(_descriptors(daemon.pid)) <= before, what="the descriptors to be closed")


def _descriptors(pid: int) -> list[str]:
    return os.listdir(f"/proc/{pid}/fd")


def test_a_client_appears_in_the_status_with_its_name_and_era(daemon: Daemon, good: Wire) -> None:
    with daemon.modern() as modern:
        modern.result("tools/list")
        clients = daemon.status()["clients"]
    assert {client["era"] for client in clients} >= {"legacy", "modern"}
    assert {"wire"} <= {client["name"] for client in clients}
    assert all(client["uid"] == os.getuid() for client in clients)


def test_json_is_never_answered_with_an_exceptions_text(daemon: Daemon, good: Wire) -> None:
    with daemon.legacy() as wire:
        for _, line, *_ in LINES:
            wire.send(line)
        wire.post("ping", id="the last")
        message = ""
        while '"the last"' not in message:
            message = json.dumps(wire.message())
            for word in ("Traceback", "msgspec", "Error(", "line 1 column", "byte "):
                assert word not in message
