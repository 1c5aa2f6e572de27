"""The servers that the other tests rely on, looked at without the daemon: what a fixture claims, it does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError

from tests.fixtures.faulty import AT_START, LISTS, MODES
from tests.fixtures.fixture import EXACT, META, MODERN, member

from .entries import faulty, fixture, npm
from .pipe import Pipe
from .sdk import Mode, connected, direct_client


@pytest.fixture
def pipe(request: pytest.FixtureRequest) -> Iterator[Pipe]:
    with Pipe(request.param) as made:
        yield made


def over(*entries: dict[str, Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("pipe", entries, indirect=True, ids=lambda entry: " ".join(entry["args"][3:]))


ENVELOPE = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}


@pytest.mark.parametrize(
    ("era", "mode", "version"),
    [
        ("legacy", "legacy", "2025-11-25"),
        ("legacy", "auto", "2025-11-25"),
        ("modern", "auto", "2026-07-28"),
        ("both", "legacy", "2025-11-25"),
        ("both", "auto", "2026-07-28"),
        ("dies-on-probe", "legacy", "2025-11-25"),
        ("silent-on-probe", "legacy", "2025-11-25"),
    ],
)
def test_the_sdk_speaks_with_the_fixture_in_its_eras(era: str, mode: Mode, version: str) -> None:
    async def main() -> None:
        async with connected(direct_client(fixture("one", "--era", era, "--page-size", 5), mode)) as client:
            assert client.protocol_version == version
            tools = [tool.name async for tool in every_tool(client)]
            assert tools[:3] == ["echo", "received", "slow"] and len(tools) == len(set(tools)) == 20
            result = await client.call_tool("echo", {"a": [1]})
            assert result.structured_content is not None
            assert result.structured_content["arguments"] == {"a": [1]}
            assert (await client.read_resource("note://one")).contents[0].uri == "note://one"
            assert len((await client.get_prompt("greet", {"language": "Suomi"})).messages) == 2
            assert [one.uri for one in (await client.list_resources()).resources] == ["note://one", "note://blob"]
            assert (await client.list_resource_templates()).resource_templates[0].uri_template == "note://one/{path}"
            with pytest.raises(MCPError) as wrong:
                await client.call_tool("rpc_error", {"code": 77})
            assert wrong.value.code == 77

    anyio.run(main)


async def every_tool(client: Client) -> Any:
    cursor = None
    while True:
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            yield tool
        if (cursor := page.next_cursor) is None:
            return


@over(fixture("one", "--era", "legacy"))
def test_echo_keeps_every_byte_of_its_arguments(pipe: Pipe) -> None:
    pipe.initialize()
    said = b'{ "n":[1.0,1E+2,123456789012345678901234567890],"s":"\\u00e9\\/","params":{"arguments":1} }'
    pipe.send(b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"arguments":%b,"name":"echo"}}' % said)
    answer = pipe.line().decode()
    assert member(answer, "result", "structuredContent", "arguments") == said.decode()
    assert member(answer, "result", "x-top") == EXACT


@over(fixture("one", "--era", "modern"))
def test_the_modern_fixture_insists_on_the_envelope(pipe: Pipe) -> None:
    assert pipe.ask("tools/list")["error"]["code"] == -32602
    wrong = pipe.ask("tools/list", {"_meta": ENVELOPE | {META + "protocolVersion": "2099-01-01"}})
    assert wrong["error"]["code"] == -32022
    assert wrong["error"]["data"] == {"supported": [MODERN], "requested": "2099-01-01"}
    assert pipe.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})["error"]["code"] == -32022
    result = pipe.ask("server/discover", {"_meta": ENVELOPE})["result"]
    assert (result["resultType"], result["ttlMs"], result["cacheScope"]) == ("complete", 0, "public")
    assert result["_meta"][META + "serverInfo"]["name"] == "one"


@over(fixture("one", "--era", "modern"))
def test_a_subscription_is_acknowledged_before_anything_comes_on_it(pipe: Pipe) -> None:
    wanted = {"toolsListChanged": True, "resourceSubscriptions": ["note://one"]}
    pipe.send(
        {
            "jsonrpc": "2.0",
            "id": "L",
            "method": "subscriptions/listen",
            "params": {"_meta": ENVELOPE, "notifications": wanted},
        }
    )
    first = json.loads(pipe.line())
    assert first["method"] == "notifications/subscriptions/acknowledged"
    assert first["params"]["notifications"] == wanted
    pipe.send({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"_meta": ENVELOPE, "name": "grow"}})
    told, _ = json.loads(pipe.line()), pipe.line()
    assert told["method"] == "notifications/tools/list_changed"
    assert told["params"]["_meta"][META + "subscriptionId"] == "L"


@over(fixture("one", "--era", "legacy"))
def test_slow_tells_of_progress_and_heeds_a_cancel(pipe: Pipe) -> None:
    pipe.initialize()
    slow = {"name": "slow", "arguments": {"seconds": 0.05, "tag": "first"}, "_meta": {"progressToken": "t"}}
    pipe.send({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": slow})
    seen = [json.loads(pipe.line()) for _ in range(3)]
    assert [one["params"]["progress"] for one in seen[:2]] == [1.0, 2.0]
    assert seen[2]["id"] == 3
    slow = {"name": "slow", "arguments": {"seconds": 30, "tag": "second"}}
    pipe.send({"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": slow})
    cancel = {"requestId": 4, "reason": "enough"}
    pipe.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancel})
    answer = pipe.ask("tools/call", {"name": "cancelled_ids"}, id=5)
    found = answer["result"]["structuredContent"]
    assert found == {"cancelled": [{"known": True, "tag": "second", "reason": "enough"}], "running": []}


@over(fixture("one", "--era", "dies-on-probe"))
def test_one_fixture_dies_when_it_is_probed(pipe: Pipe) -> None:
    pipe.send({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": ENVELOPE}})
    assert pipe.line() == b""
    assert pipe.process.wait(5) == 1


@over(fixture("one", "--era", "silent-on-probe"))
def test_one_fixture_answers_initialize_alone(pipe: Pipe) -> None:
    pipe.send({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": ENVELOPE}})
    assert pipe.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, id=2)["id"] == 2


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in AT_START])
def test_a_faulty_server_works_beside_its_fault(mode: str) -> None:
    with Pipe(faulty(mode)) as pipe:
        assert pipe.initialize()["result"]["serverInfo"]["name"] == mode
        listed = pipe.ask("tools/list")["result"]
        assert mode in LISTS or [tool["name"] for tool in listed["tools"]] == ["work", "trigger"]
        assert pipe.ask("tools/call", {"name": "work"})["result"]["content"][0]["text"] == "worked"


def test_a_fixture_ends_with_its_stdin() -> None:
    with Pipe(fixture()) as pipe:
        assert pipe.process.stdin is not None
        pipe.process.stdin.close()
        assert pipe.process.wait(5) == 0
        pipe.process.stdin = None


@pytest.mark.parametrize("package", ["everything", "filesystem", "memory"])
def test_the_reference_servers_are_installed(package: str) -> None:
    assert npm(package)["command"].endswith("node")
