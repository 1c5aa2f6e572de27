"""Keeps one server alive: one task that connects, serves, and connects again, and what everybody may know of it."""

from __future__ import annotations

import asyncio
import math
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import anyio

from ..core import lifecycle
from ..core.catalog.catalog import Catalog, Kind
from ..core.config.config import ServerConfig
from ..core.events import CatalogRead, InternalError, InvalidLine, Observer, Probed, StateChanged, Stderr
from ..core.jsonrpc import Message
from ..core.lifecycle import ROUTED, Failure, Happening, Lost, Reason, State, Status
from ..core.protocol import Era, Negotiated
from ..transport import Receiver, Transport
from .approach import Approach, TransportEnd
from .exchange import Exchange
from .findings import Findings
from .handshake import Handshake
from .health import Health
from .refresh import Refresher
from .session import ServerSession

STDERR_LINES = 200
TAIL_LINES = 5
INTERNAL = Failure(Reason.INTERNAL, "an internal error, see the log")

Opener: TypeAlias = Callable[[str, ServerConfig, Receiver], AbstractAsyncContextManager[Transport]]
"""Opens a transport of this kind (`stdio`, `http`, `sse`) to the server of this entry; entering it raises Lost."""


class ClientSide(Protocol):
    """What a server reaches of the clients: who answers what it asks, and takes what it logs. The router is one."""

    def capabilities(self, config: ServerConfig) -> Mapping[str, Any]:
        """What this server may ask for, as it is told at the start."""

    def asked(self, server: Server, session: ServerSession, message: Message) -> None:
        """A request of a legacy server's; it is answered, at once or later."""

    def told(self, server: Server, session: ServerSession, message: Message) -> None:
        """A notification that is not about lists or progress."""


@dataclass(frozen=True, slots=True)
class ServerContext:
    """What every server is given by its supervisor."""

    open: Opener
    tell: Observer
    jitter: Callable[[], float]
    """A random number 0 ≤ n < 1."""
    admit: Callable[[Server], Awaitable[None]]
    """Waits until the machine has room for one more server to start."""
    changed: Callable[[Server], None]
    """Called after the state or the catalog of a server changed."""
    clients: ClientSide


