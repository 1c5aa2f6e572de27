"""Our side of one server: one task that connects, keeps the catalog fresh and the server honest, and tries again."""

from __future__ import annotations

import asyncio
import math
import traceback
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import anyio

from ..core import lifecycle
from ..core.catalog import Catalog, Kind
from ..core.config import ServerConfig
from ..core.errors import METHOD_NOT_FOUND, RpcError
from ..core.events import (
    CatalogProblems,
    CatalogRead,
    InternalError,
    InvalidLine,
    Observer,
    Probed,
    RefreshFailed,
    StateChanged,
    Stderr,
)
from ..core.jsonrpc import Message
from ..core.lifecycle import ROUTED, Failure, Happening, Lost, Reason, State, Status
from ..core.protocol import Era, Negotiated
from ..transport import Receiver, Transport
from .health import Health
from .host import Host
from .session import ServerSession

STDERR_LINES = 200
TAIL_LINES = 5
DEBOUNCE = 0.25
REFRESH_SPREAD = 0.2
TTL_FLOOR, TTL_CEILING = 5.0, 3600.0
RELISTEN = 1.0
RELISTEN_CEILING = 60.0
"""Seconds until a subscription that a server ended is opened again, twice as many each time, unless it lasted."""
INTERNAL = Failure(Reason.INTERNAL, "an internal error, see the log")
SSE_HINTS = frozenset({400, 404, 405, 406})
"""HTTP statuses by which a server that knows only the older SSE transport refuses a POST."""


class Opener(Protocol):
    """Opens the transport of a kind for a server."""

    def __call__(self, kind: str, config: ServerConfig, receiver: Receiver) -> AbstractAsyncContextManager[Transport]:
        """See `transport.Open`."""


@dataclass(frozen=True, slots=True)
class ServerContext:
    """What every connection is given."""

    open: Opener
    tell: Observer
    jitter: Callable[[], float]
    """A number 0 ≤ n < 1."""
    admit: Callable[[Server], Awaitable[None]]
    """Waits until the machine has room for one more server to start."""
    changed: Callable[[Server], None]
    """Told after the state or the catalog changed."""
    host: Host


