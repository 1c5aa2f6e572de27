"""The other end of the wire: a real Unix socket and real JSON lines, with answers that a test has written.

It stands in for the daemon only, so that a test can have it lie, stall and hang up; the command line is the real one,
in a process of its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]
DEADLINE = 20.0
COMMAND = (sys.executable, "-m", "mcp_multi_server")
_LEFT_OUT = ("MCP_MULTI_SERVER_SOCKET", "MCP_MULTI_SERVER_CONFIG", "XDG_RUNTIME_DIR", "RUNTIME_DIRECTORY", "NO_COLOR")


@dataclass
class Line:
    """One connection of a client's."""

    connection: socket.socket

    def send(self, message: Json) -> None:
        self.send_bytes(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def send_bytes(self, data: bytes) -> None:
        self.connection.sendall(data)

    def hang_up(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)


Answer: TypeAlias = Json | Callable[[Line, Json], None]
"""A result, or what to do instead of sending one."""


@dataclass
class ScriptedDaemon:
    """Answers each method as the script says, and keeps what it was asked."""

    path: str
    script: Mapping[str, Answer]
    received: Queue[Json] = field(default_factory=Queue)
    lines: list[Line] = field(default_factory=list)

    def serve(self, connection: socket.socket) -> None:
        line = Line(connection)
        self.lines.append(line)
        with connection, suppress(OSError), connection.makefile("rb") as lines:
            for written in lines:
                message = json.loads(written)
                self.received.put(message)
                if "id" in message:
                    self.answer(line, message)

    def answer(self, line: Line, request: Json) -> None:
        answer = self.script.get(request["method"])
        if callable(answer):
            answer(line, request)
        elif answer is None:
            line.send({"id": request["id"], "error": {"code": -32601, "message": "Method not found"}})
        else:
            line.send({"id": request["id"], "result": answer})

    def hang_up(self) -> None:
        """Part with everyone who is connected."""
        for line in self.lines:
            line.hang_up()

    def next(self) -> Json:
        """What came next."""
        return self.received.get(timeout=DEADLINE)


@contextmanager
def scripted_daemon(directory: Path, script: Mapping[str, Answer]) -> Iterator[ScriptedDaemon]:
    path = str(directory / "mcp.sock")
    daemon = ScriptedDaemon(path, script)
    with serving(path, daemon.serve):
        yield daemon


@contextmanager
def serving(path: str, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Accept on `path`, each connection in a thread of its own."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    threads: list[threading.Thread] = []
    connections: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            threads.append(threading.Thread(target=serve, args=(connection,)))
            threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(DEADLINE)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(DEADLINE)
        assert not any(thread.is_alive() for thread in (acceptor, *threads))


def environment(**changes: str) -> dict[str, str]:
    """The environment without what would lead to a daemon of this machine's."""
    kept = {name: value for name, value in os.environ.items() if name not in _LEFT_OUT}
    return kept | {"TMPDIR": "/nonexistent"} | changes


def run(
    *words: str, daemon: ScriptedDaemon | None = None, stdin: bytes = b"", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    if daemon is not None:
        variables["MCP_MULTI_SERVER_SOCKET"] = daemon.path
    done = subprocess.run(
        [*COMMAND, *words], input=stdin, capture_output=True, env=environment(**variables), timeout=DEADLINE
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


LEFT_TO_THE_DAEMON = {"msgspec", "pydantic", "anyio", "mcp", "mcp_types", "structlog", "asyncio", "prometheus_client"}


def imports_of(*words: str, daemon: ScriptedDaemon) -> tuple[int, set[str]]:
    """Run the command line to its end: the exit code, and the packages that it imported."""
    done = subprocess.run(
        [COMMAND[0], "-X", "importtime", *COMMAND[1:], *words],
        env=environment(MCP_MULTI_SERVER_SOCKET=daemon.path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    lines = [line for line in done.stderr.splitlines() if "|" in line]
    return done.returncode, {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in lines}


@contextmanager
def running(*words: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command line in pipes, to be talked to."""
    process = subprocess.Popen(
        [*COMMAND, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**variables),
        bufsize=0,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(DEADLINE)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def run_on_terminal(words: Sequence[str], *, daemon: ScriptedDaemon, columns: int = 200) -> tuple[int, str]:
    """Run the command line on a terminal of so many columns; its exit code and everything it drew."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    variables = {"MCP_MULTI_SERVER_SOCKET": daemon.path, "TERM": "xterm-256color", "COLUMNS": str(columns)}
    process = subprocess.Popen(
        [*COMMAND, *words], stdin=slave, stdout=slave, stderr=slave, env=environment(**variables)
    )
    os.close(slave)
    try:
        drawn = _read_all(master)
        return process.wait(DEADLINE), drawn.decode().replace("\r\n", "\n")
    finally:
        process.kill()
        process.wait(DEADLINE)
        os.close(master)


def _read_all(master: int) -> bytes:
    """What is drawn until the terminal's last user leaves it, which reads as EIO."""
    drawn, deadline = bytearray(), time.monotonic() + DEADLINE
    while select.select([master], [], [], max(0.0, deadline - time.monotonic()))[0]:
        try:
            drawn += os.read(master, 65536)
        except OSError:
            return bytes(drawn)
    raise TimeoutError("the command did not end")
