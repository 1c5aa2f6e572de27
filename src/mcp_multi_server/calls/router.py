"""Forwarded calls, from a client's request to a server, without a task or an await.

A call is sent at most once. While its server is away it is held, at most for `hold` seconds and never past its own
deadline; what was certainly not carried out can wait without harm.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

from ..core.catalog.catalog import Kind
from ..core.config.settings import ServerConfig
from ..core.errors import RpcError
from ..core.events import Observer
from ..core.jsonrpc import Message, error_object
from ..core.lifecycle import ROUTED, State
from ..servers.server import Server
from ..servers.session import ServerSession
from ..servers.snapshot import Snapshot
from ..telemetry.tracing import Tracer
from .call import SentCall
from .context import CallContext
from .first_sight import FirstSight
from .input_requests import InputRequests
from .request import Caller, ClientRequest
from .resolve import NobodyOffers, is_offered, resolve, unread_owner
from .server_logs import METHOD as LOG_METHOD
from .server_logs import ServerLogs

SEND_AGAIN_AFTER = 0.25
"""Seconds until a call is tried again whose server took no connection, or knew its session no more."""


class HeldCall:
    """A client's request that waits for its server and was not sent. The router makes it, sends it on or refuses it."""

    __slots__ = ("_router", "_timer", "caller", "kind", "request", "server", "started", "tool")

    def __init__(
        self,
        router: Router,
        caller: Caller,
        request: ClientRequest,
        started: float,
        server: str,
        *,
        tool: str = "",
        kind: str = "",
    ) -> None:
        self.caller = caller
        self.request = request
        self.started = started
        self.server = server
        """The name of the server that it waits for."""
        self.tool = tool
        self.kind = kind
        """The server's own name of the tool, and its transport, where the call was sent before."""
        self._router = router
        self._timer: asyncio.TimerHandle | None = None
        caller.open_requests.add(request.id, self)

    def wait(self, timer: asyncio.TimerHandle) -> None:
        """Keep the timer that ends the waiting, so that it can be stopped."""
        self._timer = timer

    def stop_waiting(self) -> None:
        """The router has done with it, one way or the other."""
        if self._timer is not None:
            self._timer.cancel()
        self.caller.open_requests.remove(self.request.id, self)

    def cancel(self, reason: str) -> None:
        """The client gave it up or is gone."""
        self._router.drop(self, "cancelled")


