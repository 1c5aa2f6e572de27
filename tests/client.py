"""One client of a fleet that runs in the same loop: lines out, lines in."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from typing import Any

import anyio

from tests.fixtures.fixture import META, MODERN

Message = dict[str, Any]

PATIENCE = 8.0
"""Seconds that anything may take before a test gives up."""
ENVELOPE: Message = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}


class Client:
    """One connection to the gateway: lines out, lines in."""

    def __init__(self, connected: socket.socket, *, modern: bool, capabilities: Message | None = None) -> None:
        self.socket = connected
        self.modern = modern
        self.capabilities = capabilities or {}
        self._rest = b""
        self._lines: deque[bytes] = deque()
        self._kept: deque[bytes] = deque()

    async def write(self, data: bytes | str) -> None:
        """Bytes as they are."""
        await asyncio.get_running_loop().sock_sendall(self.socket, data.encode() if isinstance(data, str) else data)

    async def post(self, method: str, params: Message | str | None = None, *, id: object = 1) -> None:
        """Send a request; params as text go out byte for byte."""
        if params is None or isinstance(params, dict):
            params = dict(params or {})
            if self.modern and not method.startswith("daemon/"):
                declared = {META + "clientCapabilities": self.capabilities}
                params["_meta"] = ENVELOPE | declared | params.get("_meta", {})
            params = json.dumps(params)
        await self.write(f'{{"jsonrpc":"2.0","id":{json.dumps(id)},"method":{json.dumps(method)},"params":{params}}}\n')

    async def notify(self, method: str, params: Message | None = None) -> None:
        body: Message = {"jsonrpc": "2.0", "method": method}
        await self.write(json.dumps(body if params is None else body | {"params": params}) + "\n")

    async def line(self) -> bytes:
        """The next line. Raises EOFError at the end of the stream."""
        with anyio.fail_after(PATIENCE):
            while not self._lines:
                data = await asyncio.get_running_loop().sock_recv(self.socket, 1 << 16)
                if not data:
                    raise EOFError
                *lines, self._rest = (self._rest + data).split(b"\n")
                self._lines.extend(lines)
        return self._lines.popleft()

    async def message(self) -> Message:
        found: Message = json.loads(await self.line())
        return found

    async def answer_line(self, id: object = 1) -> str:
        """The line that answers that request; notifications before it are kept."""
        while True:
            line = await self.line()
            message = json.loads(line)
            if "method" not in message:
                assert message.get("id") == id, f"an answer to {message.get('id')!r}, not {id!r}: {message}"
                return line.decode()
            self._kept.append(line)

    async def notification(self) -> Message:
        """The next notification."""
        found: Message = json.loads(self._kept.popleft() if self._kept else await self.line())
        assert "method" in found, found
        return found

    async def question(self) -> Message:
        """The next request, which the daemon passes on from a server."""
        while True:
            line = self._kept.popleft() if self._kept else await self.line()
            found: Message = json.loads(line)
            if "id" in found and "method" in found:
                return found
            assert "method" in found, f"an answer before the question: {found}"

    async def reply(self, question: Message, *, result: str | None = None, error: str | None = None) -> None:
        """Answer it; `result` and `error` are JSON."""
        body = f'"result":{result}' if error is None else f'"error":{error}'
        await self.write(f'{{"jsonrpc":"2.0","id":{json.dumps(question["id"])},{body}}}\n')

    async def request(self, method: str, params: Message | str | None = None, *, id: object = 1) -> Message:
        """The response, whichever it is."""
        await self.post(method, params, id=id)
        found: Message = json.loads(await self.answer_line(id))
        return found

    async def result(self, method: str, params: Message | str | None = None, *, id: object = 1) -> Message:
        response = await self.request(method, params, id=id)
        assert "result" in response, response
        found: Message = response["result"]
        return found

    async def error(self, method: str, params: Message | str | None = None, *, id: object = 1) -> Message:
        response = await self.request(method, params, id=id)
        assert "error" in response, response
        found: Message = response["error"]
        return found

    async def initialize(self) -> Message:
        """The legacy handshake, both halves."""
        info = {"name": "tester", "version": "1", "x-vendor": True}
        params = {"protocolVersion": "2025-11-25", "capabilities": self.capabilities, "clientInfo": info}
        result = await self.result("initialize", params, id="handshake")
        await self.notify("notifications/initialized")
        return result

    async def settled(self) -> list[Message]:
        """Every notification that came by the time a request that is made here is answered."""
        await self.result("daemon/logs", {"server": "one"}, id="fence")
        kept, self._kept = [json.loads(line) for line in self._kept], deque()
        return kept

    async def ended(self) -> list[Message]:
        """All that comes until the other side ends the connection."""
        found = []
        while True:
            try:
                found.append(await self.message())
            except (EOFError, ConnectionResetError):
                return found

    def close(self) -> None:
        self.socket.close()
