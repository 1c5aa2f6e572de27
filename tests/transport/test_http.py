"""Servers behind a URL, over real sockets: what comes through, what fails one call, what ends the connection."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from mcp_multi_server.core import jsonrpc
from mcp_multi_server.core.lifecycle import Failure, Lost, Reason
from mcp_multi_server.core.lines import Oversize
from mcp_multi_server.transport import Receiver, http, http_client, postings
from mcp_multi_server.transport.http import StreamableHttp, open_http
from mcp_multi_server.transport.http_client import HttpSpec
from mcp_multi_server.transport.sse import ServerSentEvents, open_sse
from tests.fixtures.bad_http import EXACT, BadHttp

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
HANDSHAKE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
LINE_CAP = 16 * 1024 * 1024


class Heard:
    """Everything a receiver is told, in order; waiting for it is bounded."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.notes: list[str] = []
        self.failures: dict[int, Failure] = {}
        self.losses: list[Failure] = []
        self._news = anyio.Event()
        self.receiver = Receiver(line=self._line, stderr=self.notes.append, failed=self._failed, lost=self._lost)

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    async def answer(self, id: int) -> dict[str, Any]:
        """The response to a request; fails the test where the request failed instead."""
        await self.until(lambda: id in self.failures or self.losses or any(m.get("id") == id for m in self.messages))
        assert id not in self.failures and not self.losses, (self.failures, self.losses)
        return next(m for m in self.messages if m.get("id") == id)

    async def failure(self, id: int) -> Failure:
        await self.until(lambda: id in self.failures)
        return self.failures[id]

    async def loss(self) -> Failure:
        await self.until(lambda: bool(self.losses))
        return self.losses[0]

    async def until(self, condition: Callable[[], Any]) -> None:
        with anyio.fail_after(10):
            while not condition():
                await self._news.wait()

    def _line(self, line: bytes | Oversize) -> None:
        assert isinstance(line, bytes)
        assert b"\n" not in line
        self.lines.append(line)
        self._wake()

    def _failed(self, id: int, failure: Failure) -> None:
        assert id not in self.failures
        self.failures[id] = failure
        self._wake()

    def _lost(self, failure: Failure) -> None:
        self.losses.append(failure)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = anyio.Event()


class Client:
    """A transport to one server, spoken to in requests."""

    def __init__(self, transport: StreamableHttp | ServerSentEvents, heard: Heard) -> None:
        self.transport = transport
        self.heard = heard
        self._last = 0

    def send(self, method: str, params: dict[str, Any] | None = None, *, modern: bool = False) -> int:
        self._last += 1
        params = dict(params or {})
        if modern:
            params["_meta"] = MODERN | params.get("_meta", {})
        self.transport.send(jsonrpc.request(self._last, method, jsonrpc.encode(params)))
        return self._last

    def notify(self, method: str, params: dict[str, Any] | None = None) -> None:
        self.transport.send(jsonrpc.notification(method, jsonrpc.encode(params or {})))

    async def ask(self, method: str, params: dict[str, Any] | None = None, *, modern: bool = False) -> dict[str, Any]:
        return await self.heard.answer(self.send(method, params, modern=modern))

    async def fail(self, method: str = "ping", *, modern: bool = False) -> Failure:
        return await self.heard.failure(self.send(method, modern=modern))

    async def call(self, tool: str, arguments: dict[str, Any] | None = None, *, modern: bool = False) -> dict[str, Any]:
        answer = await self.ask("tools/call", {"name": tool, "arguments": arguments or {}}, modern=modern)
        result: dict[str, Any] = answer["result"]
        return result

    async def handshake(self) -> None:
        await self.ask("initialize", HANDSHAKE)
        self.notify("notifications/initialized")


@contextlib.asynccontextmanager
async def connected(
    url: str,
    *,
    sse: bool = False,
    headers: dict[str, str] | None = None,
    line_cap: int = LINE_CAP,
    auth: httpx2.Auth | None = None,
) -> AsyncIterator[Client]:
    heard = Heard()
    spec = HttpSpec(url, headers or {}, timeout=20, start_timeout=10, auth=auth)
    opened = open_sse if sse else open_http
    async with opened(spec, heard.receiver, line_cap=line_cap) as transport:
        yield Client(transport, heard)


def outcome(heard: Heard) -> bool:
    return bool(heard.lines or heard.failures or heard.losses)


