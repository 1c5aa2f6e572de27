"""The daemon's fleet in one event loop, on a real socket and with a real config file.

Only the transports are scripted: they keep what the daemon sends to a server, and answer as the test says.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeVar

import anyio

from mcp_multi_server.clients.access import Peer
from mcp_multi_server.clients.gateway import CHANGES_TOGETHER
from mcp_multi_server.core import jsonrpc
from mcp_multi_server.core.config.config import Config, ServerConfig, parse
from mcp_multi_server.core.events import Event, InternalError
from mcp_multi_server.core.jsonrpc import InvalidMessage, decode
from mcp_multi_server.core.lifecycle import Failure, Lost, State
from mcp_multi_server.daemon import config_file
from mcp_multi_server.daemon import fleet as fleets
from mcp_multi_server.servers.server import Server
from mcp_multi_server.telemetry.events import Events
from mcp_multi_server.telemetry.log_settings import LogSettings
from mcp_multi_server.transport import Receiver
from tests.fixtures.fixture import MODERN, member

from .client import PATIENCE, Client, Message
from .scripted import ScriptedTransport, item

E = TypeVar("E", bound=Event)
T = TypeVar("T")

FOREIGNER = Peer(1, 54321, 54321)
ECHOED = '{"content":[{"type":"text","text":"hi"}],"x-top":123456789012345678901234567890}'


class Script(ScriptedTransport):
    """A server without a process. `era`: what it speaks; the other names are what it lists."""

    def __init__(
        self,
        name: str,
        *,
        era: str = "legacy",
        tools: Iterable[str] = ("echo",),
        prompts: Iterable[str] = (),
        resources: Iterable[str] = (),
        templates: Iterable[str] = (),
        logs: bool = False,
        entry: Message | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.era = era
        self.logs = logs
        self.lists = {
            "tools/list": ("tools", "name", list(tools)),
            "prompts/list": ("prompts", "name", list(prompts)),
            "resources/list": ("resources", "uri", list(resources)),
            "resources/templates/list": ("resourceTemplates", "uriTemplate", list(templates)),
        }
        self.entry = {"command": name, "protocol": era, **(entry or {})}
        self.replies: dict[str, str | None] = {"tools/call": ECHOED}
        """The result to each method as JSON; None: never answered."""
        self.refusal: Failure | None = None
        """Why it cannot be reached, while that is so."""
        self.opened = 0
        self.away = False
        """Whether connecting to it takes until `come` is called."""
        self.leaving: asyncio.Event | None = None
        """Once set, what stopping it waits for."""
        self._arrived = asyncio.Event()

    @asynccontextmanager
    async def open(self, receiver: Receiver) -> AsyncIterator[Self]:
        self.opened += 1
        self.wake()
        if self.away:
            await self._arrived.wait()
        if self.refusal is not None:
            raise Lost(self.refusal)
        self._receiver = receiver
        try:
            yield self
        finally:
            if self._receiver is receiver:
                self._receiver = None
            if self.leaving is not None:
                with anyio.CancelScope(shield=True):
                    await self.leaving.wait()

    def come(self) -> None:
        """Be there, where connecting waits for it."""
        self.away = False
        self._arrived.set()

    def lose(self, id: str, failure: Failure) -> None:
        """The request with this id is lost on its way."""
        self.receiver.failed(int(id), failure)

    def write(self, line: str) -> None:
        """A line on its stderr."""
        self.receiver.stderr(line)

    def answer(self, id: str, *, result: str | None = None, error: str | None = None) -> None:
        """Answer the request with this id."""
        body = f'"result":{result}' if error is None else f'"error":{error}'
        self.say(f'{{"jsonrpc":"2.0","id":{id},{body}}}')

    def ask(self, method: str, params: str | None = None, *, id: str = "1") -> None:
        """Send a request; `id` and `params` are JSON."""
        body = "" if params is None else f',"params":{params}'
        self.say(f'{{"jsonrpc":"2.0","id":{id},"method":"{method}"{body}}}')

    def tell(self, method: str, params: str) -> None:
        """Send a notification; `params` are JSON."""
        self.say(f'{{"jsonrpc":"2.0","method":"{method}","params":{params}}}')

    async def response(self, id: str = "1") -> str:
        """The line that answers what it asked with this id."""
        await self.until(lambda: self._responses(id), within=PATIENCE)
        found = self._responses(id)
        assert len(found) == 1, f"answered more than once: {found}"
        return found[0]

    def _responses(self, id: str) -> list[str]:
        return [line for line in self.lines if member(line, "id") == id and not member(line, "method")]

    def report(self, token: str, progress: str = "0.5") -> None:
        """Send progress."""
        params = f'{{"progressToken":{token},"progress":{progress},"x-vendor":1.0}}'
        self.say(f'{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}')

    async def got(self, method: str, *, number: int = 1) -> str:
        """The line of the nth message of that method."""
        await self.until(lambda: len(self.of(method)) >= number, within=PATIENCE)
        return self.of(method)[number - 1]

    async def tried(self, times: int) -> None:
        """Wait until so many connections were asked for."""
        await self.until(lambda: self.opened >= times, within=PATIENCE)

    def reply(self, request: jsonrpc.Message, line: str) -> None:
        """Answer as `replies` and the lists have it."""
        if (result := self._result(request.method)) is not None:
            self.answer(bytes(request.id).decode(), result=result)

    def _result(self, method: str) -> str | None:
        if method in self.replies:
            return self.replies[method]
        offered: Message = {name: {"listChanged": True} for name in ("tools", "prompts", "resources")}
        if self.logs:
            offered["logging"] = {}
        match method:
            case "initialize":
                return json.dumps({"protocolVersion": "2025-11-25", "capabilities": offered, "serverInfo": {}})
            case "server/discover":
                return json.dumps({"supportedVersions": [MODERN], "capabilities": offered, "resultType": "complete"})
            case "subscriptions/listen":
                return None
        if method in self.lists:
            holder, key, names = self.lists[method]
            return json.dumps({holder: [item(name, key) for name in names]})
        return "{}"


class Fleet:
    """The daemon's own fleet over scripted servers, with its config in a file; made by `fleet`."""

    def __init__(self, scripts: Sequence[Script], directory: Path, daemon: Message | None, log: LogSettings | None):
        self.path = str(directory / "s")
        self.config_file = directory / "mcp_servers.json"
        self.scripts: dict[str, Script] = {}
        self.events: list[Event] = []
        self.clients: list[Client] = []
        self._observed = asyncio.Event()
        self.write(*scripts, daemon=daemon)
        self.config = configured(scripts, daemon)
        events = Events(self._observe)
        self.tell = events.tell
        self.parts = parts = fleets.Fleet(
            self.config,
            events=events,
            path=str(self.config_file),
            log=log,
            opener=self._open,
            jitter=lambda: 0.0,
        )
        self.router = parts.router
        self.supervisor = parts.supervisor
        self.gateway = parts.gateway
        self.control = parts.control

    async def client(self, *, modern: bool = False, capabilities: Message | None = None) -> Client:
        """A connection on which nothing was said yet."""
        made = socket.socket(socket.AF_UNIX)
        made.connect(self.path)
        made.setblocking(False)
        await anyio.sleep(0)  # lets the gateway accept it: the backlog is short
        self.clients.append(Client(made, modern=modern, capabilities=capabilities))
        return self.clients[-1]

    async def foreign(self) -> Client:
        """A client of another user, who may call and no more."""
        client = await self.client()
        await client.result("ping")
        list(self.gateway.sessions.values())[-1].peer = FOREIGNER
        return client

    async def legacy(self, capabilities: Message | None = None) -> Client:
        """A legacy client that has shaken hands."""
        client = await self.client(capabilities=capabilities)
        await client.initialize()
        return client

    async def of_era(self, era: str, capabilities: Message | None = None) -> Client:
        if era == "legacy":
            return await self.legacy(capabilities)
        return await self.client(modern=True, capabilities=capabilities)

    async def rested(self) -> Self:
        """The changes that the start was have been told to whoever was there."""
        await anyio.sleep(CHANGES_TOGETHER)
        return self

    async def event(self, kind: type[E], matches: Callable[[E], bool] = lambda event: True) -> E:
        """The first event of that kind that matches, waited for."""
        with anyio.fail_after(PATIENCE):
            while True:
                for event in self.events:
                    if isinstance(event, kind) and matches(event):
                        return event
                await self._observed.wait()

    async def state(self, server: str, *states: State) -> Server:
        """Wait until the server is in one of those states."""
        return await self.until(lambda: self._in_state(server, states))

    async def until(self, check: Callable[[], T | None]) -> T:
        """The first true value of `check`, which is asked after every event."""
        with anyio.fail_after(PATIENCE):
            while not (found := check()):
                await self._observed.wait()
        return found

    def _in_state(self, name: str, states: tuple[State, ...]) -> Server | None:
        server = self.supervisor.snapshot.servers.get(name)
        return server if server is not None and server.status.state in states else None

    def write(self, *scripts: Script, daemon: Message | None = None) -> None:
        """Have the config file name these servers; nobody reads it yet."""
        self.scripts |= {script.name: script for script in scripts}
        self.config_file.write_bytes(written(scripts, daemon))

    def internal_errors(self) -> list[str]:
        return [event.trace for event in self.events if isinstance(event, InternalError)]

    def _observe(self, event: Event) -> None:
        self.events.append(event)
        self._observed.set()
        self._observed = asyncio.Event()

    @asynccontextmanager
    async def _open(self, kind: str, config: ServerConfig, receiver: Receiver) -> AsyncIterator[Script]:
        assert config.command is not None
        async with self.scripts[config.command].open(receiver) as script:
            yield script


