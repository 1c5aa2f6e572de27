"""A daemon with servers that fail when told to, on a directory of its own, and the books on what it does."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from . import processes
from .clients import Client
from .fleet import START_TIMEOUT, Daemon
from .ledger import Ledger
from .wire import WireError

FAULTY_SERVER = Path(__file__).with_name("faulty_server.py")
LOOK_EVERY = 0.02
BURIED_WITHIN = 10.0
"""Seconds after which a stopped server must have no process left: its stop takes up to 6.5."""
PORTS = (20_000, 30_000)
Wrapper: TypeAlias = Callable[[str], Sequence[str]]
"""The command line that a daemon is started by, given the directory it works on."""
Rows: TypeAlias = dict[str, dict[str, Any]]
NEIGHBOUR = "neighbour"
"""The server that nothing is ever done to."""


class Victim:
    """A server that fails when told to. With a port it is reached over HTTP and is a process of ours."""

    def __init__(self, on: Stage, name: str, *, http: bool) -> None:
        self.name = name
        self.port = free_port() if http else 0
        self.stage = on
        self._orders = os.path.join(on.directory, f"{name}.orders")
        self._child: subprocess.Popen[bytes] | None = None
        self.command = sys.executable
        """The program of a server on stdio."""

    def argv(self) -> list[str]:
        """How it is started."""
        port = [str(self.port)] if self.port else []
        return [self.command, "-I", "-S", str(FAULTY_SERVER), self._orders, self.stage.journal, *port]

    def entry(self) -> dict[str, object]:
        """Its entry in the config."""
        if self.port:
            return {"url": f"http://127.0.0.1:{self.port}/mcp", "type": "http"}
        command, *args = self.argv()
        return {"command": command, "args": args}

    @property
    def pid(self) -> int:
        """Of a server that is reached over HTTP; 0 otherwise."""
        return self._child.pid if self._child else 0

    def own_program(self) -> None:
        """Run as a program that can be taken away: a link to Python."""
        self.command = os.path.join(self.stage.directory, f"{self.name}-python")
        os.symlink(sys.executable, self.command)

    def order(self, word: str) -> None:
        """Say what to do wrong; "" for nothing."""
        if word:
            Path(self._orders).write_text(word, encoding="ascii")
        else:
            Path(self._orders).unlink(missing_ok=True)

    async def signal(self, number: int) -> None:
        """Signal its process."""
        os.kill(self.pid or await self.stage.pid_of(self.name), number)

    async def fail(self, word: str) -> None:
        """Have the running process do something wrong now."""
        self.order(word)
        await self.signal(signal.SIGUSR1)

    async def listen(self) -> None:
        """Start a server that is reached over HTTP; returns when it accepts."""
        self._child = processes.spawn(self.argv())
        await until(lambda: accepts(self.port), f"{self.name} listens")

    def end(self) -> None:
        """End the process of a server that is reached over HTTP."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None


