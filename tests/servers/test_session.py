"""What is said on one transport, with a transport that keeps what it is given and says what the test tells it to."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import pytest

from mcp_multi_server.core import jsonrpc, protocol
from mcp_multi_server.core.catalog import Kind
from mcp_multi_server.core.errors import METHOD_NOT_FOUND, RpcError
from mcp_multi_server.core.jsonrpc import ABSENT, Buffer, Members, Oversize
from mcp_multi_server.core.lifecycle import Failure, Lost, Reason
from mcp_multi_server.core.protocol import Era, Negotiated
from mcp_multi_server.servers import session as module
from mcp_multi_server.servers.session import ServerSession
from mcp_multi_server.transport import Receiver

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
Answer = Callable[[Json], Json | None]
"""From a request to the members of its answer (`result` or `error`), or None for silence."""
SOON = 5.0
EVERYTHING: Json = {"tools": {}, "prompts": {}, "resources": {}}
MODERN = {"supportedVersions": [protocol.MODERN_VERSION], "capabilities": EVERYTHING}
LEGACY = {"protocolVersion": "2025-11-25", "capabilities": EVERYTHING, "serverInfo": {"name": "s", "version": "1"}}
UNKNOWN = {"error": {"code": METHOD_NOT_FOUND, "message": "Method not found"}}
GONE = Failure(Reason.EXIT, "exited with code 3")


def result(body: Any) -> Answer:
    return lambda request: {"result": body}


def refusal(code: int, **data: Any) -> Answer:
    return lambda request: {"error": {"code": code, "message": "no", "data": data}}


def silence(request: Json) -> None:
    return None


class Script:
    """A transport and the server behind it: `answers` by method, what is not in it is an unknown method."""

    kind = "stdio"
    pid: int | None = None
    last_status: int | None = None

    def __init__(self, answers: dict[str, Answer], receiver: Receiver) -> None:
        self.answers = answers
        self.receiver = receiver
        self.sent: list[Json] = []
        self._news = anyio.Event()

    def send(self, parts: Sequence[Buffer]) -> None:
        line = b"".join(map(bytes, parts))
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        message = json.loads(line)
        self.sent.append(message)
        self._news.set()
        if "id" in message and "method" in message:
            asyncio.get_running_loop().call_soon(self._reply, message)

    def _reply(self, message: Json) -> None:
        answer = self.answers[message["method"]](message) if message["method"] in self.answers else UNKNOWN
        if answer is not None:
            self.say({"jsonrpc": "2.0", "id": message["id"], **answer})

    def say(self, line: Json | bytes) -> None:
        self.receiver.line(line if isinstance(line, bytes) else json.dumps(line).encode())

    def answer(self, request: Json, **members: Any) -> None:
        self.say({"jsonrpc": "2.0", "id": request["id"], **members})

    def methods(self) -> list[str]:
        """The methods of all that was sent; an answer of ours counts as `answer`."""
        return [message.get("method", "answer") for message in self.sent]

    async def request(self, method: str, *, nth: int = 1) -> Json:
        """Wait until so many requests of that method were sent; the last of them."""
        with anyio.fail_after(SOON):
            while len(found := [message for message in self.sent if message.get("method") == method]) < nth:
                self._news = anyio.Event()
                await self._news.wait()
        return found[nth - 1]


class Talk:
    """A conversation over a script, with all that it tells its owner."""

    def __init__(self, answers: dict[str, Answer] | None = None) -> None:
        self.invalid: list[str] = []
        self.changed: list[Kind] = []
        self.failed: list[Failure] = []
        self.ends: list[Failure] = []
        self.session = ServerSession(
            invalid=self.invalid.append,
            changed=self.changed.append,
            failed=self.failed.append,
            lost=self.ends.append,
        )
        self.server = Script(answers or {}, self.session.receiver(lambda line: None))
        self.session.transport = self.server

    def as_era(self, era: Era, **capabilities: Any) -> Talk:
        """Skip the negotiation."""
        version = protocol.MODERN_VERSION if era is Era.MODERN else protocol.LATEST_LEGACY
        self.session.negotiated = Negotiated(era, version, capabilities)
        return self

    async def negotiate(self, era: Era | None = None) -> Negotiated:
        with anyio.fail_after(SOON):
            return await self.session.negotiate(era)

    async def lost(self, work: Awaitable[Any]) -> Failure:
        """The failure with which `work` ends."""
        with anyio.fail_after(SOON), pytest.raises(Lost) as caught:
            await work
        return caught.value.failure


class Waiter:
    """A waiter that keeps what it is told."""

    def __init__(self, deadline: float = math.inf) -> None:
        self.deadline = deadline
        self.told: list[str] = []
        self.reported: list[Members] = []

    def settle(self, message: jsonrpc.Message) -> None:
        self.told.append("error" if message.error is not ABSENT else bytes(message.result).decode())

    def fail(self, failure: Failure) -> None:
        self.told.append(failure.message)

    def expire(self) -> None:
        self.told.append("expired")

    def progress(self, params: Members) -> None:
        self.reported.append(params)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_PATIENCE", 0.05)


# --- the era ---------------------------------------------------------------------------------------------------------


async def test_a_modern_server_is_asked_one_question() -> None:
    talk = Talk({"server/discover": result({**MODERN, "instructions": "be kind"})})
    found = await talk.negotiate()
    assert (found.era, found.version, found.instructions) == (Era.MODERN, "2026-07-28", "be kind")
    assert talk.server.methods() == ["server/discover"]
    assert talk.server.sent[0]["params"]["_meta"][protocol.VERSION_KEY] == protocol.MODERN_VERSION
    assert not talk.session.probing


NOT_MODERN: dict[str, Answer] = {
    "unknown method": lambda request: UNKNOWN,
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
    found = await talk.negotiate()
    assert (found.era, found.version) == (Era.LEGACY, "2025-11-25")
    assert talk.server.methods() == ["server/discover", "initialize", "notifications/initialized"]
    assert "_meta" not in talk.server.sent[1]["params"]


@pytest.mark.parametrize("data", [{"supported": ["2030-01-01"]}, {"supported": []}, {"supported": 3}, {}])
async def test_a_modern_server_of_another_version_only_is_out_of_reach(data: Json) -> None:
    talk = Talk({"server/discover": refusal(-32022, **data), "initialize": result(LEGACY)})
    failure = await talk.lost(talk.negotiate())
    assert (failure.reason, failure.permanent) == (Reason.PROTOCOL, True)
    assert talk.server.methods() == ["server/discover"]


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_ignores_the_probe_is_asked_to_initialize_and_both_stay_uncancelled() -> None:
    talk = Talk({"server/discover": silence, "initialize": result(LEGACY)})
    assert (await talk.negotiate()).era is Era.LEGACY
    assert talk.server.methods() == ["server/discover", "initialize", "notifications/initialized"]
    assert not talk.session.probing
    assert len(talk.session.pending) == 0


@pytest.mark.usefixtures("impatient")
async def test_a_late_answer_to_the_probe_wins_over_none_to_initialize() -> None:
    talk = Talk({"server/discover": silence, "initialize": silence})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(talk.negotiate)
        initialize = await talk.server.request("initialize")
        talk.server.answer(talk.server.sent[0], result=MODERN)
    assert talk.session.negotiated is not None
    assert talk.session.negotiated.era is Era.MODERN
    talk.server.answer(initialize, error={"code": -32022, "message": "modern"})
    assert talk.invalid == []
    assert talk.server.methods() == ["server/discover", "initialize"]


@pytest.mark.usefixtures("impatient")
async def test_a_refused_initialize_leaves_the_late_probe_to_decide() -> None:
    talk = Talk({"server/discover": silence, "initialize": refusal(-32022)})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(talk.negotiate)
        await talk.server.request("initialize")
        await anyio.lowlevel.checkpoint()
        talk.server.answer(talk.server.sent[0], result=MODERN)
    assert talk.session.negotiated is not None
    assert talk.session.negotiated.era is Era.MODERN


@pytest.mark.usefixtures("impatient")
async def test_a_late_refusal_of_the_probe_leaves_initialize_to_decide() -> None:
    talk = Talk({"server/discover": silence, "initialize": silence})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(talk.negotiate)
        initialize = await talk.server.request("initialize")
        talk.server.answer(talk.server.sent[0], **UNKNOWN)
        await anyio.lowlevel.checkpoint()
        talk.server.answer(initialize, result=LEGACY)
    assert talk.session.negotiated is not None
    assert talk.session.negotiated.era is Era.LEGACY


@pytest.mark.usefixtures("impatient")
async def test_two_refusals_are_a_failure_that_may_pass() -> None:
    talk = Talk({"server/discover": silence, "initialize": refusal(-32000)})

    async def refuse_late() -> None:
        await talk.server.request("initialize")
        await anyio.lowlevel.checkpoint()
        talk.server.answer(talk.server.sent[0], **UNKNOWN)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(refuse_late)
        failure = await talk.lost(talk.negotiate())
    assert failure == Failure(Reason.PROTOCOL, "refused initialize: error -32000")


async def test_a_forced_legacy_server_is_never_probed() -> None:
    talk = Talk({"initialize": result({**LEGACY, "protocolVersion": "2024-11-05"})})
    assert (await talk.negotiate(Era.LEGACY)).version == "2024-11-05"
    assert talk.server.methods() == ["initialize", "notifications/initialized"]


async def test_a_forced_modern_server_is_never_initialized() -> None:
    talk = Talk({"server/discover": result(MODERN)})
    assert (await talk.negotiate(Era.MODERN)).era is Era.MODERN
    assert talk.server.methods() == ["server/discover"]


@pytest.mark.parametrize("answer", NOT_MODERN.values(), ids=NOT_MODERN)
async def test_a_forced_modern_server_that_is_none_fails_with_a_reason(answer: Answer) -> None:
    talk = Talk({"server/discover": answer, "initialize": result(LEGACY)})
    failure = await talk.lost(talk.negotiate(Era.MODERN))
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
    talk = Talk({"server/discover": lambda request: UNKNOWN, "initialize": result(body)})
    failure = await talk.lost(talk.negotiate())
    assert (failure.reason, failure.permanent) == (Reason.PROTOCOL, True)
    assert "notifications/initialized" not in talk.server.methods()


@pytest.mark.parametrize("capabilities", [None, [], "tools", {"tools": None, "prompts": True, "resources": []}])
async def test_capabilities_of_the_wrong_shape_are_none(capabilities: Any) -> None:
    talk = Talk({"initialize": result({**LEGACY, "capabilities": capabilities, "instructions": 3})})
    found = await talk.negotiate(Era.LEGACY)
    assert not any(found.has(kind.capability) for kind in Kind)
    assert found.instructions == ""


@pytest.mark.parametrize("at", ["server/discover", "initialize"])
@pytest.mark.usefixtures("impatient")
async def test_the_end_of_the_connection_ends_the_negotiation(at: str) -> None:
    talk = Talk({"server/discover": silence, "initialize": silence})

    async def die() -> None:
        await talk.server.request(at)
        talk.server.receiver.lost(GONE)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(die)
        assert await talk.lost(talk.negotiate()) is GONE
    assert talk.session.probing
    assert talk.session.negotiated is None


@pytest.mark.usefixtures("impatient")
async def test_a_cancelled_negotiation_leaves_no_task_and_no_row() -> None:
    talk = Talk({"server/discover": silence, "initialize": silence})
    before = asyncio.all_tasks()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(talk.session.negotiate, None)
            await talk.server.request("initialize")
            scope.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert len(talk.session.pending) == 0


# --- lists -----------------------------------------------------------------------------------------------------------


def paged(member: str, key: str, pages: int) -> Answer:
    """Two items a page, so many pages; the first cursor is the empty string, which is one."""

    def answer(request: Json) -> Json:
        cursor = request["params"].get("cursor")
        page = 0 if cursor is None else len(cursor) + 1
        items = [{key: f"{member}-{page}-{n}"} for n in range(2)]
        return {"result": {member: items} | ({"nextCursor": "x" * page} if page + 1 < pages else {})}

    return answer


async def test_every_page_of_every_list_is_read() -> None:
    answers = {kind.list_method: paged(kind.member, kind.key, 3) for kind in Kind}
    talk = Talk(answers).as_era(Era.LEGACY, **EVERYTHING)
    catalog = await talk.session.read_catalog(timeout=SOON)
    for kind in Kind:
        assert [item.name for item in catalog.items[kind]] == [
            f"{kind.member}-{p}-{n}" for p in range(3) for n in (0, 1)
        ]
    assert talk.server.methods() == [kind.list_method for kind in Kind for _ in range(3)]
    assert [message["params"] for message in talk.server.sent[:3]] == [{}, {"cursor": ""}, {"cursor": "x"}]


async def test_modern_list_requests_carry_the_envelope() -> None:
    talk = Talk({"tools/list": paged("tools", "name", 2)}).as_era(Era.MODERN, tools={})
    await talk.session.read_catalog(timeout=SOON)
    envelopes = [message["params"]["_meta"][protocol.VERSION_KEY] for message in talk.server.sent]
    assert envelopes == [protocol.MODERN_VERSION] * 2


async def test_only_what_the_server_offers_is_asked_for() -> None:
    talk = Talk({"prompts/list": result({"prompts": [{"name": "p"}]})}).as_era(Era.LEGACY, prompts={}, tools=True)
    catalog = await talk.session.read_catalog(timeout=SOON)
    assert talk.server.methods() == ["prompts/list"]
    assert [catalog.count(kind) for kind in Kind] == [0, 1, 0, 0]


async def test_a_list_that_does_not_exist_is_empty() -> None:
    talk = Talk({"resources/list": result({"resources": [{"uri": "a:b"}]})}).as_era(Era.LEGACY, resources={})
    catalog = await talk.session.read_catalog(timeout=SOON)
    assert (catalog.count(Kind.RESOURCE), catalog.count(Kind.TEMPLATE)) == (1, 0)


async def test_a_second_page_that_does_not_exist_is_a_failure() -> None:
    def answer(request: Json) -> Json:
        return UNKNOWN if "cursor" in request["params"] else {"result": {"tools": [], "nextCursor": "x"}}

    talk = Talk({"tools/list": answer}).as_era(Era.LEGACY, tools={})
    failure = await talk.lost(talk.session.read_catalog(timeout=SOON))
    assert failure == Failure(Reason.PROTOCOL, "tools/list failed: error -32601")


ENDLESS: dict[str, tuple[Callable[[str], str], int]] = {
    "one cursor": (lambda cursor: "again", 2),
    "two in turn": (lambda cursor: "b" if cursor == "a" else "a", 3),
    "ever new ones": (lambda cursor: cursor + "x", 50),
}


@pytest.mark.parametrize(("following", "asked"), ENDLESS.values(), ids=ENDLESS)
async def test_a_list_without_end_is_left(
    following: Callable[[str], str], asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PAGES", 50)

    def answer(request: Json) -> Json:
        return {"result": {"tools": [], "nextCursor": following(request["params"].get("cursor", ""))}}

    talk = Talk({"tools/list": answer}).as_era(Era.LEGACY, tools={})
    failure = await talk.lost(talk.session.read_catalog(timeout=SOON))
    assert failure == Failure(Reason.PROTOCOL, f"tools/list has no end: stopped after {asked} pages")
    assert len(talk.server.sent) == asked
    assert talk.session.loss is None


@pytest.mark.parametrize("body", [{}, {"tools": "none"}, {"tools": [], "nextCursor": 7}, {"tools": {}}])
async def test_a_list_that_cannot_be_read_is_a_failure_of_the_protocol(body: Json) -> None:
    talk = Talk({"tools/list": result(body)}).as_era(Era.LEGACY, tools={})
    assert (await talk.lost(talk.session.read_catalog(timeout=SOON))).reason is Reason.PROTOCOL


async def test_a_list_that_does_not_come_is_cancelled_after_its_timeout() -> None:
    talk = Talk({"tools/list": silence}).as_era(Era.LEGACY, tools={})
    with anyio.fail_after(SOON), pytest.raises(TimeoutError):
        await talk.session.read_catalog(timeout=0.05)
    assert talk.server.methods() == ["tools/list", "notifications/cancelled"]
    assert talk.server.sent[1]["params"]["requestId"] == talk.server.sent[0]["id"]
    assert len(talk.session.pending) == 0


@pytest.mark.parametrize("method", ["server/discover", "initialize"])
async def test_neither_probe_nor_initialize_is_ever_cancelled(method: str) -> None:
    talk = Talk({method: silence}).as_era(Era.MODERN)
    with anyio.fail_after(SOON), pytest.raises(TimeoutError):
        await talk.session.ask(method, {}, timeout=0.05)
    with anyio.move_on_after(0.05):
        await talk.session.ask(method, {}, timeout=math.inf)
    assert talk.server.methods() == [method] * 2
    assert len(talk.session.pending) == 0


async def test_a_question_that_its_task_gives_up_is_cancelled_with_the_era_s_envelope() -> None:
    talk = Talk({"tools/list": silence}).as_era(Era.MODERN)
    with anyio.move_on_after(0.05):
        await talk.session.ask("tools/list", {}, timeout=math.inf)
    cancelled = talk.server.sent[1]
    assert cancelled["method"] == "notifications/cancelled"
    assert cancelled["params"]["requestId"] == talk.server.sent[0]["id"]
    assert protocol.VERSION_KEY in cancelled["params"]["_meta"]


# --- answers ---------------------------------------------------------------------------------------------------------


def asked(talk: Talk) -> tuple[Waiter, Json]:
    """A call on its way, and the request that the server got."""
    waiter = Waiter()
    id = talk.session.pending.add(waiter)
    talk.session.send(id, "tools/call", b'{"name":"t"}')
    return waiter, talk.server.sent[-1]


async def test_an_answer_reaches_its_own_call_byte_for_byte() -> None:
    talk = Talk({"tools/call": silence})
    (one, first), (two, second) = asked(talk), asked(talk)
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
    (call, request), (other, _) = asked(talk), asked(talk)
    talk.server.say(f'{{"jsonrpc":"2.0","id":{request["id"]},{members}}}'.encode())
    assert len(call.told) == 1
    assert call.told[0].startswith("sent a")
    assert other.told == []
    assert len(talk.invalid) == 1
    assert talk.session.loss is None


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
            await talk.session.ask("ping", {}, timeout=math.inf)
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
    (call, request), (other, _) = asked(talk), asked(talk)
    talk.server.say(line % request["id"])
    assert call.told[0].startswith("sent an answer that cannot be read")
    assert (other.told, len(talk.invalid)) == ([], 1)


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
    b'{"jsonrpc":"2.0","id":"1","result":{}}',
    b'{"jsonrpc":"2.0","id":-1,"result":{}}',
    b'{"jsonrpc":"2.0","id":0,"result":{}}',
    b'{"jsonrpc":"2.0","id":%b,"result":{}}' % (b"9" * 5000),
    b'{"jsonrpc":"2.0","id":%b,"result":{' % (b"9" * 200),
    b'{"jsonrpc":"2.0","method":17}',
    b'{"jsonrpc":"2.0","method":"x","params":[]}',
    b'{"jsonrpc":"2.0","method":"x","params":null}',
]


@pytest.mark.parametrize("line", NO_MESSAGE, ids=lambda line: line[:50].decode())
async def test_what_is_no_message_or_answers_nothing_is_counted_and_harms_nobody(line: bytes) -> None:
    talk = Talk({"tools/call": silence}).as_era(Era.LEGACY)
    waiter = Waiter()
    talk.session.pending.add(waiter)
    talk.session.pending.take(1)
    talk.session.pending.add(waiter)
    talk.server.say(line)
    assert len(talk.invalid) == 1
    assert (waiter.told, talk.server.sent, talk.session.loss) == ([], [], None)


async def test_an_answer_that_comes_late_or_twice_is_no_fault() -> None:
    talk = Talk({"tools/call": silence})
    (twice, first), (cancelled, second) = asked(talk), asked(talk)
    talk.session.cancel(second["id"], "not wanted")
    for request in (first, first, second):
        talk.server.answer(request, result={})
    assert (twice.told, cancelled.told, talk.invalid) == (["{}"], [], [])


async def test_an_answer_to_nothing_shows_no_life() -> None:
    talk = Talk({"tools/call": silence})
    _, request = asked(talk)
    talk.session.last_answer = 0.0
    talk.server.say(b'{"jsonrpc":"2.0","id":999999,"result":{}}')
    assert talk.session.last_answer == 0.0
    talk.server.answer(request, result={})
    assert talk.session.last_answer > 0.0


async def test_a_request_lost_on_its_way_fails_alone_and_is_told() -> None:
    talk = Talk({"tools/call": silence})
    (call, request), (other, _) = asked(talk), asked(talk)
    failure = Failure(Reason.UNREACHABLE, "HTTP 502")
    talk.server.receiver.failed(request["id"], failure)
    talk.server.receiver.failed(request["id"], failure)
    assert (call.told, other.told, talk.failed) == (["HTTP 502"], [], [failure])


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_the_end_fails_every_call_and_question_with_its_reason_once() -> None:
    talk = Talk({"tools/call": silence, "ping": silence})
    calls = [asked(talk)[0] for _ in range(3)]

    async def die() -> None:
        await talk.server.request("ping")
        talk.server.receiver.lost(GONE)
        talk.server.receiver.lost(Failure(Reason.CLOSED, "again"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(die)
        assert await talk.lost(talk.session.ask("ping", {}, timeout=math.inf)) is GONE
    assert [call.told for call in calls] == [["exited with code 3"]] * 3
    assert talk.session.loss is GONE
    assert talk.ends == [GONE]
    assert talk.session.ended.is_set()


async def test_after_the_end_nothing_is_sent_asked_or_heard() -> None:
    talk = Talk().as_era(Era.LEGACY)
    talk.server.receiver.lost(GONE)
    talk.session.notify("notifications/x")
    assert await talk.lost(talk.session.ask("ping", {}, timeout=1)) is GONE
    talk.server.say(b"junk")
    talk.server.say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    talk.server.say({"jsonrpc": "2.0", "id": 1, "method": "ping"})
    assert (talk.server.sent, talk.invalid, talk.changed) == ([], [], [])


async def test_a_flood_of_invalid_lines_ends_the_connection() -> None:
    talk = Talk({"tools/call": silence})
    call, _ = asked(talk)
    for _ in range(module.FLOOD_LINES):
        talk.server.say(b"junk")
    assert talk.ends == []
    for _ in range(1000):
        talk.server.say(b"junk")
    assert [failure.reason for failure in talk.ends] == [Reason.PROTOCOL]
    assert len(call.told) == 1
    assert len(talk.invalid) == module.FLOOD_LINES + 1, "what comes after the end is not counted"


async def test_invalid_lines_that_take_their_time_are_no_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk()
    now = 1000.0
    monkeypatch.setattr(talk.session._loop, "time", lambda: now)
    for _ in range(10):
        now += 1.5
        for _ in range(module.FLOOD_LINES):
            talk.server.say(b"junk")
    assert talk.session.loss is None


async def test_a_line_over_the_cap_ends_the_connection() -> None:
    talk = Talk({"tools/call": silence})
    call, _ = asked(talk)
    talk.server.receiver.line(Oversize(b"x" * 300))
    assert talk.session.loss is not None
    assert talk.session.loss.reason is Reason.PROTOCOL
    assert not talk.session.loss.permanent
    assert len(call.told) == 1


# --- what a server says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", [None, Era.LEGACY])
async def test_a_legacy_server_is_answered(era: Era | None) -> None:
    talk = Talk() if era is None else Talk().as_era(era)
    for id in (7, "a"):
        talk.server.say({"jsonrpc": "2.0", "id": id, "method": "ping"})
        talk.server.say({"jsonrpc": "2.0", "id": id, "method": "sampling/createMessage", "params": {"x": 1}})
    assert [message["id"] for message in talk.server.sent] == [7, 7, "a", "a"]
    assert [message.get("result") for message in talk.server.sent] == [{}, None, {}, None]
    assert talk.server.sent[1]["error"]["code"] == METHOD_NOT_FOUND


async def test_a_modern_server_must_not_ask_and_gets_no_answer() -> None:
    talk = Talk().as_era(Era.MODERN)
    for method in ("ping", "roots/list", "elicitation/create"):
        talk.server.say({"jsonrpc": "2.0", "id": 1, "method": method})
    assert talk.server.sent == []


async def test_progress_reaches_the_call_whose_token_it_carries() -> None:
    talk = Talk({"tools/call": silence})
    (one, first), (two, second) = asked(talk), asked(talk)

    def progress(token: Any) -> Json:
        return {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}}

    talk.server.say(progress(second["id"]))
    strays: list[Any] = [999, str(first["id"]), None, 1.5, {}, -1, [first["id"]]]
    for stray in strays:
        talk.server.say(progress(stray))
    talk.server.say(b'{"jsonrpc":"2.0","method":"notifications/progress"}')
    talk.server.say(
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%b}}' % (b"9" * 5000)
    )
    assert (len(one.reported), len(two.reported)) == (0, 1)
    assert two.reported[0].keys() == {"progressToken", "progress"}
    assert talk.session.loss is None


async def test_progress_after_the_answer_reaches_nobody() -> None:
    talk = Talk({"tools/call": silence})
    call, request = asked(talk)
    talk.server.answer(request, result={})
    talk.server.say({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": request["id"]}})
    assert call.reported == []


async def test_a_changed_list_is_told_by_its_kind_and_other_news_are_dropped() -> None:
    talk = Talk()
    for method in ("tools/list_changed", "resources/list_changed", "message", "cancelled", "none/such"):
        talk.server.say({"jsonrpc": "2.0", "method": f"notifications/{method}", "params": {}})
    assert talk.changed == [Kind.TOOL, Kind.RESOURCE, Kind.TEMPLATE]
    assert talk.invalid == []
