"""Programs written for version 1 of the library, with nothing changed but the names that the SDK changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ..e2e.entries import fixture

AWAITED = """
import asyncio
from mcp_multi_server import MultiServerClient

async def main():
    async with MultiServerClient.from_config("mcp_servers.json") as client:
        tools = client.list_tools()
        print([(tool.name, tool.meta["serverName"]) for tool in tools.tools if tool.name == "echo"])
        result = await client.call_tool("echo", {"text": "hi"})
        print(result.is_error, result.structured_content["arguments"])
        resources = client.list_resources()
        print(resources.resources[0].uri, len((await client.read_resource(resources.resources[0].uri)).contents))
        print((await client.get_prompt("greet", {"language": "en"})).messages[0].role)
        print((await client.call_tool("juggle", {})).content[0].text)

asyncio.run(main())
"""

HELD_BY_A_STACK = """
import asyncio
from contextlib import AsyncExitStack
from mcp_multi_server import MultiServerClient

async def main():
    async with AsyncExitStack() as stack:
        client = MultiServerClient("mcp_servers.json")
        await client.connect_all(stack)
        print((await client.call_tool("echo", {}, server_name="two")).structured_content["server"])
        print((await client.read_resource("note://one", server_name="two")).contents[0].uri)
        print((await client.call_tool("echo", {}, server_name="nobody")).content[0].text)

asyncio.run(main())
"""

MADE_OF_MODELS = """
import asyncio, json
from mcp_multi_server import MCPServersConfig, MultiServerClient, ServerConfig

entry = json.load(open("mcp_servers.json"))["mcpServers"]["one"]
config = MCPServersConfig(mcpServers={"mine": ServerConfig(command=entry["command"], args=entry["args"])})

async def main():
    async with MultiServerClient.from_dict(config.model_dump()) as client:
        print(list(client.capabilities), client.tool_to_server["echo"])

asyncio.run(main())
"""

WITHOUT_AWAIT = """
import json
from mcp_multi_server import SyncMultiServerClient
from mcp_multi_server.utils import configure_logging, mcp_tools_to_openai_format, print_capabilities_summary

configure_logging(level="WARNING")
with SyncMultiServerClient.from_config("mcp_servers.json") as client:
    client.set_logging_level(level="warning")
    print_capabilities_summary(client)
    formatted = mcp_tools_to_openai_format(client.list_tools().tools)
    print(formatted[0]["type"], sorted(formatted[0]["function"]))
    print(client.call_tool("echo", {"text": "hi"}, timeout=20).is_error)
with SyncMultiServerClient.from_dict(json.load(open("mcp_servers.json"))) as client:
    print(len(client.list_resources(use_namespace=False).resources) > 0)
client.shutdown()
"""


@pytest.mark.parametrize(
    ("program", "said"),
    [
        pytest.param(
            AWAITED,
            [
                "[('echo', 'one')]",
                "False {'text': 'hi'}",
                "one:note://one 1",
                "user",
                "Unknown tool: juggle",
            ],
            id="awaited",
        ),
        pytest.param(HELD_BY_A_STACK, ["two", "note://one", "Unknown server: nobody"], id="held by a stack"),
        pytest.param(MADE_OF_MODELS, ["['mine'] mine"], id="made of models"),
        pytest.param(
            WITHOUT_AWAIT,
            [
                "CAPABILITIES SUMMARY",
                "[two]",
                "function ['description', 'name', 'parameters']",
                "False",
                "True",
            ],
            id="without await",
        ),
    ],
)
def test_a_program_for_version_1_runs_unchanged(program: str, said: list[str], tmp_path: Path) -> None:
    servers = {name: fixture(name) for name in ("one", "two")}
    (tmp_path / "mcp_servers.json").write_text(json.dumps({"mcpServers": servers}))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line in said] == said, done.stdout