class Server:
    """`tests.fixtures.http_server` in a process of its own."""

    def __init__(self, *options: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "tests.fixtures.http_server", *options, "--port", str(port)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self._said = self.process.stdout
        self.port = int(self._said.readline().split()[1])
        self.url = f"http://127.0.0.1:{self.port}/mcp"

    async def says(self, wanted: str) -> None:
        """Wait until the server has said something."""
        with anyio.fail_after(10):
            while (await anyio.to_thread.run_sync(self._said.readline, abandon_on_cancel=True)).strip() != wanted:
                pass

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._said.close()


@contextlib.contextmanager
def serving(*options: str, port: int = 0) -> Iterator[Server]:
    server = Server(*options, port=port)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--header", "x-key=open sesame") as server:
        yield server


@pytest.fixture(scope="module")
def sse_server() -> Iterator[Server]:
    with serving("--transport", "sse") as server:
        yield server


@pytest.fixture
async def bad() -> AsyncIterator[BadHttp]:
    async with BadHttp() as server:
        yield server


KEY = {"x-key": "open sesame"}
BIG_INTEGER = 123456789012345678901234567890


async def test_a_modern_server_is_discovered_listed_and_called(server: Server) -> None:
    async with connected(server.url, headers=KEY) as client:
        found = await client.ask("server/discover", modern=True)
        assert "2026-07-28" in found["result"]["supportedVersions"]
        tools = await client.ask("tools/list", modern=True)
        assert "echo" in {tool["name"] for tool in tools["result"]["tools"]}
        result = await client.call("echo", {"n": BIG_INTEGER, "x-new": ["\u00e9", 1.0]}, modern=True)
        assert result["structuredContent"] == {"n": BIG_INTEGER, "x-new": ["\u00e9", 1.0]}


async def test_a_legacy_server_is_initialized_listed_and_called(server: Server) -> None:
    async with connected(server.url, headers=KEY) as client:
        await client.handshake()
        assert (await client.ask("tools/list"))["result"]["tools"]
        assert (await client.call("echo", {"n": BIG_INTEGER}))["structuredContent"] == {"n": BIG_INTEGER}
        assert (await client.call("fail"))["isError"] is True
        assert (await client.ask("ping"))["result"] == {}


async def test_an_sse_server_is_initialized_listed_and_called(sse_server: Server) -> None:
    async with connected(sse_server.url, sse=True) as client:
        await client.handshake()
        assert (await client.ask("tools/list"))["result"]["tools"]
        assert (await client.call("echo", {"n": BIG_INTEGER}))["structuredContent"] == {"n": BIG_INTEGER}


@pytest.mark.parametrize("way", ["modern", "legacy", "sse"])
async def test_two_mebibytes_come_through(server: Server, sse_server: Server, way: str) -> None:
    url = sse_server.url if way == "sse" else server.url
    async with connected(url, sse=way == "sse", headers=KEY) as client:
        if way != "modern":
            await client.handshake()
        result = await client.call("big", {"bytes": 2 << 20}, modern=way == "modern")
        assert result["content"][0]["text"] == "x" * (2 << 20)


@pytest.mark.parametrize("way", ["modern", "legacy", "sse"])
async def test_progress_comes_in_order_and_before_the_result(server: Server, sse_server: Server, way: str) -> None:
    url = sse_server.url if way == "sse" else server.url
    async with connected(url, sse=way == "sse", headers=KEY) as client:
        if way != "modern":
            await client.handshake()
        params = {"name": "slow", "arguments": {"steps": 50}, "_meta": {"progressToken": "token"}}
        id = client.send("tools/call", params, modern=way == "modern")
        await client.heard.answer(id)
        messages = client.heard.messages
        steps = [m["params"]["progress"] for m in messages if m.get("method") == "notifications/progress"]
        assert steps == list(range(50))
        assert messages[-1]["id"] == id


@pytest.mark.parametrize("modern", [True, False])
async def test_a_cancelled_call_ends_at_the_server_and_gets_no_answer(server: Server, modern: bool) -> None:
    async with connected(server.url, headers=KEY) as client:
        if not modern:
            await client.handshake()
        id = client.send("tools/call", {"name": "stall", "arguments": {}}, modern=modern)
        await server.says("started stall")
        client.notify("notifications/cancelled", {"requestId": id})
        await server.says("cancelled stall")
        assert (await client.call("echo", modern=modern))["isError"] is False
        assert id not in client.heard.failures
        assert all(message.get("id") != id for message in client.heard.messages)


async def test_the_standalone_stream_brings_notifications(server: Server) -> None:
    async with connected(server.url, headers=KEY) as client:
        await client.handshake()
        changed = "notifications/tools/list_changed"
        while not any(message.get("method") == changed for message in client.heard.messages):
            await client.call("change")  # lost where the stream is not open yet
        assert not client.heard.losses


async def test_a_modern_tool_call_carries_the_headers_that_its_schema_asks_for(server: Server) -> None:
    async with connected(server.url, headers=KEY) as client:
        listed = await client.ask("tools/list", modern=True)
        assert (await client.call("region", {"region": "Zürich"}, modern=True))["isError"] is False
        names = {tool["name"] for tool in listed["result"]["tools"]}
        assert "region" in names
        assert "misdeclared" not in names
        assert client.heard.notes == ["tool 'misdeclared' is left out: its x-mcp-header annotations are not valid"]


async def test_headers_repeat_what_a_modern_body_says(bad: BadHttp) -> None:
    async with connected(bad.url("exact"), headers={"authorization": "Bearer t"}) as client:
        await client.ask("tools/call", {"name": "grüß"}, modern=True)
        await client.ask("resources/read", {"uri": "file:///a"}, modern=True)
        await client.ask("ping")
    first, second, third = (asked.headers for asked in bad.asked)
    assert first["authorization"] == "Bearer t"
    assert first["mcp-protocol-version"] == "2026-07-28"
    assert first["mcp-method"] == "tools/call"
    assert first["mcp-name"] == "=?base64?Z3LDvMOf?="
    assert second["mcp-name"] == "file:///a"
    assert "mcp-protocol-version" in third  # the SDK repeats the last one
    assert "mcp-method" not in third


async def test_the_negotiated_version_and_session_go_with_every_legacy_message(bad: BadHttp) -> None:
    async with connected(bad.url("polls")) as client:
        await client.ask("server/discover", modern=True)
        await client.handshake()
        await client.ask("ping")
    posts = [asked for asked in bad.asked if asked.method == "POST"]
    seen = [(asked.message["method"], asked.headers.get("mcp-protocol-version")) for asked in posts]
    assert seen[1:] == [
        ("initialize", None),
        ("notifications/initialized", "2025-11-25"),
        ("ping", "2025-11-25"),
    ]
    assert [asked.headers.get("mcp-session-id") for asked in posts[2:]] == ["s-1", "s-1"]
    assert bad.count("DELETE") == 1


async def test_a_request_reaches_the_server_byte_for_byte(bad: BadHttp) -> None:
    params = b'{"a": 1e400, "b": "\\/\\ud800", "c": 1.0, "d": ' + b"[" * 300 + b"]" * 300 + b"}"
    async with connected(bad.url("exact")) as client:
        client.transport.send(jsonrpc.request(7, "ping", params))
        await client.heard.answer(7)
    assert bad.asked[0].body == b"".join(jsonrpc.request(7, "ping", params))


@pytest.mark.parametrize("path", ["exact", "exact-sse", "moved", "whole-stream", "gzip", "pretty"])
async def test_unknown_members_and_big_numbers_of_an_answer_survive(bad: BadHttp, path: str) -> None:
    async with connected(bad.url(path)) as client:
        assert await client.ask("ping") == json.loads(EXACT % 1)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("local-code", -32001),
        ("other-id", -32000),
        ("404/-32601:Method_not_found", -32601),
        ("400/-32602:no", -32602),
        ("500/-32000:Connection_closed", -32000),
        ("session/404/-32601:Method_not_found", -32601),
        ("session/400/-32602:no", -32602),
    ],
)
async def test_an_error_of_the_servers_own_comes_through(bad: BadHttp, path: str, code: int) -> None:
    async with connected(bad.url(path)) as client:
        if path.startswith("session"):
            await client.ask("initialize", HANDSHAKE)
        assert (await client.ask("ping"))["error"]["code"] == code