class Server:
    """Keeps one server alive: connects, keeps its catalog fresh, watches its health, and connects again.

    The supervisor makes it for an entry of the config and runs `run` in a task of its own. It ends when that task is
    cancelled or, after `finish`, with its session. Its attributes are written by itself alone; its methods may be
    called from anywhere on the loop. `is_current` is False for one that is made to replace another: until `replace`
    it makes one attempt only, and whoever made it tells what comes of it.
    """

    def __init__(self, name: str, config: ServerConfig, context: ServerContext, *, is_current: bool = True) -> None:
        self.name = name
        self.config = config
        self.status = Status(State.CONNECTING, asyncio.get_running_loop().time())
        self.catalog: Catalog | None = None
        self.negotiated: Negotiated | None = None
        """What the server said of itself when it was last ready."""
        self.refreshed_at: float | None = None
        """Loop time at which all lists were read last, those aside that never could be."""
        self.stale = False
        """Whether a list could not be read again, or was not tried yet; what is offered of it is from before."""
        self.findings = Findings(name, context.tell)
        """What is wrong with what it lists and says."""
        self.session: ServerSession | None = None
        """The one that was agreed on last, while its transport lives; see `live`."""
        self.stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self.restarts = 0
        self.attempted = asyncio.Event()
        """Set once an attempt to connect has succeeded or failed."""
        self.is_current = is_current
        self._context = context
        self._loop = asyncio.get_running_loop()
        self.made_at = self._loop.time()
        self._was_heard = False
        """Whether it was ready, or has failed once."""
        self._approach = Approach()
        self._health = Health(self)
        self._refresher = Refresher(self)
        self._handshake: Handshake | None = None
        self._exchange: Exchange | None = None
        """What goes over the transport that is open or being opened."""
        self._scope: anyio.CancelScope | None = None
        """Of the transport that is open, or being opened or left."""
        self._wake = asyncio.Event()
        self._retry_at = math.inf
        """Loop time of an attempt that was asked for before its time."""
        self._restarting = False

    def __repr__(self) -> str:
        return f"<Server {self.name} {self.status.state}>"

    # -- what everybody may know -----------------------------------------------------------------------------------

    @property
    def live(self) -> ServerSession | None:
        """The session on which calls go out, where the server is routed."""
        session = self.session
        if self.status.state not in ROUTED or session is None or session.exchange.loss is not None:
            return None  # a loss is known before our task wakes up to say so in the state
        return session

    @property
    def is_unheard(self) -> bool:
        """Whether its first attempt goes on, and nothing is remembered of it: nobody knows what it offers."""
        return not self._was_heard and self.catalog is None

    @property
    def transport_kind(self) -> str:
        """`stdio`, `http` or `sse`, as far as it is known."""
        return self._approach.kind or self._approach.kinds(self.config)[0]

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return self._exchange.transport.pid if self._exchange else None

    @property
    def in_flight(self) -> int:
        """Requests sent and not answered."""
        return self._exchange.pending.due if self._exchange else 0

    @property
    def stderr_tail(self) -> tuple[str, ...]:
        """The last lines that the server wrote."""
        return tuple(self.stderr)[-TAIL_LINES:]

    def spread(self, seconds: float, share: float) -> float:
        """`seconds`, more or less by up to this share, at random: many servers must not do the same at once."""
        return seconds * (1 + share * (2 * self._context.jitter() - 1))

    # -- what others ask of it -------------------------------------------------------------------------------------

    def offer_catalog_of(self, old: Server) -> None:
        """Offer what `old` offers until our own lists are read, so that its names outlive its replacement."""
        self.catalog, self.negotiated = old.catalog, old.negotiated
        self.refreshed_at, self.restarts = old.refreshed_at, old.restarts
        self.findings.take_over(old.findings)
        if old.config == self.config:  # another program may have to be reached in another way
            self._approach = Approach(old._approach.kind, old._approach.era)

    def offer_remembered(self, negotiated: Negotiated, catalog: Catalog, *, age: float) -> None:
        """Offer what an earlier daemon read `age` seconds ago, until our own lists are read."""
        self.catalog, self.negotiated, self.stale = catalog, negotiated, True
        self.refreshed_at = self._loop.time() - age

    def withdraw_catalog(self) -> None:
        """Offer nothing any more, until the lists are read again."""
        self.catalog = None

    def replace(self, old: Server) -> None:
        """Be the current one instead of `old`, and keep what is told of the server over all its sessions."""
        self.is_current = True
        self.restarts = old.restarts
        self.stderr = deque([*old.stderr, *self.stderr], maxlen=STDERR_LINES)

    def finish(self) -> None:
        """Make no further attempt, and tell nothing more: another is the current one, or there is none any more."""
        self.is_current = False
        self._wake.set()  # `run` must not sit out a backoff only to end after it

    def retry_for_call(self) -> None:
        """A call needs this server: have the next attempt as soon as calls may cause one."""
        due = lifecycle.call_retry_due(self.status, self._loop.time())
        if due is not None and due < self._retry_at:  # thousands of calls may ask, and one attempt is due
            self._retry(due)

    def check_now(self) -> None:
        """The machine slept: probe the server, or try again; what was planned was for another time."""
        self._health.probe_now()
        if self.status.next_attempt is not None:
            self._retry(self._loop.time())

    def restart(self) -> None:
        """End what there is and connect anew, at once and whatever the state."""
        self.attempted.clear()  # who waits for the outcome waits for that of the new attempt
        self._restarting = True
        self._wake.set()
        if self._scope is not None:
            self._scope.cancel()

    def update(self, config: ServerConfig) -> None:
        """Take over settings that need no new session; where there is none, they may be what it takes to get one."""
        self.config = config
        self._refresher.refresh_soon()
        if self.status.state in (State.BACKOFF, State.PARKED):
            self._retry(self._loop.time())

    def _retry(self, at: float) -> None:
        self._retry_at = at
        self._wake.set()

    # -- the state -------------------------------------------------------------------------------------------------

    def step(self, happening: Happening) -> None:
        """Change the state as this asks for; it changes nowhere else."""
        old, now = self.status, self._loop.time()
        self.status = new = lifecycle.step(old, happening, now=now, jitter=self._context.jitter())
        self._was_heard |= new.state in (State.READY, State.BACKOFF, State.PARKED)
        # Of two servers with one name only the current one speaks: clients know of no other.
        if new.state is old.state or not self.is_current:
            return
        if old.state in ROUTED and new.state not in ROUTED:
            self.restarts += 1
        failed = new.state in (State.BACKOFF, State.PARKED)
        self._context.tell(
            StateChanged(
                server=self.name,
                old=old.state,
                new=new.state,
                failure=new.failure if failed else lifecycle.degraded_because(new),
                failures=new.failures,
                retry_in=None if new.next_attempt is None else new.next_attempt - now,
                stderr_tail=self.stderr_tail if failed else (),
            )
        )
        self._context.changed(self)

    # -- its task --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect, serve, and connect again, until cancelled."""
        try:
            while True:
                await self._context.admit(self)
                # Only now: what was asked for while this waited for its turn is this very attempt.
                self._restarting, self._retry_at = False, math.inf
                self.step(lifecycle.Attempt())
                failure = await self._contained_attempt()
                # A session that was ready has said in the state how it ended, before its calls were told.
                if self.status.state in (State.CONNECTING, *ROUTED):
                    self.step(lifecycle.Stop() if failure is None else lifecycle.Failed(failure))
                if not self._restarting:
                    self.attempted.set()
                if not self.is_current:
                    return
                await self._wait_for_next()
        finally:
            if self.status.state is not State.STOPPING:
                self.step(lifecycle.Stop())
            self.attempted.set()

    async def _wait_for_next(self) -> None:
        """Wait for the next attempt's time, or for what brings it forward; `finish` ends the waiting too."""
        while self.is_current and not self._restarting:
            self._wake.clear()
            planned = self.status.next_attempt
            due = min(math.inf if planned is None else planned, self._retry_at)
            with anyio.move_on_after(due - self._loop.time()):
                await self._wake.wait()
                continue
            break

    async def _contained_attempt(self) -> Failure | None:
        """An attempt in which a bug of ours costs this server its session and nothing else."""
        try:
            return await self._attempt()
        except Exception:
            self._context.tell(InternalError(f"server {self.name}", traceback.format_exc()))
            return INTERNAL

    async def _attempt(self) -> Failure | None:
        """Connect and serve until the end, by another way where the first shows that it is the wrong one.

        Returns why it ended, or None where that was asked for.
        """
        for kind in self._approach.kinds(self.config):
            ended = await self._use_transport(kind, self._approach.era_for(self.config))
            if ended.means_legacy:  # a second try at once: to a user this is one start that takes a little longer
                self._approach.era = Era.LEGACY
                ended = await self._use_transport(kind, Era.LEGACY)
            if not ended.means_sse:
                break
        return ended.failure

    async def _use_transport(self, kind: str, era: Era | None) -> TransportEnd:
        """Open one transport and use it until it ends."""
        handshake = self._handshake = Handshake(self, self._context.clients.capabilities(self.config))
        exchange = self._exchange = handshake.exchange
        failure: Failure | None = None
        try:
            # One limit for opening, handshake and first lists; `_serve` lifts it when the server is ready.
            with anyio.move_on_after(self.config.start_timeout) as self._scope:
                async with self._context.open(kind, self.config, exchange.receiver) as transport:
                    await self._serve(handshake, transport, era, self._scope)
                    failure = exchange.loss
            if self._scope.cancelled_caught:
                failure = Failure(Reason.START_TIMEOUT, f"not ready within {self.config.start_timeout:g} s")
        except Lost as lost:
            failure = exchange.loss or lost.failure
            if failure.reason is Reason.PROTOCOL and self.session is None:
                self._approach.era = None  # it speaks another one by now: find out anew
        except Exception:
            failure = INTERNAL
            raise
        finally:
            was_agreed = self.session is not None
            # Whatever ended it, nobody is left waiting for an answer; a loss that is known already stays the reason.
            exchange.end(failure or Failure(Reason.CLOSED, "the session was ended"))
            self.session = self._exchange = self._scope = None
        if self._restarting:
            failure = None  # it was asked for, so it counts neither as a failure nor towards backoff
        return TransportEnd(kind, failure, was_agreed, handshake.is_probing, exchange.transport.last_status)

    async def _serve(
        self, handshake: Handshake, transport: Transport, era: Era | None, starting: anyio.CancelScope
    ) -> None:
        """Agree on a session, become ready, and keep it until it ends. `starting` bounds the time until it is ready."""
        try:
            session = self.session = await handshake.agree(transport, era)
            await self._become_ready(session)
            self._approach.kind, starting.deadline = transport.kind, math.inf
            await self._keep(session)
        except anyio.get_cancelled_exc_class():
            if self._restarting or not starting.cancel_called:
                # Told to stop, and not late in starting: calls fail and the state says so before the transport is
                # left, which takes its time.
                self.step(lifecycle.Stop())
                handshake.exchange.end(Failure(Reason.CLOSED, "the server is being stopped"))
            raise

    async def _become_ready(self, session: ServerSession) -> None:
        self.negotiated = session.negotiated
        self._approach.era = session.negotiated.era
        await self._refresher.read_first(session)
        if session.loss is not None:  # its end came together with the last answer
            raise Lost(session.loss)
        self.step(lifecycle.Connected())
        self.attempted.set()

    async def _keep(self, session: ServerSession) -> None:
        """Keep a session that is ready until it ends."""
        async with anyio.create_task_group() as tasks:
            self._refresher.begin(session, tasks)
            tasks.start_soon(self._health.watch, session)
            await session.exchange.ended.wait()
            tasks.cancel_scope.cancel()  # what still runs of them has nothing left to do

    # -- what its exchange and its session tell (SessionOwner) -----------------------------------------------------

    def stderr_line(self, line: str) -> None:
        """Keep a line that the server wrote to its stderr."""
        self.stderr.append(line)
        is_early = self._handshake is not None and self._handshake.is_probing
        self._context.tell(Stderr(self.name, self.pid, line, is_early=is_early))

    def invalid_line(self, problem: str) -> None:
        """Tell of a line that is no message."""
        self._context.tell(InvalidLine(self.name, problem))

    def peculiar(self, what: str) -> None:
        """Tell what it does otherwise than the protocol has it; before it is ready, together with its lists."""
        if self.findings.add_peculiarity(what) and self.status.state in ROUTED:
            self.findings.tell(self.catalog)

    def request_failed(self, exchange: Exchange, failure: Failure) -> None:
        """A request was lost on its way."""
        self._health.request_failed(exchange)

    def request_unanswered(self, exchange: Exchange, id: int) -> None:
        """A request's time has passed in silence."""
        self._health.request_unanswered(exchange, id)

    def answered_late(self) -> None:
        """What was given up is answered all the same."""
        self._health.answered_late()

    def exchange_ended(self, failure: Failure) -> None:
        """Say so in the state before calls are told and the transport is left."""
        if self.status.state in ROUTED:  # a start that fails is told by the attempt, which knows whether to try again
            self.step(lifecycle.Failed(failure))

    def list_changed(self, kind: Kind) -> None:
        """Read the lists again soon."""
        self._refresher.refresh_soon()

    def asked(self, session: ServerSession, message: Message) -> None:
        """Put what the server asks to the clients."""
        self._context.clients.asked(self, session, message)

    def told(self, session: ServerSession, message: Message) -> None:
        """Pass on what the server tells, but for what concerns our subscription to its changes."""
        if message.method == "notifications/subscriptions/acknowledged":
            self._refresher.refresh_soon()  # what changed between the last reading and now was told to nobody
        else:
            self._context.clients.told(self, session, message)

    # -- what its health and its catalog's reading tell (HealthOwner, CatalogOwner) --------------------------------

    def probed(self, good: bool) -> None:
        """Tell of a probe."""
        self._context.tell(Probed(self.name, good))

    def take_catalog(self, catalog: Catalog, *, seconds: float | None) -> None:
        """Keep what was read, and have it published where it differs."""
        before, was_stale = self.catalog, self.stale
        self.catalog, self.stale = catalog, bool(catalog.kept)
        if not self.stale:
            self.refreshed_at = self._loop.time()
        if seconds is not None:
            tools, prompts, resources, templates = (
                catalog.count(kind) for kind in (Kind.TOOL, Kind.PROMPT, Kind.RESOURCE, Kind.TEMPLATE)
            )
            is_news = (was_stale and not self.stale) or catalog != before
            self._context.tell(CatalogRead(self.name, tools, prompts, resources, templates, seconds, is_news))
        self.findings.tell(catalog)
        # Before it is ready, a catalog is published together with the state.
        if catalog != before and self.status.state in ROUTED:
            self._context.changed(self)
