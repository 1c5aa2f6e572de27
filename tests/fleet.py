"""The clients' side in one event loop: a real gateway on a real socket over a real supervisor.

Only the transports are scripted: they keep what the daemon sends to a server, and answer as the test says.
"""

from __future__ import annotations

import asyncio
import json
import socket
import traceback
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeVar

import anyio

from mcp_multi_server.calls.router import Router
from mcp_multi_server.clients.control import Control
from mcp_multi_server.clients.gateway import CHANGES_TOGETHER, Gateway
from mcp_multi_server.clients.session import ClientSession
from mcp_multi_server.core.config import Config, ServerConfig, parse
from mcp_multi_server.core.errors import Problem
from mcp_multi_server.core.events import Event, InternalError
from mcp_multi_server.core.jsonrpc import ABSENT, Buffer, InvalidMessage, decode
from mcp_multi_server.core.lifecycle import Failure, Lost, Reason, State
from mcp_multi_server.core.plan import Plan
from mcp_multi_server.servers.clock import iso, wall
from mcp_multi_server.servers.server import Server
from mcp_multi_server.servers.snapshot import Snapshot, Snapshots
from mcp_multi_server.servers.status import Reload
from mcp_multi_server.servers.supervisor import Supervisor
from mcp_multi_server.telemetry.log_settings import LogSettings
from mcp_multi_server.transport import Receiver
from mcp_multi_server.transport.link import Flusher
from tests.fixtures.fixture import META, MODERN, member

Message = dict[str, Any]
E = TypeVar("E", bound=Event)
T = TypeVar("T")

PATIENCE = 8.0
"""Seconds that anything may take before a test gives up."""
ENVELOPE: Message = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}
GONE = Failure(Reason.EXIT, "exited with code 3")
ECHOED = '{"content":[{"type":"text","text":"hi"}],"x-top":123456789012345678901234567890}'


class Script:
    """A server without a process. `era`: what it speaks; the other names are what it lists."""

    kind = "stdio"
    pid: int | None = None
    last_status: int | None = None

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
        self.lines: list[str] = []
        self.refusal: Failure | None = None
        """Why it cannot be reached, while that is so."""
        self.opened = 0
        self.away = False
        """Whether connecting to it takes until `come` is called."""
        self.leaving: asyncio.Event | None = None
        """Once set, what stopping it waits for."""
        self._arrived = asyncio.Event()
        self._receiver: Receiver | None = None
        self._stirred = asyncio.Event()

    @asynccontextmanager
    async def open(self, receiver: Receiver) -> AsyncIterator[Self]:
        self.opened += 1
        self._stir()
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

    def die(self, failure: Failure = GONE) -> None:
        """The process ends."""
        assert self._receiver is not None
        self._receiver.lost(failure)

    def lose(self, id: str, failure: Failure) -> None:
        """The request with this id is lost on its way."""
        assert self._receiver is not None
        self._receiver.failed(int(id), failure)

    def say(self, line: str) -> None:
        """Send a line, whatever it is."""
        assert self._receiver is not None
        self._receiver.line(line.encode())

    def write(self, line: str) -> None:
        """A line on its stderr."""
        assert self._receiver is not None
        self._receiver.stderr(line)

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
        with anyio.fail_after(PATIENCE):
            while not (found := self._responses(id)):
                await self._stirred.wait()
        assert len(found) == 1, f"answered more than once: {found}"
        return found[0]

    def _responses(self, id: str) -> list[str]:
        return [line for line in self.lines if member(line, "id") == id and not member(line, "method")]

    def report(self, token: str, progress: str = "0.5") -> None:
        """Send progress."""
        params = f'{{"progressToken":{token},"progress":{progress},"x-vendor":1.0}}'
        self.say(f'{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}')

    def send(self, parts: Sequence[Buffer]) -> None:
        """See Transport."""
        line = b"".join(map(bytes, parts)).decode()
        self.lines.append(line)
        self._stir()
        asyncio.get_running_loop().call_soon(self._reply, line)

    async def got(self, method: str, *, number: int = 1) -> str:
        """The line of the nth message of that method."""
        with anyio.fail_after(PATIENCE):
            while len(found := self.of(method)) < number:
                await self._stirred.wait()
        return found[number - 1]

    async def tried(self, times: int) -> None:
        """Wait until so many connections were asked for."""
        with anyio.fail_after(PATIENCE):
            while self.opened < times:
                await self._stirred.wait()

    def of(self, method: str) -> list[str]:
        """The lines of that method so far."""
        return [line for line in self.lines if json.loads(line).get("method") == method]

    def _stir(self) -> None:
        self._stirred.set()
        self._stirred = asyncio.Event()

    def _reply(self, line: str) -> None:
        """Answer a request; decoded as the daemon does it, since a transport may be given what is nested deeply."""
        message = decode(line.encode())
        if self._receiver is None or not message.method or message.id is ABSENT:
            return
        if (result := self._result(message.method)) is not None:
            self.answer(bytes(message.id).decode(), result=result)

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
            return json.dumps({holder: [{key: name, "name": name} for name in names]})
        return "{}"


