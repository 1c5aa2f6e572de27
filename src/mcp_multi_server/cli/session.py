"""The command line's session with the daemon: blocking, one request at a time, every wait with a deadline."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

from .. import __version__
from .connect import connect
from .failures import CommandFailed, Garbled, HungUp, Unreachable
from .members import JsonObject, loads, member, objects, text

if TYPE_CHECKING:
    from .waiting import WaitDisplay

PROTOCOL_VERSION = "2026-07-28"
DAEMON_TIMEOUT = 10.0
"""Seconds for what the daemon answers by itself."""
TICK = 0.5
"""Seconds after which the display of a wait is drawn anew."""
READ_SIZE = 256 * 1024
ANSWER_CAP = 256 * 1024 * 1024
"""Bytes of one line, above which it is no answer: four times what a daemon keeps for a client by default."""
MAX_PAGES = 1000
"""Pages of one list; more can only be cursors that go round in circles."""
_META = "io.modelcontextprotocol/"


class RpcFailed(CommandFailed):
    """The daemon answered with a JSON-RPC error; `data` names the server that is the cause, if one is."""

    def __init__(self, message: str, data: JsonObject) -> None:
        super().__init__(message)
        self.data = data


class Late(Unreachable):
    """No answer came in the time that the command gives."""


class StreamEnded(CommandFailed):
    """The daemon ended a stream and not the connection: it answered the request that began it."""

    def __init__(self, result: JsonObject) -> None:
        super().__init__("the daemon ended the stream")
        self.result = result


class DaemonSession:
    """Sends requests over one connection, and waits for their answers.

    A command makes it, mostly by `session`, and closes it, and with it the connection. It needs no handshake: as a
    modern client it says who it is in each request.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = bytearray()
        self._searched = 0
        self._last_id = 0

    def control(self, method: str, params: JsonObject | None = None, *, timeout: float = DAEMON_TIMEOUT) -> JsonObject:
        """The result of one of the daemon's own methods. Raises Late, RpcFailed, HungUp, Garbled."""
        id = self._new_id()
        self._send_request(id, method, params or {})
        return self._await(id, timeout=timeout, display=None)

    def ask(
        self, method: str, params: JsonObject, *, timeout: float = DAEMON_TIMEOUT, display: WaitDisplay | None = None
    ) -> JsonObject:
        """The result of an MCP request.

        With a `display` the server is asked for progress, and each report of it starts the time anew. A request that
        is given up, after `timeout` or by Ctrl-C, is cancelled. Raises Late, RpcFailed, HungUp, Garbled.
        """
        id = self._new_id()
        try:
            meta = {**member(params, "_meta"), **_envelope(id if display else None)}
            self._send_request(id, method, {**params, "_meta": meta})
            return self._await(id, timeout=timeout, display=display)
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

    def begin_stream(self, method: str, params: JsonObject) -> int:
        """Ask for a stream; returns the request's id, by which `next_notification` knows its end."""
        id = self._new_id()
        self._send_request(id, method, params)
        return id

    def next_notification(self, id: int, notification: str, deadline: float) -> JsonObject | None:
        """The params of a stream's next notification, or None at the deadline. Raises StreamEnded, HungUp, Garbled."""
        while (message := self._receive(deadline)) is not None:
            if message.get("method") == notification:
                return member(message, "params")
            if _answers(message, id):
                raise StreamEnded(_result(message))
        return None

    def close(self) -> None:
        """Close the connection; the daemon then cancels what still runs for it."""
        self._connection.close()

    def _new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _send_request(self, id: int, method: str, params: JsonObject) -> None:
        self._send({"jsonrpc": "2.0", "id": id, "method": method, "params": params})

    def _send(self, message: JsonObject) -> None:
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        self._connection.settimeout(DAEMON_TIMEOUT)  # for the whole of it, as `sendall` counts
        try:
            self._connection.sendall(line)
        except TimeoutError:
            raise Unreachable(f"the daemon does not respond: it takes no request within {DAEMON_TIMEOUT:g} s") from None
        except (BrokenPipeError, ConnectionResetError):
            # Not an error yet: the daemon may have said why before it hung up, and the next read finds that.
            return

    def _cancel(self, id: int) -> None:
        """Tell the daemon that nobody waits any more, if it can still be told."""
        with suppress(CommandFailed, OSError):
            self._send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})

    def _await(self, id: int, *, timeout: float, display: WaitDisplay | None) -> JsonObject:
        deadline = time.monotonic() + timeout
        while True:
            until = deadline if display is None else min(deadline, time.monotonic() + TICK)
            message = self._receive(until)
            if message is not None and _answers(message, id):
                return _result(message)
            # Anything else that comes meanwhile is for nobody: a command asks one thing at a time.
            if display is not None and _show(display, message):
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
        # A long line comes in many reads: what was searched is not searched again.
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
            data = b""  # the daemon closed it with something of ours unread: an end like any other
        if not data:
            raise HungUp
        self._received += data
        if len(self._received) > ANSWER_CAP:
            raise Garbled(f"a line of more than {ANSWER_CAP >> 20} MiB")


@contextmanager
def session(explicit: str | None) -> Iterator[DaemonSession]:
    """A session with the daemon at this socket, or where daemons usually listen; closed when left."""
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
    """For NaN and Infinity, which Python reads and JSON does not have."""
    raise ValueError(name)


def _answers(message: JsonObject, id: int) -> bool:
    """Whether this answers request `id`. An error without an id does: the daemon could not read what we sent."""
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


def _show(display: WaitDisplay, message: JsonObject | None) -> bool:
    """Show the progress that came, or the time that went by; whether it was progress."""
    if message is not None and message.get("method") == "notifications/progress":
        display.show_progress(member(message, "params"))
        return True
    display.show_time()
    return False