def deepest() -> int:
    """How deep a message may be nested, seen from here: Python versions differ by a factor of ten and more."""

    def is_read(depth: int) -> bool:
        try:
            decode(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":%b%b}}' % (b"[" * depth, b"]" * depth))
        except InvalidMessage:
            return False
        return True

    low, high = 1, 200_000
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if is_read(middle) else (low, middle)
    return low


def configured(scripts: Sequence[Script], daemon: Message | None = None) -> Config:
    """The config of these servers."""
    return parse(written(scripts, daemon), config_file.lookup_in("/"))


def written(scripts: Sequence[Script], daemon: Message | None = None) -> bytes:
    """The config of these servers as text; the tests' own process may connect."""
    settings = {"access": {"allowDescendants": True}} | (daemon or {})
    return json.dumps({"mcpServers": {each.name: each.entry for each in scripts}, "daemon": settings}).encode()


@asynccontextmanager
async def fleet(
    *scripts: Script,
    daemon: Message | None = None,
    log: LogSettings | None = None,
    up: bool = True,
    expected_errors: int = 0,
) -> AsyncIterator[Fleet]:
    """A running fleet; `up`: with every server ready. At its end nothing may be left, and nothing went wrong inside."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="mms-")))
        found = Fleet(scripts, directory, daemon, log)
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        listener.bind(found.path)
        listener.listen()
        tasks = await stack.enter_async_context(anyio.create_task_group())
        escaped = _escapes()
        try:
            await tasks.start(found.parts.run)
            found.gateway.listen(listener)
            if up:
                for script in scripts:
                    await found.state(script.name, State.READY)
            yield found
        finally:
            for script in scripts:
                if script.leaving is not None:
                    script.leaving.set()
            found.gateway.close("the test ends")
            for client in found.clients:
                client.close()
            tasks.cancel_scope.cancel()
        assert not escaped, f"escaped into the event loop: {escaped}"
        errors = found.internal_errors()
        assert len(errors) == expected_errors, errors
        assert not found.router.held
        assert not found.gateway.sessions


def _escapes() -> list[Message]:
    """What escapes from callbacks of the running loop from here on."""
    escaped: list[Message] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: escaped.append(context))
    return escaped


async def gathered(*waits: Awaitable[Any]) -> list[Any]:
    with anyio.fail_after(PATIENCE):
        return list(await asyncio.gather(*waits))
