"""Answers, faults, and the end: what comes in over one transport."""

from __future__ import annotations

import math

import anyio
import pytest

from mcp_multi_server.core.errors import RpcError
from mcp_multi_server.core.lifecycle import Failure, Reason
from mcp_multi_server.core.lines import Oversize
from mcp_multi_server.core.protocol import Era
from mcp_multi_server.servers import exchange as module

from ..scripted import GONE, SOON, Recorded, silence
from .talk import Agreed, Talk

pytestmark = pytest.mark.anyio

# --- answers ----------------------------------------------------------------------------------------------------------


async def test_an_answer_reaches_its_own_call_byte_for_byte() -> None:
    talk = Talk({"tools/call": silence})
    (one, first), (two, second) = talk.call(), talk.call()
    talk.server.say(b'{"jsonrpc":"2.0","id":%d,"result":{"n":1.0,"big":123456789012345678901234567890}}' % second["id"])
    talk.server.answer(first, error={"code": 1, "message": "no"})
    assert (one.told, two.told) == (["error"], ['{"n":1.0,"big":123456789012345678901234567890}'])


HOPELESS = {
    "array": '"result":[]',
    "string": '"result":"x"',
    "null": '"result":null',
    "nothing": '"x":1',
    "error without code": '"error":{"message":"m"}',
    "error without message": '"error":{"code":1}',
    "code in words": '"error":{"code":"E_BAD","message":"m"}',
    "code of a fraction": '"error":{"code":1.5,"message":"m"}',
    "endless code": '"error":{"code":%s,"message":"m"}' % ("9" * 5000),
    "message of an object": '"error":{"code":1,"message":{}}',
    "error of a string": '"error":"bad"',
    "error of null": '"error":null',
}


@pytest.mark.parametrize("members", HOPELESS.values(), ids=HOPELESS)
async def test_a_malformed_answer_fails_its_own_call_at_once(members: str) -> None:
    talk = Talk({"tools/call": silence})
    (call, request), (other, _) = talk.call(), talk.call()
    talk.server.say(f'{{"jsonrpc":"2.0","id":{request["id"]},{members}}}'.encode())
    assert len(call.told) == 1
    assert call.told[0].startswith("sent a")
    assert other.told == []
    assert len(talk.owner.invalid) == 1
    assert talk.exchange.loss is None


