"""All of the public API in use. Nobody runs this: strict type checkers read it, as `test_public_api` has them do."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_type

from mcp_types import (
    CallToolResult,
    CompleteResult,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequestParams,
    ElicitResult,
    EmptyResult,
    ErrorData,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListRootsResult,
    ListToolsResult,
    LoggingMessageNotificationParams,
    PromptReference,
    ReadResourceResult,
    ResourceTemplateReference,
    TextContent,
)
from pydantic import AnyUrl

import mcp_multi_server
from mcp_multi_server import (
    MCPServersConfig,
    MultiServerClient,
    ServerCapabilities,
    ServerConfig,
    ServerRequestContext,
    SyncMultiServerClient,
    configure_logging,
    extract_template_variables,
    format_namespace_uri,
    mcp_tools_to_anthropic_format,
    mcp_tools_to_gemini_format,
    mcp_tools_to_openai_format,
    parse_namespace_uri,
    print_capabilities_summary,
    substitute_template_variables,
)


async def on_progress(progress: float, total: float | None, message: str | None) -> None: ...


def on_change(event: Mapping[str, Any]) -> None: ...


async def sample(context: ServerRequestContext, params: CreateMessageRequestParams) -> CreateMessageResult | ErrorData:
    assert_type((context.server_name, context.request_id, context.meta), tuple[str, int | str, dict[str, Any] | None])
    return ErrorData(code=-1, message="no")


async def elicit(context: ServerRequestContext, params: ElicitRequestParams) -> ElicitResult:
    return ElicitResult(action="decline")


async def list_roots(context: ServerRequestContext) -> ListRootsResult:
    return ListRootsResult(roots=[])


async def log(params: LoggingMessageNotificationParams) -> None: ...


def sample_now(context: ServerRequestContext, params: CreateMessageRequestParams) -> CreateMessageResult:
    return CreateMessageResult(role="assistant", content=TextContent(type="text", text=""), model="")


def elicit_now(context: ServerRequestContext, params: ElicitRequestParams) -> ElicitResult | ErrorData:
    return ElicitResult(action="decline")


def list_roots_now(context: ServerRequestContext) -> ListRootsResult:
    return ListRootsResult(roots=[])


def log_now(params: LoggingMessageNotificationParams) -> None: ...


async def asynchronous() -> None:
    server = ServerConfig(command="python", args=("-m", "server"), env={"A": "b"}, timeout=5)
    remote = ServerConfig(url="https://example.com/mcp", headers={"Authorization": "x"}, type="http", disabled=True)
    ServerConfig(command="x", args=["-m"], include=["a*"], exclude=["b"], may_ask=["roots"], inherit_env=["C"])
    config = MCPServersConfig(mcpServers={"one": server, "two": remote})
    MultiServerClient()
    MultiServerClient("servers.json", strict_connect=True)
    MultiServerClient.from_config(Path("servers.json"), strict_connect=False)
    MultiServerClient.connect("/run/mcp.sock", logging_callback=log)
    MultiServerClient(sampling_callback=sample, elicitation_callback=elicit, list_roots_callback=list_roots)
    MultiServerClient.from_config("servers.json", sampling_callback=sample, logging_callback=None)
    MultiServerClient.from_dict({}, elicitation_callback=elicit, list_roots_callback=list_roots)
    stacked = MultiServerClient.connect()
    async with AsyncExitStack() as stack:
        await stacked.connect_all(stack)
    await stacked.aclose()
    async with MultiServerClient.from_dict(config.model_dump(), strict_connect=None) as client:
        assert_type(client, MultiServerClient)
        assert_type(client.list_tools(), ListToolsResult)
        assert_type(client.list_prompts(None, params=None), ListPromptsResult)
        assert_type(client.list_resources(use_namespace=False), ListResourcesResult)
        assert_type(client.list_resource_templates(use_namespace=True), ListResourceTemplatesResult)
        assert_type(client.config_path, Path | None)
        assert_type(client.strict_connect, bool)
        assert_type(client.capabilities, dict[str, ServerCapabilities])
        assert_type(client.capabilities["one"].tools, ListToolsResult | None)
        assert_type(client.tool_to_server, dict[str, str])
        assert_type(client.prompt_to_server, dict[str, str])
        assert_type(client.status(), dict[str, Any])
        assert_type(client.collisions(), list[dict[str, Any]])
        client.on_change(on_change)
        assert_type(await client.call_tool("tool"), CallToolResult)
        await client.call_tool("tool", {"a": 1}, 5.0, on_progress, meta={"b": 2}, server_name="one")
        await client.call_tool("tool", {"a": 1}, read_timeout_seconds=timedelta(seconds=5))
        assert_type(await client.read_resource("one:file:///x"), ReadResourceResult)
        await client.read_resource(AnyUrl("file:///x"), server_name="one")
        assert_type(await client.get_prompt("prompt", {"a": "b"}, server_name="one"), GetPromptResult)
        reference = ResourceTemplateReference(uri="x://{y}")
        assert_type(await client.complete(reference, {"name": "y", "value": "z"}), CompleteResult)
        assert_type(await client.set_logging_level("debug"), EmptyResult)
        print_capabilities_summary(client)


def synchronous() -> None:
    SyncMultiServerClient(config_dict={"mcpServers": {}}, strict_connect=True).shutdown()
    SyncMultiServerClient.from_config(Path("servers.json")).shutdown()
    SyncMultiServerClient.connect("/run/mcp.sock", logging_callback=log_now).shutdown()
    SyncMultiServerClient("servers.json", sampling_callback=sample_now, elicitation_callback=elicit_now).shutdown()
    SyncMultiServerClient.from_dict({}, list_roots_callback=list_roots_now, logging_callback=log_now).shutdown()
    with SyncMultiServerClient.from_dict({"mcpServers": {}}) as client:
        assert_type(client, SyncMultiServerClient)
        assert_type(client.list_tools(), ListToolsResult)
        assert_type(client.list_prompts(), ListPromptsResult)
        assert_type(client.list_resources(use_namespace=False), ListResourcesResult)
        assert_type(client.list_resource_templates(use_namespace=False), ListResourceTemplatesResult)
        assert_type(client.config_path, Path | None)
        assert_type(client.strict_connect, bool)
        assert_type(client.capabilities, dict[str, ServerCapabilities])
        assert_type(client.tool_to_server, dict[str, str])
        assert_type(client.prompt_to_server, dict[str, str])
        assert_type(client.status(), dict[str, Any])
        assert_type(client.collisions(), list[dict[str, Any]])
        client.on_change(on_change)
        assert_type(client.call_tool("tool", {"a": 1}, 5.0, on_progress, timeout=6), CallToolResult)
        assert_type(client.read_resource("one:file:///x", timeout=6), ReadResourceResult)
        assert_type(client.get_prompt("prompt", timeout=6), GetPromptResult)
        prompt = PromptReference(name="prompt")
        assert_type(client.complete(prompt, {"name": "y", "value": "z"}, timeout=6), CompleteResult)
        assert_type(client.set_logging_level("debug", timeout=6), EmptyResult)


def functions() -> None:
    tools = ListToolsResult(tools=[]).tools
    assert_type(mcp_multi_server.__version__, str)
    assert_type(mcp_tools_to_openai_format(tools), list[dict[str, Any]])
    assert_type(mcp_tools_to_anthropic_format(tools), list[dict[str, Any]])
    assert_type(mcp_tools_to_gemini_format(tools), list[dict[str, Any]])
    assert_type(format_namespace_uri("one", AnyUrl("file:///x")), str)
    assert_type(parse_namespace_uri("one:file:///x"), tuple[str | None, str])
    assert_type(extract_template_variables("x://{y}"), list[str])
    assert_type(substitute_template_variables("x://{y*}", {"y": ["1", "2"]}), str)
    print_capabilities_summary(SyncMultiServerClient.from_dict({"mcpServers": {}}), file=sys.stderr)
    configure_logging("mcp_multi_server", "DEBUG", format="%(message)s", datefmt="%H:%M")
