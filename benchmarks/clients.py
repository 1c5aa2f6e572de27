"""Clients of the daemon by the dozen, on one loop: calls that are accounted for, and a follower of its events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .ledger import Ending, Ledger, Outcome, outcome
from .wire import HELLO, WireError

LONGEST_LINE = 64 * 1024 * 1024
LONGEST_ANSWER = 30.0
"""Seconds after which a call counts as never answered: longer than any deadline that the daemon is given."""
MOST_OPEN = 200
"""Calls of one caller that wait at a time; below the daemon's limit for one client."""


Wanted: TypeAlias = "Callable[[Event], bool]"


class Client:
    """A client of the 2025-11-25 revision."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last = 0
        self.list_changes: list[float] = []
        """When the daemon said that a list changed."""
        self.events: list[Event] = []
        """What a `daemon/events` request was told."""
        self._stirred = asyncio.Event()
        self.cut = False
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, socket: str) -> Client:
        """A connection after its handshake. Raises OSError or WireError where there is no daemon."""
        client = cls(*await asyncio.open_unix_connection(socket, limit=LONGEST_LINE))
        try:
            await client.request("initialize", HELLO)
            client.post("notifications/initialized")
        except BaseException:
            await client.close()
            raise
        return client

    async def close(self) -> None:
        """End the connection."""
        self.writer.close()
        self._task.cancel()
        await asyncio.wait([self._task])
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def stop_reading(self) -> None:
        """Leave whatever comes from now on in the socket."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket, which can read

    def post(self, method: str, params: Mapping[str, Any] | None = None, *, id: int | None = None) -> None:
        """Send one message; nothing waits for it to be read."""
        message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
        known = {name: value for name, value in message.items() if value is not None}
        self.writer.write(json.dumps(known, separators=(",", ":")).encode() + b"\n")

    async def ask(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The response to one request. Raises WireError where the connection ends, TimeoutError."""
        if self.cut:
            raise WireError("the daemon closed the connection")
        self._last += 1
        id = self._last
        waiting: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[id] = waiting
        try:
            self.post(method, params, id=id)
            async with asyncio.timeout(LONGEST_ANSWER):
                return await waiting
        finally:
            self._waiting.pop(id, None)

    async def request(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The result of one request. Raises WireError where it is an error."""
        response = await self.ask(method, params)
        if "result" not in response:
            raise WireError(f"{method}: {json.dumps(response):.300}")
        return dict(response["result"])

    async def call(self, ledger: Ledger, server: str, *, ms: float = 0) -> Outcome:
        """Call a server and enter how that ended."""
        id, begun = ledger.next_id(), time.monotonic()
        call = {"name": f"{server}__work", "arguments": {"id": id, "ms": ms}}
        try:
            found = outcome(await self.ask("tools/call", call), id, server, begun, time.monotonic())
        except TimeoutError:
            found = Outcome(id, server, begun, time.monotonic(), Ending.SILENT)
        except WireError:
            found = Outcome(id, server, begun, time.monotonic(), Ending.CUT)
        ledger.outcomes.append(found)
        return found

    async def follow(self) -> None:
        """Have the daemon tell its events from now on."""
        self._last += 1
        self.post("daemon/events", {}, id=self._last)
        await self.await_event(lambda event: event.kind == "status", since=0.0, seconds=LONGEST_ANSWER)

    async def await_event(self, wanted: Wanted, *, since: float, seconds: float) -> Event | None:
        """The first such event since that time; None where it does not come within `seconds`."""
        seen = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    for event in self.events[seen:]:
                        seen += 1
                        if event.at >= since and wanted(event):
                            return event
                    self._stirred.clear()
                    await self._stirred.wait()
        return None

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                self._take(json.loads(line))
        except (OSError, ValueError):
            pass  # cut off, or in the middle of a line
        finally:
            self.cut = True
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(WireError("the daemon closed the connection"))

    def _take(self, message: dict[str, Any]) -> None:
        if "method" not in message:
            if (waiting := self._waiting.get(message["id"])) and not waiting.done():
                waiting.set_result(message)
        elif message["method"] == "notifications/daemon/event":
            self.events.append(Event.of(message["params"]))
            self._stirred.set()
        elif message["method"].endswith("/list_changed"):
            self.list_changes.append(time.monotonic())


@dataclass(frozen=True)
class Event:
    """What the daemon said happened."""

    at: float
    """Monotonic seconds, when we were told."""
    kind: str
    server: str = ""
    state: str = ""
    reason: str = ""
    outcome: str = ""
    changed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Of a config that was read: how that went; the servers that were started, stopped, replaced and updated."""

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Event:
        """A notification as a record."""
        server = params.get("server")
        row = server if isinstance(server, dict) else {"name": server}
        return cls(
            time.monotonic(),
            params["event"],
            row.get("name") or "",
            params.get("new") or row.get("state") or "",
            (params.get("failure") or params).get("reason") or "",
            params.get("outcome") or "",
            params.get("changed") or {},
        )


class Caller:
    """Calls one server again and again, from its own connection, until told to stop; then waits for all answers."""

    def __init__(self, client: Client, ledger: Ledger, server: str) -> None:
        self._client = client
        self._ledger = ledger
        self._server = server
        self._stop = asyncio.Event()
        self._calls: set[asyncio.Task[Outcome]] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self, *, every: float, ms: float = 0, patient: bool = False) -> None:
        """Begin a call every so many seconds; `patient`: the next only after the answer to the one before."""
        self._stop.clear()
        self._task = asyncio.create_task(self._run(every, ms, patient))

    async def stop(self) -> None:
        """Begin no more calls, wait for those that are open."""
        self._stop.set()
        if self._task is not None:
            await self._task
        if self._calls:
            await asyncio.wait(self._calls)

    async def _run(self, every: float, ms: float, patient: bool) -> None:
        while not self._stop.is_set() and not self._client.cut:
            if patient:
                await self._client.call(self._ledger, self._server, ms=ms)
            elif len(self._calls) < MOST_OPEN:
                call = asyncio.create_task(self._client.call(self._ledger, self._server, ms=ms))
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), every)
