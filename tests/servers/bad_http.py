"""An HTTP server that does everything wrong, each thing under a path of its own; stdlib asyncio.

In a test: `async with BadHttp() as server`, then `server.url("hang")`. As a program it prints `port N` and serves.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

NUMBER = "123456789012345678901234567890"
EXACT = (
    '{"jsonrpc":"2.0","id":%d,"result":{"big":' + NUMBER + ',"x-new":{"deep":[1,2.5,null]},'
    '"text":"\\u00e9\\ud83d\\ude00","content":[{"type":"novel","x":1}]}}'
)
SESSION = ("mcp-session-id", "s-1")
INITIALIZED = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "bad", "version": "0"}}


@dataclass
class Asked:
    """One request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def opens(self) -> bool:
        """Whether this is an initialize request."""
        return self.method == "POST" and bool(self.message["method"] == "initialize")


@dataclass
class BadHttp:
    """The server, and what it was asked."""

    asked: list[Asked] = field(default_factory=list)
    gone: int = 0
    """Requests whose client went away before they were answered."""
    server: asyncio.Server | None = None
    stream: asyncio.StreamWriter | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> BadHttp:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.server is not None
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        assert self.server is not None
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def count(self, method: str) -> int:
        return sum(asked.method == method for asked in self.asked)

    async def until(self, condition: Callable[[], bool], *, seconds: float = 5) -> None:
        """Wait until something that was asked makes the condition true; TimeoutError where nothing does."""
        async with asyncio.timeout(seconds):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            while (asked := await read(reader)) is not None:
                self.asked.append(asked)
                self.changed.set()
                if not await self.answer(asked, reader, writer):
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass  # asyncio's streams report a cancelled callback as an error
        finally:
            self.tasks.discard(task)
            writer.close()

    async def answer(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection goes on."""
        if asked.path.startswith("/sse/"):
            return await self.sse(asked, reader, writer)
        if asked.path == "/drips" and asked.method == "DELETE":
            await drip(writer)
        if asked.method == "DELETE" and not asked.path.startswith("/hang"):
            writer.write(say(""))
            return True
        name = asked.path.partition("?")[0].strip("/").partition("/")[0]
        if name == "mute-stream" and "id" in asked.message:
            writer.write(events())
            await writer.drain()
        if name in ("hang", "mute-stream") or (name == "hang-later" and not asked.opens):
            await reader.read()
            self.gone += 1
            self.changed.set()
            return False
        reply = getattr(self, f"on_{name.replace('-', '_')}", None)
        data: bytes = reply(asked) if reply else self.by_status(asked)
        writer.write(data)
        await writer.drain()
        return b"content-length" in data

    async def sse(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """`/sse/404`: an event stream whose endpoint answers so; with 202, pretty-printed on the stream."""
        if asked.method == "GET":
            self.stream = writer
            writer.write(events(f"event: endpoint\ndata: {asked.path}"))
            await reader.read()
            return False
        last = asked.path.rpartition("/")[2]
        if last == "hang":
            await reader.read()
            self.gone += "id" in asked.message
            self.changed.set()
            return False
        status = int(last)
        writer.write(say("", status=status))
        if status == 202 and self.stream is not None:
            pretty = json.dumps(json.loads(EXACT % asked.message["id"]), indent=2)
            lines = "".join(f"data: {line}\n" for line in pretty.splitlines())
            self.stream.write(f"event: message\n{lines}\n".encode())
        return True

    def by_status(self, asked: Asked) -> bytes:
        """`/500`: that status; `/500/-32000:No`: with an error in the body; `/session/404`: after an initialize."""
        parts = asked.path.strip("/").split("/") if asked.path.startswith("/") else ["502"]
        if parts[0] == "session":
            if asked.opens:
                return say(result(asked, INITIALIZED), headers=[SESSION])
            if asked.method == "GET":
                return say("", status=405)
            parts = parts[1:]
        status = int(parts[0])
        if len(parts) == 1:
            return say("<p>no</p>", status=status, kind="text/html")
        code, _, text = parts[1].partition(":")
        error = {"code": int(code), "message": text.replace("_", " "), "data": {"x": 1}}
        return say(json.dumps({"jsonrpc": "2.0", "id": None, "error": error}), status=status)

    def on_exact(self, asked: Asked) -> bytes:
        return say(EXACT % asked.message["id"])

    def on_exact_sse(self, asked: Asked) -> bytes:
        return events(f"data: {EXACT % asked.message['id']}")

    def on_hang_later(self, asked: Asked) -> bytes:
        return say(result(asked, INITIALIZED), headers=[SESSION])

    def on_drips(self, asked: Asked) -> bytes:
        return say(result(asked, INITIALIZED), headers=[SESSION])

    def on_accepted(self, _: Asked) -> bytes:
        return say("", status=202)

    def on_page(self, _: Asked) -> bytes:
        return say("<p>welcome</p>", kind="text/html")

    def on_garbage(self, _: Asked) -> bytes:
        return say('{"jsonrpc": "2.0", "id": ')

    def on_garbage_sse(self, _: Asked) -> bytes:
        return events("data: {]")

    def on_other_id(self, asked: Asked) -> bytes:
        return say(json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": "genuine"}}))

    def on_local_code(self, asked: Asked) -> bytes:
        error = {"code": -32001, "message": "the server's own", "data": 7}
        return say(json.dumps({"jsonrpc": "2.0", "id": asked.message["id"], "error": error}))

    def on_session_error(self, asked: Asked) -> bytes:
        if asked.opens:
            return say(result(asked, INITIALIZED), headers=[SESSION])
        error = {"code": -32600, "message": "Session not found"}
        return say(json.dumps({"jsonrpc": "2.0", "id": asked.message["id"], "error": error}))

    def on_breaks(self, _: Asked) -> bytes:
        return b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: 100\r\n\r\n{"jsonrpc"'

    def on_breaks_sse(self, _: Asked) -> bytes:
        return events(": nothing comes")

    def on_silence(self, _: Asked) -> bytes:
        return b""

    def on_nonsense(self, _: Asked) -> bytes:
        return b"SSH-2.0-OpenSSH_9.6\r\n"

    def on_huge(self, asked: Asked) -> bytes:
        return say(result(asked, {"text": "x" * 100_000}))

    def on_huge_sse(self, asked: Asked) -> bytes:
        return events("data: " + result(asked, {"text": "x" * 100_000}))

    def on_elsewhere(self, _: Asked) -> bytes:
        return say("", status=307, headers=[("location", "http://198.51.100.1/mcp")])

    def on_moved(self, _: Asked) -> bytes:
        return say("", status=307, headers=[("location", "/exact")])

    def on_polls(self, asked: Asked) -> bytes:
        """A legacy server that ends every standalone stream at once and asks to be called again at once."""
        if asked.method == "GET":
            return events("retry: 1", "id: 1")
        if "id" not in asked.message:
            return say("", status=202)
        return say(result(asked, INITIALIZED), headers=[SESSION])

    def on_resumes(self, asked: Asked) -> bytes:
        """An answer that breaks off after its first event, and comes when it is asked for again."""
        if asked.method == "POST":
            return events("id: 7\nretry: 1\ndata:")
        return events(f"data: {EXACT % 1}") if asked.headers["last-event-id"] == "7" else say("", status=400)

    def on_never_resumes(self, _: Asked) -> bytes:
        return events("id: 7\nretry: 1\ndata:")

    def on_no_id(self, _: Asked) -> bytes:
        return say('{"jsonrpc": "2.0", "error": {"code": -32000, "message": "no"}}', status=400)

    def on_foreign(self, _: Asked) -> bytes:
        return events("event: endpoint\ndata: http://198.51.100.1/messages")

    def on_mute_sse(self, _: Asked) -> bytes:
        return events()


async def read(reader: asyncio.StreamReader) -> Asked | None:
    """The next request of a connection; None at its end."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        pairs = [line.partition(":") for line in head[1:] if line]
        headers = {name.lower(): text.strip() for name, _, text in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    except asyncio.IncompleteReadError:
        return None
    return Asked(method, path, headers, body)


async def drip(writer: asyncio.StreamWriter) -> None:
    """A response that never ends and never pauses for long."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")
    while not writer.is_closing():
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.05)


def result(asked: Asked, value: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": asked.message["id"], "result": value})


def say(
    body: str, *, status: int = 200, kind: str = "application/json", headers: list[tuple[str, str]] | None = None
) -> bytes:
    """A response with a body of known length."""
    pairs = [("content-type", kind), ("content-length", str(len(body.encode()))), *(headers or [])]
    head = "".join(f"{name}: {text}\r\n" for name, text in pairs)
    return f"HTTP/1.1 {status} Whatever\r\n{head}\r\n{body}".encode()


def events(*parts: str) -> bytes:
    """An event stream that ends with the connection."""
    return ("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + "".join(f"{p}\n\n" for p in parts)).encode()


async def main() -> None:
    async with BadHttp() as server:
        print("port", server.port, flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(130)
