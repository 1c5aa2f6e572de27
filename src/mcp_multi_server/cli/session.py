"""One client session on the daemon's socket: blocking, one request at a time, every wait with a deadline."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

from .. import __version__
from .answer import JsonObject, loads, member, objects, text
from .connect import connect
from .failures import CommandFailed, Garbled, HungUp, Unreachable

if TYPE_CHECKING:
    from .waiting import Watcher

PROTOCOL_VERSION = "2026-07-28"
DAEMON_TIMEOUT = 10.0
"""For what the daemon answers itself."""
TICK = 0.5
"""Seconds between two looks of a person at what is being waited for."""
READ_SIZE = 256 * 1024
ANSWER_CAP = 256 * 1024 * 1024
"""More bytes than this in one line are no answer: four times what a daemon lets wait for a client by default."""
MAX_PAGES = 1000
_META = "io.modelcontextprotocol/"


class RpcFailed(CommandFailed):
    """The daemon answered with a JSON-RPC error; `data` says which server is the cause, where one is."""

    def __init__(self, message: str, data: JsonObject) -> None:
        super().__init__(message)
        self.data = data


class Late(Unreachable):
    """No answer within the time given."""


class Ended(CommandFailed):
    """The daemon answered a request for a stream, which ends it."""

    def __init__(self, result: JsonObject) -> None:
        super().__init__("the daemon ended the stream")
        self.result = result


class DaemonSession:
    """Requests and their answers, over a connection that this object owns."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = bytearray()
        self._searched = 0
        self._last_id = 0

    def control(self, method: str, params: JsonObject | None = None, *, timeout: float = DAEMON_TIMEOUT) -> JsonObject:
        """The result of one of the daemon's own methods."""
        id = self._new_id()
        self._send_request(id, method, params or {})
        return self._await(id, timeout=timeout, watcher=None)

    def ask(
        self, method: str, params: JsonObject, *, timeout: float = DAEMON_TIMEOUT, watcher: Watcher | None = None
    ) -> JsonObject:
        """The result of an MCP request, as a modern client asks.

        With a `watcher` the server is asked for progress, and each report of it starts the time anew. A request that is
        given up, by us or by Ctrl-C, is cancelled.
        """
        id = self._new_id()
        try:
            self._send_request(id, method, {**params, "_meta": _envelope(id if watcher else None)})
            return self._await(id, timeout=timeout, watcher=watcher)
        except (KeyboardInterrupt, Late):
            self._cancel(id)
            raise

    def ask_all(self, method: str, key: str) -> JsonObject:
        """The result of a list request, all its pages in one."""
        whole = self.ask(method, {})
        last, pages = whole, 1
        while cursor := text(last, "nextCursor"):
            if (pages := pages + 1) > MAX_PAGES:
                raise Garbled(f"{method} has no end")
            last = self.ask(method, {"cursor": cursor})
            whole[key] = [*objects(whole, key), *objects(last, key)]
        whole.pop("nextCursor", None)
        return whole

    def begin(self, method: str, params: JsonObject) -> int:
        """Ask for a stream; `next` reads it by the number that is returned."""
        id = self._new_id()
        self._send_request(id, method, params)
        return id

    def next(self, id: int, notification: str, deadline: float) -> JsonObject | None:
        """The params of a stream's next notification, or None where none came in time. Raises Ended."""
        while (message := self._receive(deadline)) is not None:
            if message.get("method") == notification:
                return member(message, "params")
            if _answers(message, id):
                raise Ended(_result(message))
        return None

    def close(self) -> None:
        """End the session; the daemon then forgets what still runs for it."""
        self._connection.close()

    def _new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _send_request(self, id: int, method: str, params: JsonObject) -> None:
        self._send({"jsonrpc": "2.0", "id": id, "method": method, "params": params})

    def _send(self, message: JsonObject) -> None:
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        self._connection.settimeout(DAEMON_TIMEOUT)
        try:
            self._connection.sendall(line)
        except TimeoutError:
            raise Unreachable(f"the daemon does not respond: it takes no request within {DAEMON_TIMEOUT:g} s") from None
        except (BrokenPipeError, ConnectionResetError):
            # What it said before it hung up explains more than that it did.
            return

    def _cancel(self, id: int) -> None:
        with suppress(CommandFailed, OSError):
            self._send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})

    def _await(self, id: int, *, timeout: float, watcher: Watcher | None) -> JsonObject:
        deadline = time.monotonic() + timeout
        while True:
            until = deadline if watcher is None else min(deadline, time.monotonic() + TICK)
            message = self._receive(until)
            if message is not None and _answers(message, id):
                return _result(message)
            if watcher is not None and _tell(watcher, message):
                deadline = time.monotonic() + timeout
            if time.monotonic() >= deadline:
                raise Late(f"the daemon does not respond: no answer within {timeout:g} s")

    def _receive(self, deadline: float) -> JsonObject | None:
        """The next message, or None where none came in time."""
        while (line := self._next_line()) is None:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return None
            self._connection.settimeout(remaining)
            try:
                self._read_some()
            except TimeoutError:
                return None
        return _message(line)

    def _next_line(self) -> bytes | None:
        end = self._received.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._received)
            return None
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        self._searched = 0
        return line

    def _read_some(self) -> None:
        try:
            data = self._connection.recv(READ_SIZE)
        except ConnectionResetError:
            data = b""
        if not data:
            raise HungUp
        self._received += data
        if len(self._received) > ANSWER_CAP:
            raise Garbled(f"a line of more than {ANSWER_CAP >> 20} MiB")


@contextmanager
def session(explicit: str | None) -> Iterator[DaemonSession]:
    """A session with the daemon at `explicit`, or at one of the usual places."""
    opened = DaemonSession(connect(explicit))
    try:
        yield opened
    finally:
        opened.close()


def _envelope(progress_token: int | None) -> JsonObject:
    """The `_meta` of a modern request (MCP 2026-07-28, basic/index, "Per-request protocol fields")."""
    envelope: JsonObject = {
        f"{_META}protocolVersion": PROTOCOL_VERSION,
        f"{_META}clientCapabilities": {},
        f"{_META}clientInfo": {"name": "mcp-multi-server-cli", "version": __version__},
    }
    return envelope if progress_token is None else {**envelope, "progressToken": progress_token}


def _message(line: bytes) -> JsonObject:
    try:
        message = loads(line, parse_constant=_refuse_constant)
    except ValueError:
        raise Garbled("a line that is no JSON") from None
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise Garbled("a line that is no JSON-RPC message")
    return message


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _answers(message: JsonObject, id: int) -> bool:
    """Whether this is the answer to request `id`, or an error about something that could not be read as a request."""
    if "method" in message:
        return False
    return message.get("id") == id or (message.get("id") is None and "error" in message)


def _result(message: JsonObject) -> JsonObject:
    error: Any = message.get("error")
    if isinstance(error, dict):
        raise RpcFailed(text(error, "message") or "the daemon gave no reason", member(error, "data"))
    result = message.get("result")
    if not isinstance(result, dict):
        raise Garbled("neither a result nor an error")
    return result


def _tell(watcher: Watcher, message: JsonObject | None) -> bool:
    """Tell of what came, or of time that went by; whether it was progress."""
    if message is not None and message.get("method") == "notifications/progress":
        watcher.progress(member(message, "params"))
        return True
    watcher.tick()
    return False