class Server:
    """One server. `run` is its task; everything else may be called from anywhere on the loop."""

    def __init__(self, name: str, config: ServerConfig, context: ServerContext) -> None:
        self.name = name
        self.config = config
        self.status = Status(State.CONNECTING, asyncio.get_running_loop().time())
        self.catalog: Catalog | None = None
        self.refreshed_at: float | None = None
        """Loop time of the last successful reading of all lists."""
        self.stale = False
        """Whether the last refresh failed, or none was tried yet; the catalog is the one before."""
        self.session: ServerSession | None = None
        self.negotiated: Negotiated | None = None
        """What the server said of itself when it was last ready."""
        self.stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self.restarts = 0
        self.attempted = asyncio.Event()
        """Set once an attempt to connect has succeeded or failed."""
        self.standing = True
        """Whether this is the server's connection, and not one that is to become it or was: those make one attempt,
        and what becomes of them is told by who made them."""
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._era: Era | None = None
        self._kind: str | None = None
        self._wake = asyncio.Event()
        self._kick_at = math.inf
        self._restarting = False
        self._scope: anyio.CancelScope | None = None
        """Of the transport that is open, or being opened or left."""
        self._nudged = asyncio.Event()
        self._health = Health(
            status=lambda: self.status,
            happen=self.happen,
            probed=lambda good: context.tell(Probed(name, good)),
            spread=self._spread,
        )

    def __repr__(self) -> str:
        return f"<Connection {self.name} {self.status.state}>"

    @property
    def live(self) -> ServerSession | None:
        """The conversation on which calls go out, where the server is routed."""
        session = self.session
        if self.status.state not in ROUTED or session is None or session.loss is not None:
            return None  # a loss is known before our task wakes up to say so in the state
        return session

    @property
    def transport_kind(self) -> str:
        """`stdio`, `http` or `sse`, as far as it is known."""
        return self._kind or self._kinds()[0]

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        transport = self.session.transport if self.session else None
        return transport.pid if transport else None

    @property
    def in_flight(self) -> int:
        """Requests sent and not answered."""
        return self.session.pending.due if self.session else 0

    def happen(self, happening: Happening) -> None:
        """The one door through which the state changes."""
        old, now = self.status, self._loop.time()
        self.status = new = lifecycle.step(old, happening, now=now, jitter=self._context.jitter())
        if new.state is old.state or not self.standing:
            return
        if old.state in ROUTED and new.state not in ROUTED:
            self.restarts += 1
        failed = new.state in (State.BACKOFF, State.PARKED)
        self._context.tell(
            StateChanged(
                server=self.name,
                old=old.state,
                new=new.state,
                failure=new.failure if failed else None,
                failures=new.failures,
                retry_in=None if new.next_attempt is None else new.next_attempt - now,
                stderr_tail=self.stderr_tail if failed else (),
            )
        )
        self._context.changed(self)

    @property
    def stderr_tail(self) -> tuple[str, ...]:
        """The last lines that the server wrote."""
        return tuple(self.stderr)[-TAIL_LINES:]

    def succeed(self, predecessor: Server | None) -> None:
        """Offer what the one before offered until our own lists are read, so that its names outlive the change."""
        if predecessor is None:
            return
        self.catalog, self.negotiated = predecessor.catalog, predecessor.negotiated
        self.refreshed_at, self.restarts = predecessor.refreshed_at, predecessor.restarts
        if predecessor.config == self.config:
            self._era, self._kind = predecessor._era, predecessor._kind

    def stand_in_for(self, predecessor: Server) -> None:
        """Become the server's connection, which knows all that the one before knew."""
        self.standing = True
        self.restarts = predecessor.restarts
        self.stderr = deque([*predecessor.stderr, *self.stderr], maxlen=STDERR_LINES)

    def retire(self) -> None:
        """Make no further attempt, and say nothing more: somebody else is the server's connection, or it has none."""
        self.standing = False
        self._wake.set()

    def recall(self, negotiated: Negotiated, catalog: Catalog, *, age: float) -> None:
        """Offer what an earlier daemon read `age` seconds ago, until our own lists are read."""
        self.catalog, self.negotiated, self.stale = catalog, negotiated, True
        self.refreshed_at = self._loop.time() - age

    def kick(self) -> None:
        """A call needs this server: have the next attempt as soon as calls may cause one."""
        due = lifecycle.kick_due(self.status, self._loop.time())
        if due is not None and due < self._kick_at:
            self._kick_at = due
            self._wake.set()

    def doubt(self) -> None:
        """The machine slept: probe the server now, or try again now; what was planned was for another time."""
        self._health.doubt()
        if self.status.next_attempt is not None:
            self._kick_at = self._loop.time()
            self._wake.set()

    def restart(self) -> None:
        """Have a new connection, at once and whatever the state."""
        self.attempted.clear()
        self._restarting = True
        self._wake.set()
        if self._scope is not None:
            self._scope.cancel()

    def update(self, config: ServerConfig) -> None:
        """Take over settings that need no new connection; where there is none, they may be what it takes to get one."""
        self.config = config
        self._nudged.set()
        if self.status.state in (State.BACKOFF, State.PARKED):
            self._kick_at = self._loop.time()
            self._wake.set()

    async def run(self) -> None:
        """Connect, serve, and connect again, until cancelled."""
        try:
            while True:
                await self._context.admit(self)
                self._restarting, self._kick_at = False, math.inf
                self.happen(lifecycle.Attempt())
                failure = await self._contained_attempt()
                if self.status.state in (State.CONNECTING, *ROUTED):
                    self.happen(lifecycle.Stop() if failure is None else lifecycle.Failed(failure))
                if not self._restarting:
                    self.attempted.set()
                if not self.standing:
                    return
                await self._wait_for_next()
        finally:
            if self.status.state is not State.STOPPING:
                self.happen(lifecycle.Stop())
            self.attempted.set()

    # -- one attempt ---------------------------------------------------------------------------------------------

    async def _wait_for_next(self) -> None:
        """Wait for the next attempt's time, a call that brings it forward, `restart` or `retire`."""
        while self.standing and not self._restarting:
            self._wake.clear()
            due = min(self.status.next_attempt or math.inf, self._kick_at)
            with anyio.move_on_after(due - self._loop.time()):
                await self._wake.wait()
                continue
            break

    async def _contained_attempt(self) -> Failure | None:
        """An attempt in which a bug of ours costs this server its connection and nothing else."""
        try:
            return await self._attempt()
        except Exception:
            self._context.tell(InternalError(f"server {self.name}", traceback.format_exc()))
            return INTERNAL

    async def _attempt(self) -> Failure | None:
        """Connect and serve until the end, by another way where the first shows that it is the wrong one.

        The reason of the end, or None where it was asked for.
        """
        kinds = [self._kind] if self._kind else self._kinds()
        for kind in kinds:
            failure, session = await self._converse(kind, self._known_era())
            if failure is not None and self._died_of_probe(kind, failure, session):
                self._era = Era.LEGACY
                failure, session = await self._converse(kind, self._era)
            if failure is None or session.negotiated is not None or not _wants_sse(session):
                break
        return failure

    def _kinds(self) -> list[str]:
        """The transports to try, in order; a bare URL leaves it open (transports, "Backwards Compatibility")."""
        if self.config.url is None:
            return ["stdio"]
        return [self.config.type] if self.config.type else ["http", "sse"]

    def _known_era(self) -> Era | None:
        return self._era if self.config.protocol == "auto" else Era(self.config.protocol)

    def _died_of_probe(self, kind: str, failure: Failure, session: ServerSession) -> bool:
        """Whether a server that knows no `server/discover` has answered it by exiting, as those in Rust do."""
        return kind == "stdio" and session.probing and session.loss is failure and not failure.permanent

    async def _converse(self, kind: str, era: Era | None) -> tuple[Failure | None, ServerSession]:
        """One transport from its opening to its end."""
        host = self._context.host
        session = ServerSession(
            invalid=self._invalid,
            changed=self._list_changed,
            failed=lambda failure: self._health.request_failed(session),
            unanswered=self._health.request_unanswered,
            lost=self._lost,
            told=lambda message: self._told(session, message),
            asked=lambda message: host.asked(self, session, message),
            capabilities=host.capabilities(self.config),
        )
        failure: Failure | None = None
        receiver = session.receiver(self._stderr)
        try:
            with anyio.move_on_after(self.config.start_timeout) as self._scope:
                async with self._context.open(kind, self.config, receiver) as transport:
                    session.transport = transport
                    self.session = session
                    try:
                        await self._become_ready(session, era)
                        self._kind, self._scope.deadline = kind, math.inf
                        await self._serve(session)
                    except anyio.get_cancelled_exc_class():
                        if self._restarting or not self._scope.cancel_called:
                            self._stop(session)
                        raise
                    failure = session.loss
            if self._scope.cancelled_caught:
                failure = Failure(Reason.START_TIMEOUT, f"not ready within {self.config.start_timeout:g} s")
        except Lost as lost:
            failure = session.loss or lost.failure
            if failure.reason is Reason.PROTOCOL and session.negotiated is None:
                self._era = None
        except Exception:
            failure = INTERNAL
            raise
        finally:
            session.lose(failure or Failure(Reason.CLOSED, "the connection was ended"))
            self.session = self._scope = None
        return None if self._restarting else failure, session

    def _stop(self, session: ServerSession) -> None:
        """Told to stop: calls fail and the state says so before the transport is left, which takes its time."""
        self.happen(lifecycle.Stop())
        session.lose(Failure(Reason.CLOSED, "the server is being stopped"))

    def _lost(self, failure: Failure) -> None:
        """A connection that was ready has ended: the state says so before its calls are told and its transport left."""
        if self.status.state in ROUTED:
            self.happen(lifecycle.Failed(failure))

    async def _become_ready(self, session: ServerSession, era: Era | None) -> None:
        self.negotiated = await session.negotiate(era)
        self._era = self.negotiated.era
        self._nudged.clear()
        try:
            await self._read_catalog(session)
        except TimeoutError:
            late = f"its lists did not come within {self.config.timeout:g} s"
            raise Lost(Failure(Reason.START_TIMEOUT, late)) from None
        if session.loss is not None:
            raise Lost(session.loss)
        self.happen(lifecycle.Connected())
        self.attempted.set()

    async def _serve(self, session: ServerSession) -> None:
        """Keep a ready connection until it ends."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_fresh, session)
            tasks.start_soon(self._health.keep, session)
            tasks.start_soon(self._listen, session)
            await session.ended.wait()
            tasks.cancel_scope.cancel()

    # -- while it is ready ---------------------------------------------------------------------------------------

    async def _read_catalog(self, session: ServerSession) -> bool:
        """Read every list; whether anything is different now."""
        started = self._loop.time()
        catalog = await session.read_catalog(timeout=self.config.timeout)
        before = self.catalog
        is_news = self.stale or catalog != before
        self.catalog, self.refreshed_at, self.stale = catalog, self._loop.time(), False
        tools, prompts, resources, templates = (
            catalog.count(kind) for kind in (Kind.TOOL, Kind.PROMPT, Kind.RESOURCE, Kind.TEMPLATE)
        )
        seconds = self.refreshed_at - started
        self._context.tell(CatalogRead(self.name, tools, prompts, resources, templates, seconds, is_news))
        if catalog.problems != (before.problems if before else ()):
            self._context.tell(CatalogProblems(self.name, catalog.problems))
        return catalog != before

    async def _keep_fresh(self, session: ServerSession) -> None:
        """Read the lists again when the server says so, when their time to live is over, else now and then."""
        while True:
            with anyio.move_on_after(self._refresh_in()):
                await self._nudged.wait()
                await anyio.sleep(DEBOUNCE)
            self._nudged.clear()
            try:
                if await self._read_catalog(session):
                    self._context.changed(self)
            except TimeoutError:
                self._not_refreshed(f"not answered within {self.config.timeout:g} s")
            except Lost as lost:
                self._not_refreshed(lost.failure.message)

    def _refresh_in(self) -> float:
        ttl = self.catalog.ttl if self.catalog else None
        if ttl:
            return min(max(ttl, TTL_FLOOR), TTL_CEILING)
        return self._spread(self.config.refresh_interval, REFRESH_SPREAD)

    def _not_refreshed(self, message: str) -> None:
        self.stale = True
        self._context.tell(RefreshFailed(self.name, message))

    async def _listen(self, session: ServerSession) -> None:
        """Have a modern server say when its lists change (basic/patterns/subscriptions); legacy ones do unasked."""
        negotiated = session.negotiated
        assert negotiated is not None
        wanted = {kind.subscription: True for kind in Kind if negotiated.announces_changes(kind.capability)}
        if negotiated.era is Era.LEGACY or not wanted:
            return
        pause = 0.0
        while True:
            began = self._loop.time()
            try:
                await session.ask("subscriptions/listen", {"notifications": wanted}, timeout=math.inf)
            except RpcError as refused:
                if refused.code == METHOD_NOT_FOUND:
                    return
            except Lost:
                if session.loss is not None:
                    return
            lasted = self._loop.time() - began > RELISTEN_CEILING
            pause = RELISTEN if lasted else min(max(2 * pause, RELISTEN), RELISTEN_CEILING)
            await anyio.sleep(pause)
            self._nudged.set()

    def _spread(self, seconds: float, share: float) -> float:
        return seconds * (1 + share * (2 * self._context.jitter() - 1))

    # -- what the conversation tells -----------------------------------------------------------------------------

    def _stderr(self, line: str) -> None:
        self.stderr.append(line)
        self._context.tell(Stderr(self.name, self.pid, line))

    def _invalid(self, problem: str) -> None:
        self._context.tell(InvalidLine(self.name, problem))

    def _list_changed(self, kind: Kind) -> None:
        self._nudged.set()

    def _told(self, session: ServerSession, message: Message) -> None:
        """A subscription begins: what changed since the lists were read was told to nobody."""
        if message.method == "notifications/subscriptions/acknowledged":
            self._nudged.set()
        else:
            self._context.host.told(self, session, message)


def _wants_sse(session: ServerSession) -> bool:
    return session.transport is not None and session.transport.last_status in SSE_HINTS
