"""An MCP server that fails as it is told to: `python -I -S faulty_server.py ORDERS JOURNAL [PORT]`. Standard library.

On stdio, or with PORT over streamable HTTP. ORDERS is a file with one word: some are obeyed at the start or in lists,
the others when SIGUSR1 comes, so that nothing of the way to the server takes part in the fault. The id of each call
that is carried out is appended to JOURNAL first.
"""

from __future__ import annotations

import heapq
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable

TYPE_CHECKING = False  # importing `typing` would double the time this server takes to start
if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler
    from typing import Any

    Json = dict[str, Any]

READ_SIZE = 64 * 1024
LONG_LINE = 20 * 1024 * 1024
CRASH_AFTER = 2.0
LIST_TAKES = 2.0
FLOOD_LASTS = 2.0
"""Seconds: until a server ordered to crash soon does, that a slow list takes, that stderr is flooded."""
FOREVER = 24 * 3600
TOOL = {
    "name": "work",
    "description": "Appends `id` to the journal and returns it, after `ms`; or as many bytes.",
    "inputSchema": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
}


def write_all(data: bytes, descriptor: int = 1) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def result(id: object, value: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "result": value}, separators=(",", ":")).encode()


class Server:
    """What the server answers, whichever way it is asked."""

    def __init__(self, orders: str, journal: str) -> None:
        self.orders = orders
        self.journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def order(self) -> str:
        """What it is told to do wrong by now; nothing where there is no file."""
        try:
            with open(self.orders, encoding="ascii") as file:
                return file.read().strip()
        except FileNotFoundError:
            return ""

    def answer(self, message: Json) -> bytes:
        """The answer to anything but a call."""
        id, params = message["id"], message.get("params") or {}
        match message["method"]:
            case "initialize":
                info = {"name": "faulty", "version": "1"}
                offered = {"tools": {"listChanged": True}}
                version = params["protocolVersion"]
                return result(id, {"protocolVersion": version, "capabilities": offered, "serverInfo": info})
            case "ping":
                return result(id, {})
            case "tools/list":
                return result(id, self.listing(params))
            case method:
                error = {"code": -32601, "message": f"Method not found: {method}"}
                return json.dumps({"jsonrpc": "2.0", "id": id, "error": error}).encode()

    def listing(self, params: Json) -> Json:
        order = self.order()
        if order == "endless-list":
            page = int(params.get("cursor") or 0)
            return {"tools": [{**TOOL, "name": f"page_{page}"}], "nextCursor": str(page + 1)}
        if order == "slow-list":
            time.sleep(LIST_TAKES)
        return {"tools": [TOOL]}

    def carry_out(self, message: Json) -> tuple[float, bytes]:
        """The seconds that a call takes, and its answer."""
        arguments = message["params"]["arguments"]
        os.write(self.journal, arguments["id"].encode() + b"\n")
        text = "x" * arguments["bytes"] if "bytes" in arguments else arguments["id"]
        content = [{"type": "text", "text": text}]
        return arguments.get("ms", 0) / 1000, result(message["id"], {"content": content})