@pytest.mark.parametrize(
    ("path", "reason", "message"),
    [
        ("500", Reason.UNREACHABLE, "HTTP 500"),
        ("404", Reason.UNREACHABLE, "HTTP 404"),
        ("405", Reason.UNREACHABLE, "HTTP 405"),
        ("no-id", Reason.UNREACHABLE, "HTTP 400"),
        ("accepted", Reason.PROTOCOL, "HTTP 202 in answer to a request"),
        ("page", Reason.PROTOCOL, "an answer that is neither JSON nor an event stream"),
        ("garbage", Reason.PROTOCOL, "an answer that is no JSON-RPC message"),
        ("empty", Reason.PROTOCOL, "an answer that is no JSON-RPC message"),
        ("garbage-sse", Reason.PROTOCOL, "an answer that is no JSON-RPC message"),
        ("breaks", Reason.UNREACHABLE, "the connection broke"),
        ("breaks-sse", Reason.UNREACHABLE, "the connection broke before the answer"),
        ("silence", Reason.UNREACHABLE, "the connection broke"),
        ("nonsense", Reason.UNREACHABLE, "the connection broke"),
        ("huge", Reason.PROTOCOL, "sent an answer over 50000 bytes (daemon.limits.serverLine)"),
        ("huge-sse", Reason.PROTOCOL, "sent an answer over 50000 bytes (daemon.limits.serverLine)"),
        ("bomb", Reason.PROTOCOL, "sent an answer over 50000 bytes (daemon.limits.serverLine)"),
        ("bomb-sse", Reason.PROTOCOL, "sent an answer over 50000 bytes (daemon.limits.serverLine)"),
        ("elsewhere", Reason.UNREACHABLE, "HTTP 307: redirects elsewhere"),
        ("redirect/301?/exact", Reason.UNREACHABLE, "HTTP 301: redirects elsewhere"),
        ("redirect/303?/exact", Reason.UNREACHABLE, "HTTP 303: redirects elsewhere"),
        ("redirect/308?https://127.0.0.1/exact", Reason.UNREACHABLE, "HTTP 308: redirects elsewhere"),
        ("redirect/308?http://user@127.0.0.1/exact", Reason.UNREACHABLE, "HTTP 308: redirects elsewhere"),
        ("circle", Reason.UNREACHABLE, "HTTP 307: redirects without end"),
    ],
)
async def test_an_answer_that_is_none_fails_its_request_alone(
    bad: BadHttp, path: str, reason: Reason, message: str
) -> None:
    async with connected(bad.url(path), line_cap=50_000) as client:
        for _ in range(2):
            failure = await client.fail()
            assert (failure.reason, failure.message) == (reason, message)
        assert client.transport.last_status == (int(message[5:]) if message[:6] in ("HTTP 4", "HTTP 5") else None)
        assert not client.heard.lines
        assert not client.heard.losses


