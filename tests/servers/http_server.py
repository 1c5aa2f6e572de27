"""A well-behaved MCP server over HTTP, made with the SDK and uvicorn.

Prints `port N` when it listens, then one line for each thing a test may wait for: `started TOOL`, `cancelled TOOL`,
`ended` (a session was deleted). Run it as `python -m tests.servers.http_server --transport http --era both`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import socket
import warnings
from typing import TYPE_CHECKING, Any

import anyio
import mcp_types as types
import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.sse import SseServerTransport
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext
    from starlette.types import ASGIApp, Receive, Scope, Send

OBJECT: dict[str, Any] = {"type": "object"}
REGION = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
BROKEN = {"type": "object", "properties": {"region": {"type": "object", "x-mcp-header": "Region"}}}
SCHEMAS = dict.fromkeys(("echo", "big", "slow", "fail", "stall", "change"), OBJECT)
SCHEMAS |= {"region": REGION, "misdeclared": BROKEN}


def say(*words: object) -> None:
    print(*words, flush=True)


async def list_tools(_: ServerRequestContext, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    tools = [types.Tool(name=name, input_schema=schema) for name, schema in SCHEMAS.items()]
    return types.ListToolsResult(tools=tools, ttl_ms=0, cache_scope="private")


async def call_tool(context: ServerRequestContext, params: types.CallToolRequestParams) -> types.CallToolResult:
    arguments = params.arguments or {}
    say("started", params.name)
    try:
        text = await TOOLS[params.name](context, arguments)
    except asyncio.CancelledError:
        say("cancelled", params.name)
        raise
    content: list[types.ContentBlock] = [types.TextContent(type="text", text=text)]
    return types.CallToolResult(content=content, structured_content=arguments, is_error=params.name == "fail")


async def echo(_: ServerRequestContext, arguments: dict[str, Any]) -> str:
    return json.dumps(arguments)


async def big(_: ServerRequestContext, arguments: dict[str, Any]) -> str:
    return "x" * int(arguments["bytes"])


async def slow(context: ServerRequestContext, arguments: dict[str, Any]) -> str:
    for step in range(int(arguments["steps"])):
        await context.session.report_progress(step, message=f"step {step}")
    return "done"


async def stall(context: ServerRequestContext, _: dict[str, Any]) -> str:
    await context.session.report_progress(0)
    await anyio.sleep_forever()
    return ""


async def change(context: ServerRequestContext, _: dict[str, Any]) -> str:
    await context.session.send_tool_list_changed()
    return "changed"


TOOLS = {
    "echo": echo,
    "fail": echo,
    "region": echo,
    "misdeclared": echo,
    "big": big,
    "slow": slow,
    "stall": stall,
    "change": change,
}


def sse_app(server: Server[Any]) -> Starlette:
    transport = SseServerTransport("/messages/")

    async def stream(scope: Scope, receive: Receive, send: Send) -> Response:
        async with transport.connect_sse(scope, receive, send) as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())
        return Response()

    async def endpoint(request: Any) -> Response:
        return await stream(request.scope, request.receive, request._send)

    return Starlette(routes=[Route("/mcp", endpoint), Mount("/messages/", app=transport.handle_post_message)])


class Doorkeeper:
    """Refuses requests of the wrong era, and those without the header that is asked for."""

    def __init__(self, app: ASGIApp, *, era: str, header: str) -> None:
        self.app = app
        self.era = era
        self.header = header.partition("=")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = {name.decode(): text.decode() for name, text in scope["headers"]}
            if refusal := self.refusal(scope["method"], headers):
                await refusal(scope, receive, send)
                return
            if scope["method"] == "DELETE":
                say("ended")
        await self.app(scope, receive, send)

    def refusal(self, method: str, headers: dict[str, str]) -> Response | None:
        name, _, text = self.header
        if name and headers.get(name) != text:
            return Response(status_code=401)
        modern = "mcp-method" in headers
        if method != "POST" or self.era == "both" or modern == (self.era == "modern"):
            return None
        error = {"code": -32022 if self.era == "modern" else -32600, "message": f"Bad Request: {self.era} only"}
        body = json.dumps({"jsonrpc": "2.0", "id": None, "error": error})
        return Response(body, status_code=400, media_type="application/json")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--transport", choices=("http", "sse"), default="http")
    parser.add_argument("--era", choices=("both", "legacy", "modern"), default="both")
    parser.add_argument("--json", action="store_true", help="answer with JSON bodies instead of event streams")
    parser.add_argument("--header", default="", help="NAME=VALUE that every request must carry; 401 without")
    options = parser.parse_args()
    logging.disable()
    warnings.simplefilter("ignore")  # the SDK warns of its own deprecated transports
    server: Server[Any] = Server("http-fixture", version="1", on_list_tools=list_tools, on_call_tool=call_tool)
    inner = sse_app(server) if options.transport == "sse" else server.streamable_http_app(json_response=options.json)
    app = Doorkeeper(inner, era=options.era, header=options.header)
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it every answer takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", options.port))
    listener.listen()
    say("port", listener.getsockname()[1])
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
