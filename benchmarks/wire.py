"""Raw lines of JSON-RPC on a pair of descriptors: the client that costs next to nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

READ_SIZE = 64 * 1024
"""Bytes a read; above 128 KiB each costs the C library a map and an unmap."""
STALLED = 60.0
"""Seconds after which a request or a burst is given up."""
HEAD = re.compile(rb'\{"jsonrpc":"2\.0","id":(\d+),')
NOTIFICATION = b'{"jsonrpc":"2.0","method"'
HELLO = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "benchmarks", "version": "1"},
}


class WireError(RuntimeError):
    """The other side ended, stalled, or gave a wrong answer."""


@dataclass
class Burst:
    """How long each of some calls took, and all of them together."""

    wall_ns: int
    latencies_ns: list[int] = field(default_factory=list)


class Wire:
    """One connection. Used by one caller at a time."""

    def __init__(self, reader: int, writer: int, owner: socket.socket | subprocess.Popen[bytes]) -> None:
        self._reader = reader
        self._writer = writer
        self._owner = owner
        self._next_id = 0
        self._parts: list[bytes] = []

    @classmethod
    def to_child(cls, child: subprocess.Popen[bytes]) -> Wire:
        """The pipes of a server that we started."""
        if child.stdin is None or child.stdout is None:
            raise ValueError("the child has no pipes")
        return cls(child.stdout.fileno(), child.stdin.fileno(), child)

    @classmethod
    def to_socket(cls, path: str) -> Wire:
        """A connection to the daemon."""
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(path)
        except OSError:
            client.close()
            raise
        return cls(client.fileno(), client.fileno(), client)

    def close(self) -> None:
        """End a connection to a socket; a child's pipes end with the child."""
        if isinstance(self._owner, socket.socket):
            self._owner.close()

    def shake_hands(self) -> None:
        """`initialize`, as a client of the 2025-11-25 revision."""
        self.request("initialize", HELLO)
        self.post("notifications/initialized")

    def post(self, method: str, params: Mapping[str, Any] | None = None, *, id: int | None = None) -> None:
        """Send one message and wait for nothing."""
        message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
        known = {name: value for name, value in message.items() if value is not None}
        self._write(json.dumps(known, separators=(",", ":")).encode() + b"\n")

    def request(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The result of one request."""
        id = self._take_ids(1)
        with watchdog(STALLED):
            self.post(method, params, id=id)
            return _result(json.loads(self.take_response()), id)

    def tools(self) -> list[str]:
        """The names of all tools, all pages."""
        return [str(tool["name"]) for page in self._pages() for tool in json.loads(page)["result"]["tools"]]

    def list_bytes(self) -> int:
        """Read the whole listing without looking at it; its size."""
        return sum(map(len, self._pages()))

    def _pages(self) -> Iterator[bytes]:
        cursor: str | None = None
        while True:
            with watchdog(STALLED):
                self.post("tools/list", {"cursor": cursor} if cursor else {}, id=self._take_ids(1))
                page = self.take_response()
            yield page
            if b'"nextCursor"' not in page or not (cursor := json.loads(page)["result"].get("nextCursor")):
                return

    def call(self, calls: Sequence[tuple[str, Mapping[str, Any]]], *, in_flight: int) -> Burst:
        """Call tools (name, arguments), at most `in_flight` at a time; afterwards every answer is checked."""
        first = self._take_ids(len(calls))
        lines = [_call_line(first + number, *call) for number, call in enumerate(calls)]
        answers: dict[int, bytes] = {}
        with watchdog(STALLED):
            if in_flight == 1:
                burst = self._one_at_a_time(lines, answers, first)
            else:
                burst = self._window(lines, answers, first=first, in_flight=in_flight)
        for number, (_, arguments) in enumerate(calls):
            _check(_result(json.loads(answers[first + number]), first + number), arguments["text"])
        return burst

    def _one_at_a_time(self, lines: Sequence[bytes], answers: dict[int, bytes], first: int) -> Burst:
        clock, latencies = time.perf_counter_ns, []
        start = clock()
        for id, line in enumerate(lines, first):
            begin = clock()
            self._write(line)
            answers[id] = self.take_response()
            latencies.append(clock() - begin)
        return Burst(clock() - start, latencies)

    def _window(self, lines: Sequence[bytes], answers: dict[int, bytes], *, first: int, in_flight: int) -> Burst:
        clock, latencies, began = time.perf_counter_ns, [], dict[int, int]()
        unsent = enumerate(lines, first)
        backlog: deque[memoryview] = deque()
        start = clock()
        with self._poller() as poller:
            while len(answers) < len(lines):
                while len(began) < in_flight and (following := next(unsent, None)):
                    began[following[0]] = clock()
                    backlog.append(memoryview(following[1]))
                    self._flush(backlog)
                poller.wait(writing=bool(backlog))
                self._flush(backlog)
                for line in self._complete_lines():
                    id = _id(line)
                    latencies.append(clock() - began.pop(id))
                    answers[id] = line
        return Burst(clock() - start, latencies)

    @contextlib.contextmanager
    def _poller(self) -> Iterator[Poller]:
        for descriptor in (self._reader, self._writer):
            os.set_blocking(descriptor, False)
        try:
            yield Poller(self._reader, self._writer)
        finally:
            for descriptor in (self._reader, self._writer):
                os.set_blocking(descriptor, True)

    def _flush(self, backlog: deque[memoryview]) -> None:
        while backlog:
            try:
                sent = os.write(self._writer, backlog[0])
            except BlockingIOError:
                return
            if sent < len(backlog[0]):
                backlog[0] = backlog[0][sent:]
                return
            backlog.popleft()

    def _take_ids(self, count: int) -> int:
        self._next_id += count
        return self._next_id - count + 1

    def _write(self, data: bytes) -> None:
        sent = os.write(self._writer, data)
        while sent < len(data):
            sent += os.write(self._writer, memoryview(data)[sent:])

    def take_response(self) -> bytes:
        """The next response; waits for it without a deadline of its own, see `watchdog`."""
        while True:
            for line in self._complete_lines():
                return line

    def _complete_lines(self) -> list[bytes]:
        """The responses that one read completes."""
        try:
            data = os.read(self._reader, READ_SIZE)
        except BlockingIOError:
            return []
        if not data:
            raise WireError("the other side closed the connection")
        self._parts.append(data)
        if b"\n" not in data:
            return []
        *lines, rest = b"".join(self._parts).split(b"\n")
        self._parts = [rest] if rest else []
        return [line for line in lines if not line.startswith(NOTIFICATION)]


class Poller:
    """Waits until there is something to read, or room to write where that is wanted."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader = reader
        self._writer = writer
        self._idle = select.poll()
        self._idle.register(reader, select.POLLIN)
        self._busy = select.poll()
        self._busy.register(writer, select.POLLOUT)
        self._busy.register(reader, select.POLLIN | (select.POLLOUT if reader == writer else 0))

    def wait(self, *, writing: bool) -> None:
        (self._busy if writing else self._idle).poll()


@contextlib.contextmanager
def watchdog(seconds: float) -> Iterator[None]:
    """Bound a block that blocks, at no cost inside it. In the main thread."""

    def bite(_number: int, _frame: object) -> None:
        raise WireError(f"no answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, bite)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _call_line(id: int, name: str, arguments: Mapping[str, Any]) -> bytes:
    message = {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _id(line: bytes) -> int:
    match = HEAD.match(line)
    return int(match[1]) if match else int(json.loads(line)["id"])


def _result(response: dict[str, Any], id: int) -> dict[str, Any]:
    if response.get("id") != id or not isinstance(response.get("result"), dict):
        raise WireError(f"request {id} got {json.dumps(response):.300}")
    return dict(response["result"])


def _check(result: Mapping[str, Any], text: str) -> None:
    if result.get("isError") or result["content"][0]["text"] != text:
        raise WireError(f"a call got another text back: {json.dumps(result):.300}")
