"""The official SDK's client: what users have without a daemon, and what they would call one with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import mcp_types
from mcp import Client, StdioServerParameters
from mcp.shared.message import SessionMessage

from .wire import Burst, WireError

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]

LONGEST_LINE = 64 * 1024 * 1024


@asynccontextmanager
async def over_socket(path: str) -> AsyncIterator[Streams]:
    """A transport like the SDK's own for stdio, on a Unix socket."""
    reader, writer = await asyncio.open_unix_connection(path, limit=LONGEST_LINE)
    incoming, from_socket = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_socket, outgoing = anyio.create_memory_object_stream[SessionMessage](0)

    async def receive() -> None:
        async with incoming:
            while line := await reader.readline():
                message = mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False)
                await incoming.send(SessionMessage(message))

    async def send() -> None:
        async with outgoing:
            async for item in outgoing:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                writer.write(text.encode() + b"\n")
                await writer.drain()

    async with anyio.create_task_group() as pumps:
        pumps.start_soon(receive)
        pumps.start_soon(send)
        try:
            yield from_socket, to_socket
        finally:
            pumps.cancel_scope.cancel()
            writer.close()


class SdkClient:
    """One `mcp.Client` on an event loop that runs only while it is called."""

    def __init__(self, runner: asyncio.Runner, *, argv: Sequence[str] = (), socket: str = "") -> None:
        self._runner = runner
        self._argv = argv
        self._socket = socket
        self._stop = asyncio.Event()
        self._client: Client
        self._owner = runner.run(self._open())

    async def _open(self) -> asyncio.Task[None]:
        ready = asyncio.Event()
        owner = asyncio.create_task(self._hold(ready))
        waits = asyncio.create_task(ready.wait())
        await asyncio.wait({owner, waits}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        waits.cancel()
        if owner.done():
            await owner
        if not ready.is_set():
            raise WireError("the SDK's client did not connect")
        return owner

    async def _hold(self, ready: asyncio.Event) -> None:
        """Enter and leave the client in one task, as its cancel scopes demand."""
        server = (
            over_socket(self._socket)
            if self._socket
            else StdioServerParameters(command=self._argv[0], args=list(self._argv[1:]))
        )
        async with Client(server, mode="legacy") as self._client:
            await self._client.list_tools()
            ready.set()
            await self._stop.wait()

    def call(self, calls: Sequence[tuple[str, Mapping[str, Any]]], *, in_flight: int) -> Burst:
        """Call tools (name, arguments), `in_flight` at a time; every answer is checked."""
        return self._runner.run(self._burst(calls, in_flight))

    async def _burst(self, calls: Sequence[tuple[str, Mapping[str, Any]]], in_flight: int) -> Burst:
        clock, latencies, texts = time.perf_counter_ns, list[int](), dict[int, object]()
        waiting = iter(enumerate(calls))

        async def lane() -> None:
            for number, (name, arguments) in waiting:
                begin = clock()
                answer = await self._client.call_tool(name, dict(arguments))
                latencies.append(clock() - begin)
                texts[number] = getattr(answer.content[0], "text", answer.is_error)

        start = clock()
        async with asyncio.timeout(120):
            await asyncio.gather(*(lane() for _ in range(in_flight)))
        wall = clock() - start
        wrong = [number for number, (_, arguments) in enumerate(calls) if texts[number] != arguments["text"]]
        if wrong:
            raise WireError(f"call {wrong[0]} got another text back: {texts[wrong[0]]!r:.300}")
        return Burst(wall, latencies)

    def close(self) -> None:
        """Disconnect; a server of its own ends."""

        async def leave() -> None:
            self._stop.set()
            await asyncio.wait({self._owner}, timeout=10)

        self._runner.run(leave())