@pytest.mark.parametrize(
    "error",
    [
        b'{"code":-32000,"message":"m","data":1e999}',
        b'{"code":-32000,"message":"m","data":%b}' % (b"9" * 5000),
        b'{"code":-32000,"message":"\\ud800","data":"\\udfff"}',
        b'{"code":-32000,"message":"m","data":%b%b}' % (b"[" * 900, b"]" * 900),
    ],
)
async def test_error_data_that_python_cannot_hold_is_left_out(error: bytes) -> None:
    """The question ends: a message that is valid JSON may still hold what no decoder takes."""
    talk = Talk({"ping": silence})

    async def answer() -> None:
        request = await talk.server.request("ping")
        talk.server.say(b'{"jsonrpc":"2.0","id":%d,"error":%b}' % (request["id"], error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        with anyio.fail_after(SOON), pytest.raises(RpcError) as caught:
            await talk.exchange.ask("ping", {}, timeout=math.inf)
    assert caught.value.code == -32000


TORN = {
    "the id first": b'{"jsonrpc":"2.0","id":%d,"result":{"content":[',
    "the id last": b'{"jsonrpc":"2.0","result":{"content":[}},"id":%d}',
    "not UTF-8": b'{"jsonrpc":"2.0","id":%d,"result":{"x":"\xff"}}',
    "NaN": b'{"jsonrpc":"2.0","id":%d,"result":{"x":NaN}}',
}


@pytest.mark.parametrize("line", TORN.values(), ids=TORN)
async def test_an_answer_that_cannot_be_read_fails_its_own_call(line: bytes) -> None:
    talk = Talk({"tools/call": silence})
    (call, request), (other, _) = talk.call(), talk.call()
    talk.server.say(line % request["id"])
    assert call.told[0].startswith("sent an answer that cannot be read")
    assert (other.told, len(talk.owner.invalid)) == ([], 1)


NO_MESSAGE = [
    b"Listening on port 8080",
    b"{",
    b"[]",
    b"3",
    b'{"jsonrpc":"1.0","id":1,"result":{}}',
    b'{"jsonrpc":"2.0"}',
    b'{"jsonrpc":"2.0","id":null,"result":{}}',
    b'{"jsonrpc":"2.0","id":true,"result":{}}',
    b'{"jsonrpc":"2.0","id":1.5,"result":{}}',
    b'{"jsonrpc":"2.0","id":999999,"result":{}}',
    b'{"jsonrpc":"2.0","id":"999999","result":{}}',
    b'{"jsonrpc":"2.0","id":"one","result":{}}',
    b'{"jsonrpc":"2.0","id":999999.0,"result":{}}',
    b'{"jsonrpc":"2.0","id":-1,"result":{}}',
    b'{"jsonrpc":"2.0","id":0,"result":{}}',
    b'{"jsonrpc":"2.0","id":%b,"result":{}}' % (b"9" * 5000),
    b'{"jsonrpc":"2.0","id":%b,"result":{' % (b"9" * 200),
    b'{"jsonrpc":"2.0","method":17}',
    b'{"jsonrpc":"2.0","method":"x","params":[]}',
    b'{"jsonrpc":"2.0","method":"x","params":"null"}',
]


@pytest.mark.parametrize("line", NO_MESSAGE, ids=lambda line: line[:50].decode())
async def test_what_is_no_message_or_answers_nothing_is_counted_and_harms_nobody(line: bytes) -> None:
    talk = Agreed({"tools/call": silence}, Era.LEGACY)
    waiter = Recorded()
    talk.exchange.pending.add(waiter)
    talk.exchange.pending.take(1)
    talk.exchange.pending.add(waiter)
    talk.server.say(line)
    assert len(talk.owner.invalid) == 1
    assert (waiter.told, talk.server.sent, talk.exchange.loss) == ([], [], None)


async def test_an_answer_that_comes_late_or_twice_is_no_fault() -> None:
    talk = Talk({"tools/call": silence})
    (twice, first), (cancelled, second) = talk.call(), talk.call()
    talk.exchange.cancel(second["id"], "not wanted")
    for request in (first, first, second):
        talk.server.answer(request, result={})
    assert (twice.told, cancelled.told, talk.owner.invalid) == (["{}"], [], [])


async def test_an_answer_to_nothing_shows_no_life() -> None:
    talk = Talk({"tools/call": silence})
    _, request = talk.call()
    talk.exchange.last_answer = -1.0
    talk.server.say(b'{"jsonrpc":"2.0","id":999999,"result":{}}')
    assert talk.exchange.last_answer == -1.0
    talk.server.answer(request, result={})
    assert talk.exchange.last_answer >= 0.0


async def test_a_request_lost_on_its_way_fails_alone_and_is_told() -> None:
    talk = Talk({"tools/call": silence})
    (call, request), (other, _) = talk.call(), talk.call()
    failure = Failure(Reason.UNREACHABLE, "HTTP 502")
    talk.server.receiver.failed(request["id"], failure)
    talk.server.receiver.failed(request["id"], failure)
    assert (call.told, other.told, talk.owner.failed) == (["HTTP 502"], [], [failure])


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_the_end_fails_every_call_and_question_with_its_reason_once() -> None:
    talk = Talk({"tools/call": silence, "ping": silence})
    calls = [talk.call()[0] for _ in range(3)]

    async def die() -> None:
        await talk.server.request("ping")
        talk.server.die()
        talk.server.die(Failure(Reason.CLOSED, "again"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(die)
        assert await talk.lost(talk.exchange.ask("ping", {}, timeout=math.inf)) is GONE
    assert [call.told for call in calls] == [["exited with code 3"]] * 3
    assert talk.exchange.loss is GONE
    assert talk.owner.ends == [GONE]
    assert talk.exchange.ended.is_set()


async def test_after_the_end_nothing_is_sent_asked_or_heard() -> None:
    talk = Agreed({}, Era.LEGACY)
    talk.server.die()
    talk.exchange.notify("notifications/x")
    assert await talk.lost(talk.exchange.ask("ping", {}, timeout=1)) is GONE
    talk.server.say(b"junk")
    talk.server.say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    talk.server.say({"jsonrpc": "2.0", "id": 1, "method": "ping"})
    assert (talk.server.sent, talk.owner.invalid, talk.owner.changed) == ([], [], [])


async def test_a_flood_of_invalid_lines_ends_the_exchange() -> None:
    talk = Talk({"tools/call": silence})
    call, _ = talk.call()
    for _ in range(module.FLOOD_LINES):
        talk.server.say(b"junk")
    assert talk.owner.ends == []
    for _ in range(1000):
        talk.server.say(b"junk")
    assert [failure.reason for failure in talk.owner.ends] == [Reason.PROTOCOL]
    assert len(call.told) == 1
    assert len(talk.owner.invalid) == module.FLOOD_LINES + 1, "what comes after the end is not counted"


async def test_invalid_lines_that_take_their_time_are_no_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk()
    now = 1000.0
    monkeypatch.setattr(talk.exchange._loop, "time", lambda: now)
    for _ in range(10):
        now += 1.5
        for _ in range(module.FLOOD_LINES):
            talk.server.say(b"junk")
    assert talk.exchange.loss is None


@pytest.mark.parametrize("ends", [(b'{"jsonrpc":"2.0","id":%d,"res', b""), (b'{"result":{', b'}, "id": %d}')])
async def test_a_line_over_the_cap_fails_the_call_that_it_answers_and_no_other(ends: tuple[bytes, bytes]) -> None:
    talk = Talk({"tools/call": silence})
    (call, request), (other, _) = talk.call(), talk.call()
    head, tail = (end % request["id"] if b"%d" in end else end for end in ends)
    line = Oversize(head + b"x" * 300)
    line.extend(b"x" * 300 + tail)
    talk.server.receiver.line(line)
    (failure,) = call.told
    assert failure == f"sent a line of {line.size} bytes, more than daemon.limits.serverLine allows"
    assert other.told == []
    assert talk.exchange.loss is None
    talk.server.receiver.line(line)  # late: nobody waits for it any more
    assert (len(call.told), talk.exchange.loss) == (1, None)


@pytest.mark.parametrize("head", [b"x" * 300, b'{"id":"theirs","result":{', b'{"id":99999,"result":{'])
async def test_a_line_over_the_cap_that_may_answer_anything_ends_the_exchange(head: bytes) -> None:
    talk = Talk({"tools/call": silence})
    call, _ = talk.call()
    talk.server.receiver.line(Oversize(head))
    assert talk.exchange.loss is not None
    assert talk.exchange.loss.reason is Reason.PROTOCOL
    assert not talk.exchange.loss.permanent
    assert len(call.told) == 1
