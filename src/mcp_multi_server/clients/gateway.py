"""The clients' side: accepts connections, keeps the sessions, tells all of them of changed lists."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import TypeAlias

import anyio

from ..calls.request import ClientRequest
from ..calls.router import Router
from ..core.catalog.catalog import Kind
from ..core.config.config import Config
from ..core.config.settings import LimitsConfig
from ..core.errors import INTERNAL_ERROR, INVALID_REQUEST, RpcError
from ..core.events import ClientConnected, ClientGone, Observer, Rejected
from ..core.jsonrpc import Buffer
from ..servers.server import Server
from ..servers.snapshot import Snapshots
from ..transport.link import Flusher
from .access import Access, Peer, peer_of
from .refusals import FIRST_REQUEST, Refusals
from .session import FRESH, ClientSession, Services

CHANGES_TOGETHER = 0.1
"""Seconds within which several changes become one `list_changed`."""
ACCEPT_PAUSE = 1.0
"""Seconds to wait when the process has no descriptor left for a new client."""
ACCEPTS_A_TURN = 64
"""Clients that are let in before everybody else has a turn of the loop."""
DRAIN_LOOK_EVERY = 0.02
HASTE = 0.1
"""Seconds that a client has for its first request where it has the last descriptor: others wait behind it."""

ControlMethods: TypeAlias = Callable[[ClientSession, ClientRequest, bool], Buffer | None]
"""Serves a `daemon/…` request of a client, which is an admin or not: its result, or None where it is answered later."""


class Gateway:
    """All clients of the daemon.

    The fleet makes it; `listen` or `adopt` let clients in, `close` parts with all of them. `sessions` are those who are
    connected, by number; nobody else adds or removes one. `limits`: those that hold under a config.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        router: Router,
        *,
        sessions: dict[int, ClientSession],
        control: ControlMethods,
        tell: Observer,
        flusher: Flusher,
        limits: Callable[[Config], LimitsConfig],
    ) -> None:
        self.sessions = sessions
        self._snapshots = snapshots
        self._router = router
        self._control = control
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._last = 0
        self._changed: set[Kind] = set()
        self._listener: socket.socket | None = None
        self._refusals = Refusals()
        self._reserve = -1
        """A descriptor to give up when there is no other, so that a client is told so instead of left waiting."""
        self._config = config = snapshots.present().config
        self._access = Access(config.daemon.access)
        self._services = Services(
            tell=tell,
            router=router,
            flusher=flusher,
            snapshots=snapshots,
            limits=limits(config),
            control=self._serve_control,
            gone=self._gone,
        )

    def listen(self, listener: socket.socket) -> None:
        """Accept clients from now on."""
        self._listener = listener
        self._reserve = _spare_descriptor()
        self._loop.add_reader(listener, self._accept)

    def adopt(self, connection: socket.socket) -> None:
        """Serve the client of this very process, whose the servers are, over a connected socket."""
        self._router.belongs_to(self._welcome(connection, peer_of(connection)))

    def stop_accepting(self) -> None:
        """Leave whoever connects from now on in the listener's queue."""
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener = None
        self._give_up_reserve()

    async def drain(self, patience: float) -> None:
        """Let running calls end, for that many seconds, and those who have just come say their first words.

        New calls are still taken, and waited for.
        """
        # Looks instead of an event: draining happens once, and calls end on a path that must cost nothing more.
        for look in range(round(max(patience, FRESH) / DRAIN_LOOK_EVERY)):
            has_time = look * DRAIN_LOOK_EVERY < patience
            if not any(each.is_fresh or (has_time and each.waits_for_server) for each in self.sessions.values()):
                return
            await anyio.sleep(DRAIN_LOOK_EVERY)

    def close(self, reason: str) -> None:
        """Accept nobody any more and part with everybody."""
        self.stop_accepting()
        self._refusals.close()
        for session in list(self.sessions.values()):
            session.close(reason)

    def _serve_control(self, session: ClientSession, request: ClientRequest) -> Buffer | None:
        return self._control(session, request, self._access.may_administer(session.peer))

    def _gone(self, session: ClientSession, reason: str) -> None:
        # A session can end twice: cut off by us, and then seen to be closed.
        if self.sessions.pop(session.number, None) is not None:
            self._tell(ClientGone(session.number, reason))

    # -- accept --------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        assert self._listener is not None
        # Bounded, so that a storm of connections leaves the loop to those who are connected.
        for _ in range(ACCEPTS_A_TURN):
            try:
                connection, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:
                self._turn_away_one()
                return
            self._greet(connection)

    def _greet(self, connection: socket.socket) -> None:
        try:
            peer = peer_of(connection)
        except OSError:
            connection.close()
            return  # it is gone already
        refusal = self._access.refusal(peer)
        if refusal is not None:
            self._turn_away(connection, "access", refusal)
        elif len(self.sessions) >= (most := self._services.limits.clients):
            self._turn_away(connection, "clients", f"more than {most} clients are connected")
        else:
            self._welcome(connection, peer)

    def _welcome(self, connection: socket.socket, peer: Peer) -> ClientSession:
        self._last += 1
        self._tell(ClientConnected(self._last, peer.pid, peer.uid))
        session = self.sessions[self._last] = ClientSession(self._last, peer, connection.detach(), self._services)
        return session

    def _turn_away(
        self,
        connection: socket.socket,
        reason: str,
        message: str,
        *,
        patience: float = FIRST_REQUEST,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        """Say why before hanging up, which takes `patience` seconds at most; then `done` is called."""
        self._tell(Rejected(reason, None, message))
        code = INVALID_REQUEST if reason == "access" else INTERNAL_ERROR
        data = {"server": None, "state": None, "reason": reason, "retryAt": None}
        self._refusals.add(connection, RpcError(code, message, data), patience=patience, done=done)

    def _turn_away_one(self) -> None:
        """Out of descriptors, use the reserve to tell the next client. The others wait until that is done."""
        assert self._listener is not None
        if not self._give_up_reserve():
            self._pause()
            return
        try:
            connection, _address = self._listener.accept()
        except OSError as failure:
            self._reserve = _spare_descriptor()
            # The kernel looks for a descriptor first, and only then for somebody who waits.
            if not isinstance(failure, BlockingIOError):
                self._pause()
            return
        self._loop.remove_reader(self._listener)
        message = "the daemon has no file descriptor left for more clients"
        self._turn_away(connection, "no_descriptor", message, patience=HASTE, done=self._resume)

    def _give_up_reserve(self) -> bool:
        reserve, self._reserve = self._reserve, -1
        if reserve >= 0:
            os.close(reserve)
        return reserve >= 0

    def _pause(self) -> None:
        """Out of descriptors, the reserve included, accepting would fail at once again and spin."""
        self._tell(Rejected("no_descriptor"))
        listener = self._listener
        if listener is not None:
            self._loop.remove_reader(listener)
            self._loop.call_later(ACCEPT_PAUSE, self._resume)

    def _resume(self) -> None:
        if self._listener is not None:
            if self._reserve < 0:
                self._reserve = _spare_descriptor()
            self._loop.add_reader(self._listener, self._accept)

    # -- changes -------------------------------------------------------------------------------------------------

    def published(self, changed: frozenset[Kind], server: Server | None) -> None:
        """A new snapshot: clients hear of it shortly, once for several in a row."""
        if (config := self._snapshots.present().config) is not self._config:
            self._follow(config)
        if not self.sessions:
            return  # who connects later sees this snapshot from the start
        if changed and not self._changed:
            self._loop.call_later(CHANGES_TOGETHER, self._tell_changes)
        self._changed |= changed

    def _follow(self, config: Config) -> None:
        """Take over access rules and limits; clients that are connected stay, whatever the new rules are."""
        self._config = config
        self._access = Access(config.daemon.access)
        self._services.limits = self._limits(config)

    def _tell_changes(self) -> None:
        # Taken before anybody is told: a client that is cut off meanwhile may publish a change.
        changed, self._changed = frozenset(self._changed), set()
        for session in list(self.sessions.values()):
            session.list_changed(changed)


def _spare_descriptor() -> int:
    """A descriptor that is of no use but to be closed; -1 where none is left."""
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