@pytest.mark.parametrize(
    ("path", "reason", "permanent"),
    [
        ("401", Reason.UNAUTHORIZED, True),
        ("403", Reason.UNAUTHORIZED, True),
        ("session/401", Reason.UNAUTHORIZED, True),
        ("session/404", Reason.SESSION, False),
        ("session/404/-32600:Session_not_found", Reason.SESSION, False),
        ("session/400/-32000:Bad_Request:_No_valid_session_ID_provided", Reason.SESSION, False),
        ("session-error", Reason.SESSION, False),
    ],
)
async def test_a_refusal_ends_the_connection_once(bad: BadHttp, path: str, reason: Reason, permanent: bool) -> None:
    async with connected(bad.url(path)) as client:
        if path.startswith("session"):
            await client.ask("initialize", HANDSHAKE)
        answered = len(client.heard.lines)
        client.send("ping")
        client.send("ping")
        failure = await client.heard.loss()
        assert (failure.reason, failure.permanent) == (reason, permanent)
    assert len(client.heard.losses) == 1
    refused = list(client.heard.failures.values())
    assert refused == ([Failure(reason, failure.message, undone=True)] * 2 if reason is Reason.SESSION else [])
    assert not failure.undone, "of a request that is open besides nobody knows"
    assert len(client.heard.lines) == answered


async def test_of_a_request_that_is_not_refused_with_the_session_nobody_knows(bad: BadHttp) -> None:
    async with connected(bad.url("half-forgets")) as client:
        await client.ask("initialize", HANDSHAKE)
        refused, unanswered = client.send("ping"), client.send("ping")
        assert await client.heard.failure(refused) == Failure(
            Reason.SESSION, "the server forgot the session", undone=True
        )
        assert await client.heard.loss() == Failure(Reason.SESSION, "the server forgot the session")
    assert unanswered not in client.heard.failures


async def test_a_missing_credential_is_told_as_such(server: Server) -> None:
    async with connected(server.url) as client:
        client.send("server/discover", modern=True)
        assert (await client.heard.loss()).reason is Reason.UNAUTHORIZED


async def test_a_refused_connection_fails_each_call_and_nothing_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with connected(f"http://127.0.0.1:{port}/mcp") as client:
        for modern in (False, True):
            failure = await client.fail(modern=modern)
            assert failure == Failure(Reason.UNREACHABLE, "connection refused", undone=True)
        assert not client.heard.losses
    with pytest.raises(Lost) as caught:
        async with connected(f"http://127.0.0.1:{port}/mcp", sse=True):
            pass
    assert caught.value.failure == Failure(Reason.UNREACHABLE, "connection refused", undone=True)


async def test_a_restart_is_a_failed_call_in_the_modern_era_and_a_lost_session_in_the_legacy_one() -> None:
    with serving() as first:
        async with connected(first.url) as modern, connected(first.url) as legacy:
            await legacy.handshake()
            stalled = modern.send("tools/call", {"name": "stall", "arguments": {}}, modern=True)
            await first.says("started stall")
            first.process.kill()
            first.process.wait()
            lost = await modern.heard.failure(stalled)
            assert (lost.reason, lost.undone) == (Reason.UNREACHABLE, False)
            assert (await modern.fail(modern=True)).message == "connection refused"
            with serving(port=first.port):
                assert (await modern.call("echo", {"n": 1}, modern=True))["structuredContent"] == {"n": 1}
                legacy.send("tools/list")
                assert (await legacy.heard.loss()).reason is Reason.SESSION
        assert not modern.heard.losses


async def test_an_sse_server_that_dies_is_lost() -> None:
    with serving("--transport", "sse") as server:
        async with connected(server.url, sse=True) as client:
            await client.handshake()
            server.process.kill()
            assert (await client.heard.loss()).reason in (Reason.CLOSED, Reason.UNREACHABLE)
        assert len(client.heard.losses) == 1


