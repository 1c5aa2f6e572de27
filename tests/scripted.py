"""Servers without a process: a scripted transport keeps what it is sent, and says what the test tells it to.

`Script` is one transport with a server behind it. `Scripted` opens the transports of one server, each as the test says;
`Machine` does so for several servers.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import anyio

from mcp_multi_server.core import protocol
from mcp_multi_server.core.config.config import ServerConfig
from mcp_multi_server.core.errors import METHOD_NOT_FOUND
from mcp_multi_server.core.jsonrpc import ABSENT, Buffer, Members, Message, decode
from mcp_multi_server.core.lifecycle import Failure, exit_failure
from mcp_multi_server.servers.pending import NO_WORK
from mcp_multi_server.transport import Receiver, Transport

Json: TypeAlias = dict[str, Any]
Answer: TypeAlias = Callable[[Json], Json | None]
"""From a request to the members of its answer (`result` or `error`), or None for silence."""
Opening: TypeAlias = dict[str, Answer] | BaseException | None
"""Answers by method; an exception raised; None: it never opens."""

SOON = 40.0
"""Seconds that anything may take before a test gives up; most tests run in a time that jumps."""
GONE = exit_failure(3)
EVERYTHING: Json = {"tools": {}, "prompts": {}, "resources": {}}
TOOLS: Json = {"capabilities": {"tools": {"listChanged": True}}}
MODERN: Json = {"supportedVersions": [protocol.MODERN_VERSION], "capabilities": EVERYTHING}
LEGACY: Json = {
    "protocolVersion": protocol.LATEST_LEGACY,
    "capabilities": EVERYTHING,
    "serverInfo": {"name": "s", "version": "1"},
}
UNKNOWN: Json = {"error": {"code": METHOD_NOT_FOUND, "message": "Method not found"}}
TOOLS_CHANGED: Json = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


# --- what a server answers -------------------------------------------------------------------------------------------


def result(body: Any) -> Answer:
    return lambda request: {"result": body}


def refusal(code: int, **data: Any) -> Answer:
    return lambda request: {"error": {"code": code, "message": "no", "data": data}}


def silence(request: Json) -> None:
    return None


def unknown(request: Json) -> Json:
    return UNKNOWN


def item(name: str, key: str = "name") -> Json:
    """Something that can be listed as it is; `key`: the member of its kind that names it."""
    return {key: name, "name": name, "inputSchema": {"type": "object"}}


def tools(*names: str, **more: Any) -> Answer:
    return result({"tools": [item(name) for name in names], **more})


def paged(member: str, key: str, pages: int) -> Answer:
    """Two items a page, so many pages; the first cursor is the empty string, which is one."""

    def answer(request: Json) -> Json:
        cursor = request["params"].get("cursor")
        page = 0 if cursor is None else len(cursor) + 1
        items = [item(f"{member}-{page}-{n}", key) for n in range(2)]
        return {"result": {member: items} | ({"nextCursor": "x" * page} if page + 1 < pages else {})}

    return answer


def legacy(**answers: Answer) -> dict[str, Answer]:
    """A legacy server with one tool. `answers` by method, with `_` for `/`."""
    known = {"initialize": result(LEGACY | TOOLS), "tools/list": tools("t"), "ping": result({}), "tools/call": silence}
    return known | {name.replace("_", "/"): answer for name, answer in answers.items()}


def modern(**answers: Answer) -> dict[str, Answer]:
    """A modern server with one tool, which says when its list changes."""
    known = {"server/discover": result(MODERN | TOOLS), "tools/list": tools("t"), "subscriptions/listen": silence}
    return known | {name.replace("_", "/"): answer for name, answer in answers.items()}


# --- transports ------------------------------------------------------------------------------------------------------


class ScriptedTransport:
    """Keeps what it is sent, and says what it is told to. What answers the requests is its subclass's `reply`."""

    kind = "stdio"
    pid: int | None = None
    last_status: int | None = None

    def __init__(self, receiver: Receiver | None = None) -> None:
        self.lines: list[str] = []
        """All that it was sent, as it was written."""
        self._receiver = receiver
        self._news = asyncio.Event()

    @property
    def receiver(self) -> Receiver:
        """Who is told what it says."""
        assert self._receiver is not None, "the transport is not open"
        return self._receiver

    def send(self, parts: Sequence[Buffer]) -> None:
        line = b"".join(map(bytes, parts))
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        self.lines.append(line.decode())
        self.wake()
        # Later: who sends may stand so deep in the stack that the line cannot be looked into from there.
        asyncio.get_running_loop().call_soon(self._look, self.lines[-1])

    def reply(self, request: Message, line: str) -> None:
        """Answer this request, which came in this line, or do not."""
        raise NotImplementedError

    def _look(self, line: str) -> None:
        """Have a request answered; decoded as the daemon does it, as it may be given what is nested deeply."""
        message = decode(line.encode())
        if self._receiver is not None and message.method and message.id is not ABSENT:
            self.reply(message, line)

    def wake(self) -> None:
        """Have those who wait for something look again."""
        self._news.set()
        self._news = asyncio.Event()

    async def until(self, check: Callable[[], object], *, within: float = SOON) -> None:
        """Wait until what it was sent makes `check` true."""
        with anyio.fail_after(within):
            while not check():
                await self._news.wait()

    def say(self, line: Json | str | bytes) -> None:
        """Send a line, whatever it is."""
        text = json.dumps(line) if isinstance(line, dict) else line
        self.receiver.line(text.encode() if isinstance(text, str) else text)

    def die(self, failure: Failure = GONE) -> None:
        """End the transport."""
        self.receiver.lost(failure)

    def of(self, method: str) -> list[str]:
        """The lines of that method so far."""
        return [line for line in self.lines if json.loads(line).get("method") == method]


