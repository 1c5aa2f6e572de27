"""A client that is nothing but a Unix socket and lines of JSON, so that a test sees the very bytes."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.fixtures.fixture import META, MODERN, member

PATIENCE = 15.0
"""Seconds that any answer may take before a test gives up."""
Message = dict[str, Any]


class Closed(Exception):
    """The other side ended the connection."""


class Wire:
    """One connection. `modern`: every request carries the era's envelope in its `_meta`."""

    def __init__(self, path: str | Path, *, modern: bool = False, capabilities: Message | None = None) -> None:
        self.modern = modern
        self.capabilities = capabilities or {}
        self.notifications: deque[Message] = deque()
        """Notifications and requests from the other side that came while waiting for something else."""
        self._answers: dict[str, bytes] = {}
        self._lines: deque[bytes] = deque()
        self._rest = b""
        self._count = 0
        self.socket = _connected(str(path))
        self.socket.settimeout(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, message: bytes | Message) -> None:
        """One line; bytes go out as they are, with a newline."""
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.socket.sendall(data + b"\n")

    def line(self, *, within: float = PATIENCE) -> bytes:
        """The next line. Raises TimeoutError, or Closed at the end of the stream."""
        until = time.monotonic() + within
        while not self._lines:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"nothing came within {within} s")
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionError as failure:
                raise Closed from failure
            finally:
                self.socket.settimeout(PATIENCE)
            if not data:
                raise Closed
            *lines, self._rest = (self._rest + data).split(b"\n") if b"\n" in data else (self._rest + data,)
            self._lines.extend(lines)
        return self._lines.popleft()

    def message(self, *, within: float = PATIENCE) -> Message:
        """The next message, decoded."""
        found: Message = json.loads(self.line(within=within))
        return found

    def post(self, method: str, params: Message | None = None, *, id: int | str | None = None) -> int | str:
        """Send a request without waiting; gives its id."""
        if id is None:
            self._count += 1
            id = self._count
        body: Message = {"jsonrpc": "2.0", "id": id, "method": method}
        if self.modern and not method.startswith("daemon/"):
            params = {**(params or {}), "_meta": {**self.envelope(), **((params or {}).get("_meta") or {})}}
        if params is not None:
            body["params"] = params
        self.send(body)
        return id

    def envelope(self) -> Message:
        info = {"name": "wire", "version": "1"}
        return {
            META + "protocolVersion": MODERN,
            META + "clientInfo": info,
            META + "clientCapabilities": self.capabilities,
        }

    def answer_line(self, id: int | str, *, within: float = PATIENCE) -> bytes:
        """The line that answers the request `id`; whatever else comes is kept."""
        key, until = json.dumps(id), time.monotonic() + within
        while key not in self._answers:
            line = self.line(within=max(0.0, until - time.monotonic()))
            message = json.loads(line)
            if "method" in message:
                self.notifications.append(message)
            else:
                self._answers[json.dumps(message.get("id"))] = line
        return self._answers.pop(key)

    def answer(self, id: int | str, *, within: float = PATIENCE) -> Message:
        found: Message = json.loads(self.answer_line(id, within=within))
        return found

    def request(self, method: str, params: Message | None = None, *, within: float = PATIENCE) -> Message:
        """The whole response, error or not."""
        return self.answer(self.post(method, params), within=within)

    def result(self, method: str, params: Message | None = None, *, within: float = PATIENCE) -> Message:
        """The result; an error fails the test."""
        response = self.request(method, params, within=within)
        assert "result" in response, f"{method} was answered with {response}"
        found: Message = response["result"]
        return found

    def error(self, method: str, params: Message | None = None, *, within: float = PATIENCE) -> Message:
        """The error object; a result fails the test."""
        response = self.request(method, params, within=within)
        assert "error" in response, f"{method} was answered with {str(response)[:500]}"
        found: Message = response["error"]
        return found

    def call(self, name: str, arguments: Message | None = None, *, within: float = PATIENCE, **params: Any) -> Message:
        """The result of a tool."""
        return self.result("tools/call", {"name": name, "arguments": arguments or {}, **params}, within=within)

    def notify(self, method: str, params: Message | None = None) -> None:
        body: Message = {"jsonrpc": "2.0", "method": method}
        self.send(body if params is None else body | {"params": params})

    def initialize(self, version: str = "2025-11-25") -> Message:
        """The legacy handshake, both halves."""
        info = {"name": "wire", "version": "1"}
        params = {"protocolVersion": version, "capabilities": self.capabilities, "clientInfo": info}
        result = self.result("initialize", params)
        self.notify("notifications/initialized")
        return result

    def listen(self, **wanted: Any) -> int | str:
        """Open a subscription (modern) and wait for its acknowledgement; gives its id."""
        id = self.post("subscriptions/listen", {"notifications": wanted})
        first = self.notification(lambda message: subscription(message) == id)
        assert first["method"] == "notifications/subscriptions/acknowledged"
        return id

    def notification(self, wanted: str | Callable[[Message], bool], *, within: float = PATIENCE) -> Message:
        """The next notification (or request) of that method or kind; those before it are dropped."""
        until = time.monotonic() + within
        while True:
            message = self._next_notification(until)
            if message["method"] == wanted if isinstance(wanted, str) else wanted(message):
                return message

    def drain(self, *, quiet: float) -> list[Message]:
        """All notifications until nothing came for `quiet` seconds: how a test shows that something is *not* sent."""
        found = []
        while True:
            try:
                found.append(self._next_notification(time.monotonic() + quiet))
            except TimeoutError:
                return found

    def is_closed(self, *, within: float = PATIENCE) -> bool:
        """Whether the other side ends the connection in time; what it sends before is dropped."""
        until = time.monotonic() + within
        try:
            while True:
                self.line(within=max(0.0, until - time.monotonic()))
        except Closed:
            return True
        except TimeoutError:
            return False

    def _next_notification(self, until: float) -> Message:
        while not self.notifications:
            line = self.line(within=max(0.0, until - time.monotonic()))
            message = json.loads(line)
            if "method" in message:
                return message  # type: ignore[no-any-return]  # JSON of our own daemon
            self._answers[json.dumps(message.get("id"))] = line
        return self.notifications.popleft()


def _connected(path: str) -> socket.socket:
    """A socket connected to `path`, waiting where the daemon has not yet accepted those before."""
    made = socket.socket(socket.AF_UNIX)
    try:
        # Python's timeouts make connect fail at once when the backlog is full; the kernel's own do not.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(PATIENCE), 0))
        made.connect(path)
    except OSError:
        made.close()
        raise
    return made


def subscription(message: Message) -> Any:
    """The id of the subscription that a notification belongs to."""
    return ((message.get("params") or {}).get("_meta") or {}).get(META + "subscriptionId")


def result_of(line: bytes) -> str:
    """The JSON text of a response's result, as it came."""
    return member(line.decode(), "result")


def texts(result: Message) -> list[str]:
    return [part["text"] for part in result["content"] if part["type"] == "text"]
