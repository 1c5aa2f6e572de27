"""A bridge on a table: a test plays the host, the daemon and the clock, and reads what the bridge does."""

from __future__ import annotations

import json
from typing import Any

from mcp_multi_server.core.bridge.bridge import BARRIER, Bridge

Message = dict[str, Any]
INITIALIZE: Message = {
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {"sampling": {}}, "clientInfo": {"name": "host"}},
}
AGREED: Message = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "s"}}
INITIALIZED: Message = {"method": "notifications/initialized"}
CALL: Message = {"method": "tools/call", "params": {"name": "t"}}
GONE = "the daemon closed the connection"


def dump(message: Message) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode()


def listing(*names: str, **marks: Any) -> Message:
    """The result of `tools/list`."""
    return {"tools": [{"name": name, "inputSchema": {}, "_meta": {"serverName": "s", **marks}} for name in names]}


class Table:
    """One bridge with both of its ends."""

    def __init__(self, *, hold: float = 5, wait: float = 10, linger: float = 1.5) -> None:
        self.now = 1000.0
        self.bridge = Bridge(self.now, hold=hold, wait=wait, linger=linger)

    # the host

    def say(self, *messages: Message | bytes) -> None:
        for message in messages:
            self.bridge.from_host(message if isinstance(message, bytes) else dump(message), self.now)

    def told(self) -> list[Message]:
        """What the host has been sent since."""
        lines, self.bridge.to_host[:] = list(self.bridge.to_host), []
        return [json.loads(line) for line in lines if line != BARRIER]

    # the daemon

    def send(self, *messages: Message | bytes) -> None:
        self.bridge.last_heard = self.now
        for message in messages:
            self.bridge.from_daemon(message if isinstance(message, bytes) else dump(message), self.now)

    def answer(self, id: object, result: Message | None = None) -> None:
        self.send({"id": id, "result": {} if result is None else result})

    def got(self) -> list[Message]:
        """What the daemon has been sent since."""
        lines, self.bridge.to_daemon[:] = list(self.bridge.to_daemon), []
        assert all(line.index(b"\n") == len(line) - 1 for line in lines)
        return [json.loads(line) for line in lines]

    # the connection and the clock

    def connect(self) -> list[Message]:
        """A daemon that is there and answers; what it is sent first."""
        self.bridge.opened(self.now)
        (ping,) = self.got()
        assert ping["method"] == "ping"
        self.answer(ping["id"])
        return self.got()

    def lose(self, *unsent: Message, why: str = GONE) -> None:
        self.bridge.lost(self.now, why, [dump(message) + b"\n" for message in unsent])

    def after(self, seconds: float) -> None:
        """Let time pass, as the shell does: from one moment at which something is due to the next."""
        end = self.now + seconds
        while True:
            wait = self.bridge.wait(self.now)
            assert wait is None or wait >= 0
            if wait is None or self.now + wait > end:
                break
            self.now += max(wait, 0.001)
            self.bridge.time(self.now)
        self.now = end
        self.bridge.time(self.now)

    def hung_up(self) -> str:
        """Why the bridge wants the connection closed, if it does."""
        return self.bridge.hang_up

    def is_over(self) -> bool:
        return self.bridge.is_over

    def said(self) -> str:
        said, self.bridge.says[:] = "\n".join(self.bridge.says), []
        return said


def legacy(**patience: float) -> Table:
    """A table at which a legacy client has shaken hands."""
    table = Table(**patience)
    table.connect()
    table.say(INITIALIZE)
    table.answer(0, AGREED)
    table.say(INITIALIZED)
    table.got(), table.told()
    return table


def methods(messages: list[Message]) -> list[str]:
    return [message.get("method", "") for message in messages]