async def test_leaving_a_server_that_never_answers_is_quick(bad: BadHttp) -> None:
    async with connected(bad.url("hang")) as client:
        for _ in range(3):
            client.send("ping")
        client.notify("notifications/progress", {"progressToken": 1, "progress": 1})
        await bad.until(lambda: bad.count("POST") == 4)
        began = time.monotonic()
    assert time.monotonic() - began < 1
    await bad.until(lambda: bad.gone == 4)
    assert not client.heard.failures
    assert not client.heard.losses


@pytest.mark.parametrize("path", ["hang-later", "drips"])
async def test_leaving_waits_for_the_end_of_the_session_but_not_long(bad: BadHttp, path: str) -> None:
    async with connected(bad.url(path)) as client:
        await client.ask("initialize", HANDSHAKE)
        began = time.monotonic()
    assert time.monotonic() - began < 3
    assert bad.count("DELETE") == 1


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, Reason.UNAUTHORIZED), (403, Reason.UNAUTHORIZED), (404, Reason.SESSION), (500, None)],
)
async def test_a_refused_message_of_an_sse_server_fails_it_or_ends_the_connection(
    bad: BadHttp, status: int, reason: Reason | None
) -> None:
    async with connected(bad.url(f"sse/{status}"), sse=True) as client:
        id = client.send("ping")
        await client.heard.until(partial(outcome, client.heard))
        assert [failure.reason for failure in client.heard.losses] == ([reason] if reason else [])
        assert client.heard.failures == ({} if reason else {id: Failure(Reason.UNREACHABLE, "HTTP 500")})
        assert client.transport.last_status == status


async def test_an_sse_answer_of_many_lines_becomes_one(bad: BadHttp) -> None:
    async with connected(bad.url("sse/202"), sse=True) as client:
        assert await client.ask("ping") == json.loads(EXACT % 1)  # `Heard` refuses lines with a line break in them


async def test_a_message_without_an_answer_holds_nothing_up(bad: BadHttp) -> None:
    async with connected(bad.url("hang")) as client:
        for token in range(3):
            client.notify("notifications/progress", {"progressToken": token, "progress": 1})
        client.send("ping")
        began = time.monotonic()
        await bad.until(lambda: bad.count("POST") == 4)
        assert time.monotonic() - began < 2


async def test_a_cancelled_host_stays_the_only_one_to_know(bad: BadHttp) -> None:
    began = time.monotonic()
    with anyio.move_on_after(0.2) as scope:
        async with connected(bad.url("hang-later")) as client:
            await client.ask("initialize", HANDSHAKE)
            client.send("ping")
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert time.monotonic() - began < 4
    await anyio.lowlevel.checkpoint()  # a leaked cancellation would surface here


async def test_what_the_host_raises_comes_out_as_it_is(bad: BadHttp) -> None:
    with pytest.raises(LookupError, match="the host's own"):
        async with connected(bad.url("exact")) as client:
            await client.ask("ping")
            raise LookupError("the host's own")


@pytest.mark.parametrize(
    ("path", "failure"),
    [
        ("mute-sse", Failure(Reason.CLOSED, "the event stream ended")),
        ("hang", Failure(Reason.UNREACHABLE, "no endpoint event within 0.3 s")),
        ("401", Failure(Reason.UNAUTHORIZED, "HTTP 401", permanent=True)),
        ("404", Failure(Reason.UNREACHABLE, "HTTP 404", permanent=True)),
        ("page", Failure(Reason.PROTOCOL, "no event stream")),
        ("foreign", Failure(Reason.PROTOCOL, "the event stream names an endpoint that is not its own")),
    ],
)
async def test_an_sse_stream_that_does_not_begin_is_lost_while_opening(
    bad: BadHttp, path: str, failure: Failure
) -> None:
    heard = Heard()
    spec = HttpSpec(bad.url(path), {}, timeout=5, start_timeout=0.3)
    with pytest.raises(Lost) as caught:
        async with open_sse(spec, heard.receiver, line_cap=LINE_CAP):
            pass
    assert caught.value.failure == failure
    assert not heard.losses


@pytest.mark.parametrize(
    ("url", "headers"),
    [("ftp://127.0.0.1/", {}), ("http://[::1/", {}), ("http://", {}), ("http://127.0.0.1/", {"x": "\u4e2d"})],
)
async def test_a_url_or_header_that_cannot_be_used_is_lost_for_good(url: str, headers: dict[str, str]) -> None:
    for sse in (False, True):
        with pytest.raises(Lost) as caught:
            async with connected(url, headers=headers, sse=sse):
                pass
        assert caught.value.failure.reason is Reason.CONFIG
        assert caught.value.failure.permanent