class Script(ScriptedTransport):
    """A transport and the server behind it. `answers` by method; what is not in it is an unknown method."""

    def __init__(self, answers: dict[str, Answer], receiver: Receiver, *, kind: str = "stdio") -> None:
        super().__init__(receiver)
        self.kind = kind
        self.answers = answers

    @property
    def sent(self) -> list[Json]:
        """All that it was sent."""
        return [json.loads(line) for line in self.lines]

    def reply(self, request: Message, line: str) -> None:
        asked = json.loads(line)
        answer = self.answers.get(request.method, unknown)(asked)
        if answer is not None:
            self.answer(asked, **answer)

    def answer(self, request: Json, **members: Any) -> None:
        """Answer a request of ours with `result` or `error`."""
        self.say({"jsonrpc": "2.0", "id": request["id"], **members})

    def methods(self) -> list[str]:
        """The methods of all that was sent; an answer of ours counts as `answer`."""
        return [message.get("method", "answer") for message in self.sent]

    async def request(self, method: str, *, nth: int = 1) -> Json:
        """The nth message of that method, waited for."""
        await self.until(lambda: len(self.of(method)) >= nth)
        found: Json = json.loads(self.of(method)[nth - 1])
        return found


class Scripted:
    """Opens the transports of one server: the nth as the nth argument says, the last again and again."""

    def __init__(self, *openings: Opening) -> None:
        self.openings = deque(openings)
        self.kinds: list[str] = []
        self.at: list[float] = []
        """When a transport was asked for."""
        self.scripts: list[Script] = []
        self.open = 0
        self.at_most = 1
        """How many transports there may be at a time."""
        self.may_leave = asyncio.Event()
        self.may_leave.set()
        self.failing_to_leave: Exception | None = None
        self.news: Callable[[], None] = lambda: None

    @property
    def server(self) -> Script:
        """The server behind the transport that was opened last."""
        return self.scripts[-1]

    @asynccontextmanager
    async def __call__(self, kind: str, config: ServerConfig, receiver: Receiver) -> AsyncIterator[Script]:
        self.kinds.append(kind)
        self.at.append(asyncio.get_running_loop().time())
        self.news()
        opening = self.openings.popleft() if len(self.openings) > 1 else self.openings[0]
        if opening is None:
            await anyio.sleep_forever()
        if isinstance(opening, BaseException):
            raise opening
        assert opening is not None
        script = Script(dict(opening), receiver, kind=kind)
        self.scripts.append(script)
        self.open += 1
        assert self.open <= self.at_most, "too many transports of one server at a time"
        try:
            yield script
        finally:
            with anyio.move_on_after(SOON, shield=True):
                await self.may_leave.wait()
            self.open -= 1
            self.news()
            if self.failing_to_leave is not None:
                raise self.failing_to_leave


class Machine:
    """Opens the transports of several servers, each known by its command or URL."""

    def __init__(self, **servers: Scripted) -> None:
        self.servers = servers

    def __call__(self, kind: str, config: ServerConfig, receiver: Receiver) -> AbstractAsyncContextManager[Transport]:
        return self.servers[config.command or str(config.url)](kind, config, receiver)

    def __getitem__(self, command: str) -> Scripted:
        return self.servers[command]


# --- who waits for answers -------------------------------------------------------------------------------------------


class Recorded:
    """A `Waiter` that keeps what it is told."""

    def __init__(self, deadline: float = math.inf) -> None:
        self.deadline = deadline
        self.silent_until = deadline if deadline < math.inf else NO_WORK
        self.told: list[str] = []
        """One entry: the result as text, `error`, `expired`, or the failure's message."""
        self.reported: list[Members] = []
        self.done = asyncio.Event()

    def settle(self, message: Message) -> None:
        self._end("error" if message.error is not ABSENT else bytes(message.result).decode())

    def fail(self, failure: Failure) -> None:
        self._end(failure.message)

    def expire(self) -> None:
        self._end("expired")

    def progress(self, params: Members) -> None:
        self.reported.append(params)

    def _end(self, told: str) -> None:
        self.told.append(told)
        self.done.set()
