"""The SDK's own client, over the daemon's socket or straight to a server of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
from anyio.abc import SocketStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp import Client, StdioServerParameters
from mcp.client._transport import TransportStreams
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from .entries import Entry

Mode = Literal["auto", "legacy"]
Incoming = SessionMessage | Exception


def sdk_client(path: str | Path, mode: Mode, **settings: Any) -> Client:
    """A client of the daemon at `path`; `auto` negotiates the modern era with it."""
    return Client(_socket_streams(str(path)), mode=mode, read_timeout_seconds=20, **settings)


def direct_client(entry: Entry, mode: Mode, **settings: Any) -> Client:
    """A client of a server of its own: started as `entry` says, or reached at its URL."""
    if "url" in entry:
        found = sse_client(entry["url"]) if entry.get("type") == "sse" else entry["url"]
        return Client(found, mode=mode, read_timeout_seconds=20, **settings)
    return Client(_process_streams(entry), mode=mode, read_timeout_seconds=20, **settings)


@asynccontextmanager
async def _process_streams(entry: Entry) -> AsyncIterator[TransportStreams]:
    started = StdioServerParameters(
        command=entry["command"], args=entry["args"], env=entry["env"], cwd=entry.get("cwd")
    )
    with open(os.devnull, "w") as nowhere:
        async with stdio_client(started, errlog=nowhere) as streams:
            yield streams


@asynccontextmanager
async def _socket_streams(path: str) -> AsyncIterator[TransportStreams]:
    into, incoming = anyio.create_memory_object_stream[Incoming](0)
    outgoing, out_of = anyio.create_memory_object_stream[SessionMessage](0)
    async with await anyio.connect_unix(path) as stream, anyio.create_task_group() as tasks:
        tasks.start_soon(_receive, stream, into)
        tasks.start_soon(_send, stream, out_of)
        try:
            with into, incoming, outgoing, out_of:
                yield incoming, outgoing
        finally:
            tasks.cancel_scope.cancel()


async def _receive(stream: SocketStream, into: MemoryObjectSendStream[Incoming]) -> None:
    rest = b""
    with into:
        try:
            async for data in stream:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    await into.send(SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False)))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # either side has gone, which ends the session


async def _send(stream: SocketStream, out_of: MemoryObjectReceiveStream[SessionMessage]) -> None:
    async for item in out_of:
        await stream.send(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")


def connected(client: Client) -> AbstractAsyncContextManager[Client]:
    """`client`, entered and left within a bound."""
    return _bounded(client)


@asynccontextmanager
async def _bounded(client: Client) -> AsyncIterator[Client]:
    with anyio.fail_after(40):
        async with client as entered:
            yield entered