class Stage:
    """All that a fault is tried on."""

    def __init__(self, command: str, victims: int, *, http: int = 0, settings: Mapping[str, object]) -> None:
        self.daemon = Daemon(command, {})
        self.directory = self.daemon.directory
        self.journal = os.path.join(self.directory, "journal")
        self.ledger = Ledger()
        self.victims = [Victim(self, f"victim{n}", http=n < http) for n in range(victims)]
        self.neighbour = Victim(self, NEIGHBOUR, http=False)
        self.settings = dict(settings)
        self.watch: Client
        """A client that calls nothing, and is told of events and changed lists."""
        self._clients: list[Client] = []
        self._begun = False
        Path(self.journal).touch()

    def entries(self) -> dict[str, dict[str, object]]:
        """The servers of the config."""
        return {each.name: {**each.entry(), **self.settings} for each in (*self.victims, self.neighbour)}

    async def begin(self, wrapper: Sequence[str] = ()) -> None:
        """Start the daemon; returns when every server is ready."""
        self.daemon.configure(self.entries())
        self.daemon.start(wrapper)
        self._begun = True
        await self._look()
        await self.all_ready()

    async def restart(self) -> None:
        """Start the daemon again, which was killed; returns when it accepts."""
        self.daemon.start()
        await self._look()

    async def _look(self) -> None:
        self.watch = await self.client()
        await self.watch.follow()

    async def client(self) -> Client:
        """One more client; waits for a daemon that accepts it."""
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                client = await Client.connect(self.daemon.socket)
            except (OSError, WireError):
                if not self.daemon.lives or time.monotonic() > deadline:
                    raise WireError(f"the daemon does not accept: {self.daemon.last_words()}") from None
                await asyncio.sleep(LOOK_EVERY)
            else:
                self._clients.append(client)
                return client

    async def status(self) -> Rows:
        """The daemon's record of each server."""
        return {row["name"]: row for row in (await self.watch.request("daemon/status"))["servers"]}

    async def pid_of(self, server: str) -> int:
        """The process of a server on stdio. Raises ProcessLookupError where there is none by now."""
        pid = (await self.status())[server]["pid"]
        if pid is None:
            raise ProcessLookupError(f"{server} has no process")
        return int(pid)

    async def all_ready(self) -> None:
        """Wait until every server is ready."""
        await self.shows(lambda rows: all(row["state"] == "ready" for row in rows.values()), "every server is ready")

    async def shows(self, wanted: Callable[[Rows], bool], what: str) -> None:
        """Wait until the status is so. Raises WireError where it does not become so."""
        deadline = time.monotonic() + START_TIMEOUT
        while not wanted(await self.status()):
            if time.monotonic() > deadline:
                raise WireError(f"not within {START_TIMEOUT:g} s: {what}: {self.daemon.last_words()}")
            await asyncio.sleep(LOOK_EVERY)

    def executed(self) -> Counter[str]:
        """How often servers carried out each call."""
        return Counter(read(self.journal).split())

    def strays(self) -> list[int]:
        """Processes beyond one for each server on stdio, while all are ready."""
        return self.servers()[1 + sum(not victim.port for victim in self.victims) :]

    def servers(self) -> list[int]:
        """All processes of servers that the daemon started, whoever their parent is by now."""
        mine = {victim.pid for victim in self.victims if victim.pid}
        ours = set(processes.mentioning(self.directory)).intersection(processes.mentioning(str(FAULTY_SERVER)))
        return sorted(ours - mine)

    async def wrongs(self, *, may_cut: bool = False) -> list[str]:
        """End the daemon; all that happened and must never happen. Every server is to be ready."""
        found = self.ledger.wrongs(self.executed(), may_cut=may_cut)
        if not self.daemon.lives:
            return [*found, f"the daemon ended: {self.daemon.last_words()}"]
        found += await self._buried(self.strays, "belong to no server")
        self.daemon.stop()
        return found + await self._buried(self.servers, "outlived the daemon")

    async def _buried(self, left: Callable[[], list[int]], how: str) -> list[str]:
        try:
            await until(lambda: not left(), how, BURIED_WITHIN)
        except WireError:
            return [f"{len(left())} processes {how}"]
        return []

    async def end(self) -> None:
        """End everything that is left."""
        for client in self._clients:
            await client.close()
        for victim in self.victims:
            victim.end()
        if self._begun:
            self.daemon.close()
        for pid in self.servers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def stage(
    command: str,
    victims: int,
    *,
    http: int = 0,
    prepare: Callable[[Victim], Awaitable[None]] | None = None,
    wrapper: Wrapper | None = None,
    **settings: object,
) -> AsyncIterator[Stage]:
    """A running daemon with so many victims, `http` of them over HTTP, and their neighbour, all with these settings."""
    made = Stage(command, victims, http=http, settings=settings)
    try:
        if prepare is not None:
            await asyncio.gather(*map(prepare, made.victims))
        await asyncio.gather(*(victim.listen() for victim in made.victims if victim.port))
        await made.begin(wrapper(made.directory) if wrapper is not None else ())
        yield made
    finally:
        await made.end()


async def until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Look again and again. Raises WireError where it does not become true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise WireError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(LOOK_EVERY)


def read(path: str) -> str:
    """A whole file."""
    return Path(path).read_text(encoding="utf-8", errors="replace")


def free_port() -> int:
    """A port that nobody has, and that the kernel gives to no outgoing connection while its server is down."""
    while True:
        port = random.randrange(*PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def accepts(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