async def test_an_answer_that_broke_off_is_asked_for_again(bad: BadHttp) -> None:
    async with connected(bad.url("resumes")) as client:
        assert await client.ask("ping") == json.loads(EXACT % 1)
    assert [asked.method for asked in bad.asked] == ["POST", "GET"]


async def test_what_was_sent_and_cannot_be_asked_for_again_does_not_pass_for_unsent(bad: BadHttp) -> None:
    async with connected(bad.url("never-resumes")) as client:
        id = client.send("ping")
        await bad.until(lambda: bad.count("POST") == 1)
        assert bad.server is not None
        bad.server.close()
        failure = await client.heard.failure(id)
    assert failure == Failure(Reason.UNREACHABLE, "connection refused", undone=False)


async def test_an_answer_that_breaks_off_again_is_asked_for_again(bad: BadHttp) -> None:
    async with connected(bad.url("breaks-and-resumes")) as client:
        assert await client.ask("ping") == json.loads(EXACT % 1)
        assert [message.get("method") for message in client.heard.messages] == [
            *["notifications/tools/list_changed"] * 2,
            None,
        ]
    assert [asked.headers.get("last-event-id") for asked in bad.asked] == [None, "1", "2"]


async def test_an_answer_that_cannot_be_had_any_more_fails(bad: BadHttp) -> None:
    async with connected(bad.url("resume/500")) as client:
        assert await client.fail() == Failure(Reason.UNREACHABLE, "HTTP 500")
    assert bad.count("GET") == http.RESUMES


async def test_in_the_modern_era_what_broke_off_is_not_asked_for_again(bad: BadHttp) -> None:
    async with connected(bad.url("resumes")) as client:
        assert (await client.fail(modern=True)).message == "the connection broke before the answer"
    assert bad.count("GET") == 0


async def test_a_cancelled_request_is_not_asked_for_again(bad: BadHttp) -> None:
    async with connected(bad.url("never-resumes")) as client:
        id = client.send("ping")
        await bad.until(lambda: bad.count("GET") == 3)
        client.notify("notifications/cancelled", {"requestId": id})
        await bad.until(lambda: bad.count("POST") == 2)
        asked = bad.count("GET")
        with pytest.raises(TimeoutError):
            await bad.until(lambda: bad.count("GET") > asked + 1, seconds=0.3)


@pytest.mark.parametrize("path", ["hang", "mute-stream"])
async def test_a_cancelled_request_keeps_no_connection(bad: BadHttp, path: str) -> None:
    async with connected(bad.url(path)) as client:
        ids = [client.send("ping") for _ in range(3)]
        await bad.until(lambda: bad.count("POST") == 3)
        for id in ids[:2]:
            client.notify("notifications/cancelled", {"requestId": id})
        await bad.until(lambda: bad.gone == 2)
    await bad.until(lambda: bad.gone >= 3)
    assert not client.heard.failures


@pytest.mark.parametrize("path", ["hang", "mute-stream"])
async def test_a_call_has_its_own_time_and_is_not_given_up_for_an_idle_connection(
    bad: BadHttp, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "IDLE_TIMEOUT", 0.2)
    monkeypatch.setattr(http_client, "IDLE_SPARE", -20.0)
    async with connected(bad.url(path)) as client:
        call = client.send("tools/call", {"name": "x"})
        await client.fail("ping")
        assert call not in client.heard.failures
        client.notify("notifications/cancelled", {"requestId": call})
        await bad.until(lambda: bad.gone == 2)


async def test_a_cancelled_request_keeps_no_connection_to_an_sse_server(bad: BadHttp) -> None:
    async with connected(bad.url("sse/hang"), sse=True) as client:
        id = client.send("ping")
        await bad.until(lambda: bad.count("POST") == 1)
        client.notify("notifications/cancelled", {"requestId": id})
        await bad.until(lambda: bad.gone == 1)
        assert not client.heard.failures


async def test_a_standalone_stream_that_never_lasts_is_asked_for_less_and_less(
    bad: BadHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "LISTEN_PAUSE", 0.5)
    async with connected(bad.url("polls")) as client:
        await client.handshake()
        await bad.until(lambda: bad.count("GET") == 1 + http.LISTEN_FREE)
        began = time.monotonic()
        await bad.until(lambda: bad.count("GET") == 3 + http.LISTEN_FREE)
        assert time.monotonic() - began >= 2 * http.LISTEN_PAUSE - 0.1
        assert (await client.ask("ping"))["result"]


async def test_a_standalone_stream_goes_on_where_it_broke_off_and_tells_that_the_session_is_gone(bad: BadHttp) -> None:
    async with connected(bad.url("listens")) as client:
        await client.handshake()
        assert await client.heard.loss() == Failure(Reason.SESSION, "the server forgot the session")
    assert client.heard.messages[1]["method"] == "notifications/tools/list_changed"
    asked = [asked.headers for asked in bad.asked if asked.method == "GET"]
    assert [headers.get("last-event-id") for headers in asked] == [None, "5"]
    assert {headers["mcp-session-id"] for headers in asked} == {"s-1"}
    assert bad.count("DELETE") == 0, "there is no session to end"