class Client:
    """One connection to the gateway: lines out, lines in."""

    def __init__(self, connected: socket.socket, *, modern: bool, capabilities: Message | None = None) -> None:
        self.socket = connected
        self.modern = modern
        self.capabilities = capabilities or {}
        self._rest = b""
        self._lines: deque[bytes] = deque()
        self._kept: deque[bytes] = deque()

    async def write(self, data: bytes | str) -> None:
        """Bytes as they are."""
        await asyncio.get_running_loop().sock_sendall(self.socket, data.encode() if isinstance(data, str) else data)

    async def post(self, method: str, params: Message | str | None = None, *, id: object = 1) -> None:
        """Send a request; params as text go out byte for byte."""
        if params is None or isinstance(params, dict):
            params = dict(params or {})
            if self.modern and not method.startswith("daemon/"):
                declared = {META + "clientCapabilities": self.capabilities}
                params["_meta"] = ENVELOPE | declared | params.get("_meta", {})
            params = json.dumps(params)
        await self.write(f'{{"jsonrpc":"2.0","id":{json.dumps(id)},"method":{json.dumps(method)},"params":{params}}}\n')

    async def notify(self, method: str, params: Message | None = None) -> None:
        body: Message = {"jsonrpc": "2.0", "method": method}
        await self.write(json.dumps(body if params is None else body | {"params": params}) + "\n")

    async def line(self) -> bytes:
        """The next line. Raises EOFError at the end of the stream."""
        with anyio.fail_after(PATIENCE):
            while not self._lines:
                data = await asyncio.get_running_loop().sock_recv(self.socket, 1 << 16)
                if not data:
                    raise EOFError
                *lines, self._rest = (self._rest + data).split(b"\n")
                self._lines.extend(lines)
        return self._lines.popleft()

    async def message(self) -> Message:
        found: Message = json.loads(await self.line())
        return found

    async def answer_line(self, id: object = 1) -> str:
        """The line that answers that request; notifications before it are kept."""
        while True:
            line = await self.line()
            message = json.loads(line)
            if "method" not in message:
                assert message.get("id") == id, f"an answer to {message.get('id')!r}, not {id!r}: {message}"
                return line.decode()
            self._kept.append(line)

    async def notification(self) -> Message:
        """The next notification."""
        found: Message = json.loads(self._kept.popleft() if self._kept else await self.line())
        assert "method" in found, found
        return found

    async def question(self) -> Message:
        """The next request, which the daemon passes on from a server."""
        while True:
            line = self._kept.popleft() if self._kept else await self.line()
            found: Message = json.loads(line)
            if "id" in found and "method" in found:
                return found
            assert "method" in found, f"an answer before the question: {found}"

    async def reply(self, question: Message, *, result: str | None = None, error: str | None = None) -> None:
        """Answer it; `result` and `error` are JSON."""
        body = f'"result":{result}' if error is None else f'"error":{error}'
        await self.write(f'{{"jsonrpc":"2.0","id":{json.dumps(question["id"])},{body}}}\n')

    async def request(self, method: str, params: Message | str | None = None, *, id: object = 1) -> Message:
        """The response, whichever it is."""
        await self.post(method, params, id=id)
        found: Message = json.loads(await self.answer_line(id))
        return found

    async def result(self, method: str, params: Message | str | None = None, *, id: object = 1) -> Message:
        response = await self.request(method, params, id=id)
        assert "result" in response, response
        found: Message = response["result"]
        return found

    async def error(self, method: str, params: Message | str | None = None, *, id: object = 1) -> Message:
        response = await self.request(method, params, id=id)
        assert "error" in response, response
        found: Message = response["error"]
        return found

    async def initialize(self) -> Message:
        """The legacy handshake, both halves."""
        info = {"name": "tester", "version": "1", "x-vendor": True}
        params = {"protocolVersion": "2025-11-25", "capabilities": self.capabilities, "clientInfo": info}
        result = await self.result("initialize", params, id="handshake")
        await self.notify("notifications/initialized")
        return result

    async def settled(self) -> list[Message]:
        """Every notification that came by the time a request that is made here is answered."""
        await self.result("daemon/logs", {"server": "one"}, id="fence")
        kept, self._kept = [json.loads(line) for line in self._kept], deque()
        return kept

    async def ended(self) -> list[Message]:
        """All that comes until the other side ends the connection."""
        found = []
        while True:
            try:
                found.append(await self.message())
            except (EOFError, ConnectionResetError):
                return found

    def close(self) -> None:
        self.socket.close()