class Router:
    """Finds the server for each request and keeps the calls that wait for one. The fleet makes it, for all clients.

    It is also how servers reach the clients' side (`capabilities`, `asked`, `told`). `abilities`: what its one client
    can be asked, where it works for a single one; None for a daemon's.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        *,
        tell: Observer,
        wall: Callable[[float], str],
        abilities: frozenset[str] | None = None,
    ) -> None:
        self.logs = ServerLogs(snapshot)
        self._snapshot = snapshot
        self._context = CallContext(snapshot, tell=tell, wall=wall)
        self.first_sight = FirstSight(self._context)
        """What waits for servers that are started for the first time."""
        self._input_requests = InputRequests(abilities)
        self._held: dict[HeldCall, None] = {}

    @property
    def held(self) -> int:
        """How many calls wait for their servers."""
        return len(self._held)

    @property
    def postponed(self) -> int:
        """How many calls wait for their clients to come back with input."""
        return self._input_requests.postponed

    def trace(self, tracer: Tracer | None) -> None:
        """Have spans made of the requests that are forwarded from here on."""
        self._context.tracer = tracer

    def belongs_to(self, caller: Caller) -> None:
        """The servers are this client's own: it can be asked without a call of its own there, too."""
        self._input_requests.set_owner(caller)

    def forward(self, caller: Caller, request: ClientRequest) -> None:
        """Take up a request; it is answered through `caller`. Raises RpcError where nothing can answer it."""
        # A state that is not of ours belongs to a modern server, and goes to it like any other param.
        if "requestState" in request.params and self._input_requests.resume(caller, request):
            return
        self._dispatch(caller, request, self._context.time(), may_hold=True, may_wait=True)

    def changed(self, changed: frozenset[Kind], server: Server | None) -> None:
        """There is a new snapshot: send, or give up, what was held for that server."""
        self.first_sight.changed()
        if server is not None:
            self.logs.changed(server)
        if server is None or not self._held:
            return
        # A list of its own: what is released leaves the table.
        for call in [call for call in self._held if call.server == server.name]:
            if server.live is not None or server.status.state in (State.PARKED, State.DISABLED):
                self._release(call, may_hold=False)
            else:
                server.retry_for_call()

    def gone(self, caller: Caller) -> None:
        """A client is gone, and its calls with it."""
        self.logs.forget(caller)
        self._input_requests.gone(caller)

    def drop(self, call: HeldCall, error: str) -> None:
        """Forget a held call, whose client is not waiting any more or is answered by who says so."""
        self._held.pop(call, None)
        call.stop_waiting()
        self._done(call, error)

    # -- what servers need and tell ---------------------------------------------------------------------------------

    def capabilities(self, config: ServerConfig) -> dict[str, Any]:
        """What this server may ask clients for, as it is told at the start."""
        return self._input_requests.declared(config)

    def asked(self, server: Server, session: ServerSession, message: Message) -> None:
        """A legacy server sent a request; it is answered, at once or later."""
        self._input_requests.asked(server, session, message)

    def told(self, server: Server, session: ServerSession, message: Message) -> None:
        """A server sent a notification that is not about lists or progress."""
        if message.method == LOG_METHOD:
            self.logs.told(server, session, message)
        elif message.method == "notifications/cancelled":
            self._input_requests.withdrawn(session, message)
        elif message.method == "notifications/elicitation/complete":
            self._input_requests.completed(message)

    # -- finding the server ----------------------------------------------------------------------------------------

    def _dispatch(
        self, caller: Caller, request: ClientRequest, started: float, *, may_hold: bool, may_wait: bool = False
    ) -> None:
        """Send the request where its server is there, hold it where it is away.

        `may_wait`: it waits for servers that are not heard yet where none offers what it asks for. Raises RpcError
        where there is no such server, or where it is away and the call must not wait.
        """
        snapshot = self._snapshot()
        try:
            route = resolve(snapshot, request)
        except RpcError as refused:
            # The name may be one that the server will list when it is there: its lists were not read yet.
            server = unread_owner(snapshot, request)
            if server is None:
                if not isinstance(refused, NobodyOffers) or not snapshot.unheard:
                    raise
                if may_wait and self._waits(caller, request, started):
                    return
                raise self._context.not_heard(refused.what, snapshot.unheard) from None
        else:
            if route.is_guess and may_wait and self._waits(caller, request, started):
                return
            server = snapshot.servers[route.server]
            if (session := server.live) is not None:
                SentCall(self._context, caller, request, started, server, session, route, hold=self._hold_again)
                return
        server.retry_for_call()
        # A parked server is tried again in minutes, so holding the call would only delay its error.
        if not may_hold or server.status.state is State.PARKED:
            raise self._away(server)
        until = self._held_until(request, started, server)
        self._hold(HeldCall(self, caller, request, started, server.name), until)

    def _waits(self, caller: Caller, request: ClientRequest, started: float) -> bool:
        """Have a call of what nobody offers wait until somebody does, or all were heard; False where that is over."""
        until = self.first_sight.until()
        if until is None:
            return False
        self.first_sight.wait(
            caller,
            request,
            started,
            until=min(until, started + request.seconds(math.inf)),
            is_ready=lambda: is_offered(self._snapshot(), request),
            go=lambda: self._go_on(caller, request, started),
        )
        return True

    def _go_on(self, caller: Caller, request: ClientRequest, started: float) -> None:
        """Dispatch what has waited long enough."""
        try:
            self._dispatch(caller, request, started, may_hold=True)
        except RpcError as failure:
            self._context.done(request.method, "", "", "", started, str(failure.code))
            caller.answer_error(request.id, error_object(failure))

    def _hold(self, call: HeldCall, until: float) -> None:
        call.wait(self._context.call_at(until, lambda: self._release(call, may_hold=False)))
        self._held[call] = None

    def _hold_again(self, sent: SentCall) -> bool:
        """Have a call that was not carried out wait a moment and be sent again; False where its hold is over.

        A server elsewhere that is being restarted is away, whatever its state says.
        """
        until, now = self._held_until(sent.request, sent.started, sent.server), self._context.time()
        if now >= until:
            return False
        tool, kind = sent.tool, sent.server.transport_kind
        call = HeldCall(self, sent.caller, sent.request, sent.started, sent.server.name, tool=tool, kind=kind)
        again = min(now + SEND_AGAIN_AFTER, until)
        call.wait(self._context.call_at(again, lambda: self._release(call, may_hold=True)))
        self._held[call] = None
        return True

    def _held_until(self, request: ClientRequest, started: float, server: Server) -> float:
        hold = server.config.hold
        seconds = self._snapshot().config.daemon.hold if hold is None else hold
        return started + min(seconds, request.seconds(server.config.timeout))

    def _release(self, call: HeldCall, *, may_hold: bool) -> None:
        """Try once more to send a held call."""
        # It leaves both tables before it is dispatched: sending or holding it enters it anew.
        del self._held[call]
        call.stop_waiting()
        try:
            self._dispatch(call.caller, call.request, call.started, may_hold=may_hold)
        except RpcError as failure:
            self._refuse(call, failure, "unavailable")

    def _refuse(self, call: HeldCall, failure: RpcError, error: str) -> None:
        self._done(call, error)
        call.caller.answer_error(call.request.id, error_object(failure))

    def _done(self, call: HeldCall, error: str) -> None:
        self._context.done(call.request.method, call.server, call.tool, call.kind, call.started, error)

    def _away(self, server: Server) -> RpcError:
        status = server.status
        state = "away" if status.state in ROUTED else status.state.value
        message = f"server {server.name!r} is {state}"
        if status.failure is not None:
            message += f" ({status.failure.message})"
        if status.next_attempt is not None:
            message += f", next attempt in {max(0.0, status.next_attempt - self._context.time()):.1f} s"
        return self._context.unavailable(server, message)