async def test_a_server_without_a_standalone_stream_is_asked_for_it_once(bad: BadHttp) -> None:
    async with connected(bad.url("session/500")) as client:
        await client.handshake()
        await bad.until(lambda: bad.count("GET") == 1)
        for _ in range(3):
            await client.fail()
    assert bad.count("GET") == 1


async def test_what_follows_the_end_of_the_handshake_waits_for_it(bad: BadHttp) -> None:
    async with connected(bad.url("late")) as client:
        await client.handshake()
        id = client.send("ping")
        client.notify("notifications/roots/list_changed")
        await bad.until(lambda: bad.count("POST") == 2)
        with pytest.raises(TimeoutError):
            await bad.until(lambda: bad.count("POST") > 2, seconds=0.2)
        bad.let_on.set()
        await client.heard.answer(id)


async def test_everything_on_the_stream_of_a_request_comes_through(bad: BadHttp) -> None:
    async with connected(bad.url("noisy")) as client:
        first, second = client.send("ping"), client.send("ping")
        for id in (first, second):
            assert await client.heard.answer(id) == json.loads(EXACT % id)
    methods = [message.get("method") for message in client.heard.messages]
    assert methods.count("notifications/tools/list_changed") == methods.count("ping") == 2
    assert len(client.heard.lines) == 6


async def test_an_answer_with_an_id_that_is_none_of_ours_is_that_of_its_request(bad: BadHttp) -> None:
    async with connected(bad.url("string-id")) as client:
        assert await client.ask("ping") == {"jsonrpc": "2.0", "id": 1, "result": {"big": BIG_INTEGER}}


async def test_a_response_that_holds_no_answer_fails_its_request(bad: BadHttp) -> None:
    async with connected(bad.url("only-a-notification")) as client:
        assert (await client.fail()).message == "an answer that is no JSON-RPC message"
        assert client.heard.messages[0]["method"] == "notifications/tools/list_changed"


@pytest.mark.parametrize("path", ["exact", "whole-stream", "gzip", "moved"])
async def test_one_connection_serves_one_request_after_another(bad: BadHttp, path: str) -> None:
    async with connected(bad.url(path)) as client:
        for _ in range(5):
            await client.ask("ping")
            await anyio.sleep(0.01)  # the end of a stream comes after the answer
        assert bad.connections == 1


async def test_a_stream_that_stays_open_after_the_answer_is_closed(
    bad: BadHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "GRACE", 0.05)
    async with connected(bad.url("lingers")) as client:
        await client.ask("ping")
        await bad.until(lambda: bad.gone == 1)


async def test_an_answer_that_inflates_without_end_is_not_inflated(bad: BadHttp) -> None:
    async with connected(bad.url("bomb"), line_cap=1 << 20) as client:
        await client.fail()  # the server makes its answer once
        tracemalloc.start()
        assert (await client.fail()).reason is Reason.PROTOCOL
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8 << 20


async def test_credentials_go_to_no_other_origin(bad: BadHttp) -> None:
    async with (
        BadHttp() as other,
        connected(bad.url(f"redirect/308?{other.url('exact')}"), headers={"authorization": "Bearer t"}) as client,
    ):
        assert (await client.fail()).message == "HTTP 308: redirects elsewhere"
        assert bad.asked[0].headers["authorization"] == "Bearer t"
        assert not other.asked


async def test_a_redirect_within_the_origin_is_followed_with_headers_and_body(bad: BadHttp) -> None:
    async with connected(bad.url(f"redirect/308?{bad.url('exact')}"), headers={"authorization": "Bearer t"}) as client:
        await client.ask("ping", modern=True)
    first, second = bad.asked
    assert (first.body, first.headers["authorization"]) == (second.body, second.headers["authorization"])
    assert second.headers["mcp-method"] == "ping"


class Bearer(httpx2.Auth):
    """Takes the token that a server names when it refuses."""

    def __init__(self, token: str = "none yet") -> None:
        self.token = token

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        request.headers["authorization"] = f"Bearer {self.token}"
        response = yield request
        if response.status_code == 401 and self.token == "none yet":
            self.token = response.headers["www-authenticate"].removeprefix("Bearer ")
            request.headers["authorization"] = f"Bearer {self.token}"
            yield request


class NoAuth(httpx2.Auth):
    """Cannot say who asks."""

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        if "authorization" not in request.headers:
            raise LookupError("no token of yours")
        yield request


async def test_an_authentication_may_answer_a_refusal(bad: BadHttp) -> None:
    async with connected(bad.url("token"), auth=Bearer()) as client:
        for id in (1, 2):
            assert await client.ask("ping") == json.loads(EXACT % id)
    assert [asked.headers["authorization"] for asked in bad.asked] == ["Bearer none yet", *["Bearer good"] * 2]
    assert bad.asked[0].body == bad.asked[1].body