class Desk:
    """The Actions of a daemon without a process: the next config is whatever `config` says."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.last_reload = Reload("applied", 1.0, 1.0)
        self.config_path = "/etc/mcp_servers.json"
        self.started_at = 1.0
        self.config = fleet.config
        self.trouble: Exception | None = None
        """Raised in place of a reload."""
        self.log: LogSettings | None = None
        self.proceed: asyncio.Event | None = None
        """Once set, what a reload waits for."""

    @property
    def snapshot(self) -> Snapshot:
        return self._fleet.supervisor.snapshot

    def clients(self) -> Iterable[ClientSession]:
        return list(self._fleet.gateway.sessions.values())

    def tell(self, event: Event) -> None:
        self._fleet.tell(event)

    def later(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def contained() -> None:
            try:
                await work()
            except Exception:
                self._fleet.tell(InternalError("control", traceback.format_exc()))

        self._fleet.tasks.start_soon(contained)

    async def reload(self) -> tuple[Reload, Plan]:
        if self.proceed is not None:
            await self.proceed.wait()
        if self.trouble is not None:
            raise self.trouble
        plan, replacements = self._fleet.supervisor.apply(self.config)
        for replacement in replacements:
            await replacement.decided.wait()
        return Reload("partial" if self.config.broken else "applied", 2.0, 2.0), plan

    async def restart(self, server: str) -> tuple[Server, Failure | None]:
        replacement = self._fleet.supervisor.restart(server)
        await replacement.decided.wait()
        return self.snapshot.servers[server], replacement.failure

    async def plan(self, config: bytes | None) -> tuple[Plan, tuple[Problem, ...]]:
        after = self.config if config is None else parse(config, _nothing)
        return Plan.between(self.snapshot.config, after), ()


class Fleet:
    """All of it; made by `fleet`."""

    def __init__(self, config: Config, scripts: Sequence[Script], tasks: anyio.abc.TaskGroup, path: str) -> None:
        self.config = config
        self.tasks = tasks
        self.path = path
        self.scripts = {script.name: script for script in scripts}
        self.events: list[Event] = []
        self._observed = asyncio.Event()
        self._flusher = Flusher()
        self.router = Router(lambda: self.supervisor.snapshot, tell=self.tell, wall=lambda time: iso(wall(time)))
        self.supervisor = Supervisor(
            Snapshots(config), open_transport=self._open, tell=self.tell, jitter=lambda: 0.0, host=self.router
        )
        self.supervisor.listeners.append(self.router.changed)
        self.desk = Desk(self)
        self.control = Control(self.desk)
        self.gateway = Gateway(self.supervisor, self.router, self.control, tell=self.tell, flusher=self._flusher)
        self.clients: list[Client] = []

    async def client(self, *, modern: bool = False, capabilities: Message | None = None) -> Client:
        """A connection on which nothing was said yet."""
        made = socket.socket(socket.AF_UNIX)
        made.connect(self.path)
        made.setblocking(False)
        await anyio.sleep(0)  # lets the gateway accept it: the backlog is short
        self.clients.append(Client(made, modern=modern, capabilities=capabilities))
        return self.clients[-1]

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

    def parsed(self, *scripts: Script, daemon: Message | None = None) -> Config:
        """A config of these servers."""
        self.scripts |= {script.name: script for script in scripts}
        return configured(scripts, daemon)

    def internal_errors(self) -> list[str]:
        return [event.trace for event in self.events if isinstance(event, InternalError)]

    def tell(self, event: Event) -> None:
        self.events.append(event)
        self._observed.set()
        self._observed = asyncio.Event()
        self.gateway.spread(event)

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
    """The config of these servers; the tests' own process may connect."""
    settings = {"access": {"allowDescendants": True}} | (daemon or {})
    return parse(json.dumps({"mcpServers": {s.name: s.entry for s in scripts}, "daemon": settings}).encode(), _nothing)


def _nothing(source: str, name: str) -> str:
    raise LookupError(f"there is no {source} {name}")


@asynccontextmanager
async def fleet(
    *scripts: Script, daemon: Message | None = None, up: bool = True, expected_errors: int = 0
) -> AsyncIterator[Fleet]:
    """A running fleet; `up`: with every server ready. At its end nothing may be left, and nothing went wrong inside."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(TemporaryDirectory(prefix="mms-"))
        path = str(Path(directory) / "s")
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        listener.bind(path)
        listener.listen()
        tasks = await stack.enter_async_context(anyio.create_task_group())
        found = Fleet(configured(scripts, daemon), scripts, tasks, path)
        escaped = _escapes()
        try:
            await tasks.start(found.supervisor.run)
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