class Stdio:
    """Requests on stdin; calls that take their time do not hold up others."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.due: list[tuple[float, int, bytes]] = []
        self.calls = 0

    def run(self) -> None:
        partial = b""
        while True:
            wait = max(0.0, self.due[0][0] - time.monotonic()) if self.due else None
            if select.select([0], [], [], wait)[0]:
                data = os.read(0, READ_SIZE)
                if not data:
                    return
                *lines, partial = (partial + data).split(b"\n")
                for line in lines:
                    self.take(line)
            while self.due and self.due[0][0] <= time.monotonic():
                write_all(heapq.heappop(self.due)[2])

    def take(self, line: bytes) -> None:
        message = json.loads(line)
        if "method" not in message or "id" not in message:
            return
        if message["method"] != "tools/call":
            write_all(self.server.answer(message) + b"\n")
            return
        seconds, answer = self.server.carry_out(message)
        self.calls += 1
        if seconds:
            heapq.heappush(self.due, (time.monotonic() + seconds, self.calls, answer + b"\n"))
        else:
            write_all(answer + b"\n")


def serve_http(server: Server, port: int) -> None:
    """Streamable HTTP of the 2025-11-25 revision; a session lives as long as this process."""
    import http.server
    import uuid

    sessions = set()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            self.opened = time.time()

        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["content-length"])))
            order = server.order()
            if order == "500":
                return say(self, 500)
            if order == "half-open" and self.opened < os.stat(server.orders).st_mtime:
                time.sleep(FOREVER)  # a connection of which nobody knows any more; later ones work
            if message.get("method") == "initialize":
                sessions.add(session := uuid.uuid4().hex)
                return say(self, 200, server.answer(message), session)
            if message.get("method") != "server/discover" and self.headers["mcp-session-id"] not in sessions:
                return say(self, 404)
            if "id" not in message or "method" not in message:
                return say(self, 202)
            if message["method"] != "tools/call":
                return say(self, 200, server.answer(message))
            seconds, answer = server.carry_out(message)
            time.sleep(seconds)
            return say(self, 200, answer)

        def do_GET(self) -> None:
            say(self, 405)

        def do_DELETE(self) -> None:
            say(self, 200)

        def log_request(self, code: object = "-", size: object = "-") -> None:
            """Nobody reads it."""

    class Threads(http.server.ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    Threads(("127.0.0.1", port), Handler).serve_forever()


def say(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", session: str = "") -> None:
    handler.send_response(status)
    handler.send_header("content-length", str(len(body)))
    if body:
        handler.send_header("content-type", "application/json")
    if session:
        handler.send_header("mcp-session-id", session)
    handler.end_headers()
    handler.wfile.write(body)


# -- what SIGUSR1 has it do ------------------------------------------------------------------------------------------


def stay_silent() -> None:
    """Live on, read nothing, answer nothing."""
    while True:
        signal.pause()


def close_stdout() -> None:
    os.close(1)
    stay_silent()


def leave_grandchild() -> None:
    """Die while a process that this one started holds stdout open."""
    if os.fork():
        os.kill(os.getpid(), signal.SIGKILL)
    stay_silent()


def leave_child() -> None:
    """Have a process that lives on when this one is killed."""
    if os.fork() == 0:
        for descriptor in (0, 1, 2):
            os.close(descriptor)
        stay_silent()


def write_garbage() -> None:
    while True:
        write_all(b"this is no message, and there is more of it\n" * 1000)


def write_long_line() -> None:
    write_all(b'{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"' + b"x" * LONG_LINE + b'"}}\n')


def write_endless_line() -> None:
    while True:
        write_all(b"x" * READ_SIZE)


def write_partial_line() -> None:
    write_all(b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"te')
    os._exit(0)


def flood_stderr() -> None:
    """Go on serving while another process of the group writes to stderr for a while."""
    if os.fork() == 0:
        end = time.monotonic() + FLOOD_LASTS
        while time.monotonic() < end:
            write_all(b"a server that says too much about itself\n" * 1000, 2)
        os._exit(0)


AT_SIGNAL: dict[str, Callable[[], None]] = {
    "exit-3": lambda: os._exit(3),
    "deaf": stay_silent,
    "close-stdout": close_stdout,
    "grandchild": leave_grandchild,
    "garbage": write_garbage,
    "long-line": write_long_line,
    "endless-line": write_endless_line,
    "partial-line": write_partial_line,
    "stderr-flood": flood_stderr,
}


def obey_signals(server: Server) -> None:
    """Do at SIGUSR1 what is ordered, once: the next process begins without orders."""

    def obey(*_: object) -> None:
        order = server.order()
        os.unlink(server.orders)
        AT_SIGNAL[order]()

    def crash(*_: object) -> None:
        if server.order() == "crash-soon":
            os._exit(1)

    signal.signal(signal.SIGUSR1, obey)
    signal.signal(signal.SIGALRM, crash)
    if server.order() == "crash-soon":
        signal.setitimer(signal.ITIMER_REAL, CRASH_AFTER)


def main(orders: str, journal: str, port: str = "") -> None:
    server = Server(orders, journal)
    if server.order() == "crash":
        os.write(2, b"cannot start: ordered not to\n")
        os._exit(1)
    if port:
        serve_http(server, int(port))
    if server.order() == "child":
        leave_child()
    obey_signals(server)
    Stdio(server).run()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)