async def test_an_authentication_that_is_refused_ends_the_connection(bad: BadHttp) -> None:
    async with connected(bad.url("token"), auth=Bearer("stale")) as client:
        client.send("ping")
        assert await client.heard.loss() == Failure(Reason.UNAUTHORIZED, "HTTP 401", permanent=True)


async def test_an_authentication_that_fails_costs_its_request_and_tells_nothing(bad: BadHttp) -> None:
    async with connected(bad.url("token"), auth=NoAuth()) as client:
        assert await client.fail() == Failure(Reason.INTERNAL, "the HTTP client failed: LookupError")
        assert not client.heard.losses


async def test_a_request_to_a_server_that_drips_can_be_given_up(bad: BadHttp) -> None:
    async with connected(bad.url("loris")) as client:
        id = client.send("ping", modern=True)
        await bad.until(lambda: bad.count("POST") == 1)
        client.notify("notifications/cancelled", {"requestId": id})
        await bad.until(lambda: not bad.tasks)
        assert bad.count("POST") == 1
        assert not client.heard.failures


async def test_a_server_that_takes_no_messages_costs_few_connections_and_not_for_long(
    bad: BadHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postings, "TURN_TIMEOUT", 0.2)
    monkeypatch.setattr(postings, "NOTICE_TIMEOUT", 1.0)
    async with connected(bad.url("hang")) as client:
        for _ in range(2 * postings.MAX_NOTICES):
            client.notify("notifications/roots/list_changed")
        await bad.until(lambda: bad.gone == postings.NOTICES_AT_ONCE)
        assert bad.count("POST") == postings.NOTICES_AT_ONCE
        client.notify("notifications/roots/list_changed")
        await bad.until(lambda: bad.count("POST") == postings.NOTICES_AT_ONCE + 1)
        assert not client.heard.losses


async def test_requests_over_the_cap_fail_at_once(bad: BadHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postings, "MAX_OPEN", 4)
    async with connected(bad.url("hang")) as client:
        ids = [client.send("ping") for _ in range(6)]
        assert (await client.heard.failure(ids[5])).message == "not sent: too many messages wait for the server"
        await bad.until(lambda: bad.count("POST") == 4)
        client.notify("notifications/cancelled", {"requestId": ids[0]})
        await bad.until(lambda: bad.count("POST") == 5)
        client.send("ping")
        await bad.until(lambda: bad.count("POST") == 6)
        assert set(client.heard.failures) == set(ids[4:])


async def test_a_name_that_no_header_can_hold_is_encoded(bad: BadHttp) -> None:
    async with connected(bad.url("exact")) as client:
        await client.ask("tools/call", {"name": "a\nb\x00"}, modern=True)
        assert bad.asked[0].headers["mcp-name"].startswith("=?base64?")


async def test_a_line_that_is_no_message_fails_its_request(bad: BadHttp) -> None:
    async with connected(bad.url("exact")) as client:
        client.transport.send([b'{"jsonrpc":"2.0","id":7,"method":"ping","params":{"a":}}\n'])
        assert (await client.heard.failure(7)).message == "not sent: no valid JSON-RPC"
        assert await client.ask("ping")


async def test_a_proxy_of_the_environment_is_not_used_for_loopback(
    bad: BadHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", bad.url("500"))
    monkeypatch.delenv("no_proxy", raising=False)
    async with connected(bad.url("exact")) as client:
        await client.ask("ping")
    assert bad.asked[0].path == "/exact"
    async with connected("http://server.invalid/mcp") as client:
        client.send("ping")
        await bad.until(lambda: len(bad.asked) == 2)
    assert bad.asked[1].path == "http://server.invalid/mcp"


async def test_nothing_of_the_libraries_is_logged(bad: BadHttp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for path in ("garbage-sse", "exact"):
        async with connected(bad.url(f"{path}?token=secret")) as client:
            client.send("ping")
            await client.heard.until(partial(outcome, client.heard))
    foreign = [record for record in caplog.records if record.name.split(".")[0] in ("mcp", "httpx2", "httpcore2")]
    assert not foreign
    logging.getLogger("httpx2").warning("an application's own")
    assert caplog.records[-1].message == "an application's own"


def test_no_descriptor_is_left_behind() -> None:
    async def visit() -> None:
        async with BadHttp() as bad:
            async with connected(bad.url("hang-later")) as client:
                await client.ask("initialize", HANDSHAKE)
                client.send("ping")
                await bad.until(lambda: bad.count("POST") == 2)
            await bad.until(lambda: bad.gone == 2)

    anyio.run(visit)
    before = len(os.listdir("/proc/self/fd"))
    anyio.run(visit)
    assert len(os.listdir("/proc/self/fd")) <= before
