"""A minimal, fast MCP server on stdio, so that what a benchmark measures is what stands before it.

Blocking reads and writes, standard library only. A call of `echo` in the layout that all the subjects use is answered
by cutting; anything else is parsed.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import re
import select
import time
from typing import Any, cast

READ_SIZE = 64 * 1024
"""Bytes a read; above 128 KiB each costs the C library a map and an unmap."""
ECHO = re.compile(
    rb'\{"jsonrpc":"2\.0","id":(\d+),"method":"tools/call","params":\{"name":"echo","arguments":\{"text":"'
)
REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
DESCRIPTION = "Looks things up in the catalogue and returns the records that match. " * 5


def listing(filler: int) -> list[dict[str, Any]]:
    """The tools `echo` and `sleep`, and `filler` more of a usual size (300 bytes of description)."""
    text, ms = {"type": "string"}, {"type": "number"}
    query = {"type": "string", "description": "What to look for"}
    limit = {"type": "integer", "minimum": 1, "maximum": 100, "default": 10}
    order = {"type": "string", "enum": ["ascending", "descending"]}
    return [
        tool("echo", "Returns the text.", {"text": text}),
        tool("sleep", "Returns the text after a while.", {"text": text, "ms": ms}),
        *(
            tool(f"lookup_{number:05d}", DESCRIPTION[:300], {"query": query, "limit": limit, "order": order})
            for number in range(filler)
        ),
    ]


def tool(name: str, description: str, properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": [next(iter(properties))]}
    return {"name": name, "description": description, "inputSchema": schema}


class EchoServer:
    """Answers requests in the order they come, `sleep` when it is due."""

    def __init__(self, name: str, *, filler: int, mute: bool) -> None:
        self.info = {"name": name, "version": "1"}
        self.tools = json.dumps({"tools": listing(filler)}, separators=(",", ":"))
        self.mute = mute
        self.sleeping: list[tuple[float, int, bytes]] = []
        self.slept = 0

    def run(self) -> None:
        """Serve until the end of the input."""
        partial: list[bytes] = []
        while True:
            if self.sleeping and not self.wake():
                continue
            data = os.read(0, READ_SIZE)
            if not data:
                return
            partial.append(data)
            if b"\n" in data:
                *lines, rest = b"".join(partial).split(b"\n")
                partial = [rest] if rest else []
                if not self.mute:
                    write_all(b"".join(map(self.answer, lines)))

    def wake(self) -> bool:
        """Answer the sleepers that are due; whether there is something to read."""
        wait = max(0.0, self.sleeping[0][0] - time.monotonic())
        readable = bool(select.select([0], [], [], wait)[0])
        while self.sleeping and self.sleeping[0][0] <= time.monotonic():
            write_all(heapq.heappop(self.sleeping)[2])
        return readable

    def answer(self, line: bytes) -> bytes:
        """The line that answers `line`; nothing for a notification."""
        match = ECHO.match(line)
        if match:
            end = line.find(b'"', match.end())
            text = line[match.end() : end]
            if b"\\" not in text:
                start = b'{"jsonrpc":"2.0","id":%b,"result":{"content":[{"type":"text","text":"' % match[1]
                return b"".join((start, text, b'"}]}}\n'))
        return self.dispatch(json.loads(line)) if line.strip() else b""

    def dispatch(self, message: dict[str, Any]) -> bytes:
        """The answer to any request."""
        if "id" not in message or "method" not in message:
            return b""
        id, params = message["id"], message.get("params") or {}
        match message["method"]:
            case "tools/call":
                return self.call(id, params.get("name"), params.get("arguments") or {})
            case "tools/list":
                return b'{"jsonrpc":"2.0","id":%b,"result":%b}\n' % (json.dumps(id).encode(), self.tools.encode())
            case "initialize":
                asked = params.get("protocolVersion")
                revision = asked if asked in REVISIONS else REVISIONS[-1]
                return result(id, {"protocolVersion": revision, "capabilities": {"tools": {}}, "serverInfo": self.info})
            case "ping":
                return result(id, {})
            case method:
                return error(id, -32601, f"Method not found: {method}")

    def call(self, id: object, name: object, arguments: dict[str, Any]) -> bytes:
        text = {"content": [{"type": "text", "text": arguments.get("text", "")}]}
        if name == "echo":
            return result(id, text)
        if name == "sleep":
            self.slept += 1
            due = time.monotonic() + float(arguments.get("ms", 0)) / 1000
            heapq.heappush(self.sleeping, (due, self.slept, result(id, text)))
            return b""
        if str(name).startswith("lookup_") and arguments.get("query"):
            return result(id, {"content": [{"type": "text", "text": arguments["query"]}]})
        return error(id, -32602, f"Unknown tool, or nothing to look up: {name}")


def result(id: object, value: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "result": value}, separators=(",", ":")).encode() + b"\n"


def error(id: object, code: int, message: str) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}).encode() + b"\n"


def write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="echo")
    parser.add_argument("--filler", type=int, default=1, help="tools beside echo and sleep")
    parser.add_argument("--delay", type=float, default=0, help="seconds to sleep before serving")
    parser.add_argument("--mute", action="store_true", help="read everything, answer nothing")
    options = cast("Options", parser.parse_args())
    time.sleep(options.delay)
    try:
        EchoServer(options.name, filler=options.filler, mute=options.mute).run()
    except (BrokenPipeError, KeyboardInterrupt):
        return


class Options(argparse.Namespace):
    """The command line."""

    name: str
    filler: int
    delay: float
    mute: bool


if __name__ == "__main__":
    main()
