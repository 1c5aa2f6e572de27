"""Forwarded calls: rows in a table, from a client's request to a server's answer, without a task or an await.

A call is sent at most once. While its server is away it is held, at most for `hold` seconds and never past its own
deadline; what was never sent can wait without harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from ..core.catalog import Kind
from ..core.errors import INTERNAL_ERROR, INVALID_PARAMS, RESOURCE_NOT_FOUND_LEGACY, RpcError
from ..core.events import Observer, RequestDone
from ..core.index import Route, Unroutable
from ..core.jsonrpc import Message
from ..core.lifecycle import ROUTED, Failure, State
from ..core.protocol import Era
from ..core.settings import ServerConfig
from ..core.uri import namespaced
from ..servers.server import Server
from ..servers.session import ServerSession
from ..servers.snapshot import Snapshot
from ..telemetry.tracing import Tracer
from .call import Call, reference
from .input_requests import InputRequests
from .request import Caller, ClientRequest, too_deep
from .server_logs import METHOD as LOG_METHOD
from .server_logs import ServerLogs

METHODS = frozenset({"tools/call", "prompts/get", "resources/read", "completion/complete"})
"""What is forwarded to the server that owns the name or URI."""
LONGEST_SHOWN = 200
"""Characters of a name in an error."""
SEND_AGAIN_AFTER = 0.25
"""Seconds until a call is tried again whose server took no connection, or knew its session no more."""
LINKS_LOOKED_UP = 256
"""Links of one result whose way back is looked for, as each may mean a look at every template of every server."""


class Router:
    """Finds the server for each request and keeps the calls that wait for one. A `connection.Host`.

    `abilities`: what its one client can be asked, where it works for a single one; None for a daemon's.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        *,
        tell: Observer,
        wall: Callable[[float], str],
        abilities: frozenset[str] | None = None,
    ) -> None:
        self.input_requests = InputRequests(tell=tell, abilities=abilities)
        self.logs = ServerLogs(snapshot)
        self._snapshot = snapshot
        self._tell = tell
        self._wall = wall
        self.time = asyncio.get_running_loop().time
        self._call_at = asyncio.get_running_loop().call_at
        self.tracer: Tracer | None = None
        """Where spans are wanted, what makes them."""
        self.held: dict[Call, str] = {}
        """Calls that were not sent yet, with the server that they wait for."""

    def forward(self, caller: Caller, request: ClientRequest) -> None:
        """Take up a request; it is answered through `caller`. Raises RpcError where nothing can answer it."""
        if "requestState" in request.params and self.input_requests.resume(caller, request):
            return
        call = Call(self, caller, request, self.time())
        if self._dispatch(call, may_hold=True):
            caller.calls[request.id] = call

    def changed(self, changed: frozenset[Kind], server: Server | None) -> None:
        """A new snapshot: send, or give up, what was held for that server. A `supervisor.Listener`."""
        if server is not None:
            self.logs.changed(server)
        if server is None or not self.held:
            return
        for call in [call for call, name in self.held.items() if name == server.name]:
            if server.live is not None:
                self._release(call, may_hold=False)
            elif server.status.state in (State.PARKED, State.DISABLED):
                self._give_up(call)
            else:
                server.kick()

    def rename(self, route: Route, method: str) -> Callable[[str], str]:
        """How URIs in that server's results are made to lead back to it.

        A read comes back in the form it was asked in; elsewhere only what would lead astray gets the server's name.
        """
        index = self._snapshot().index
        if method == "resources/read":
            return (lambda uri: namespaced(route.server, uri)) if route.namespaced else (lambda uri: uri)
        looked_up = 0

        def lead_back(uri: str) -> str:
            nonlocal looked_up
            looked_up += 1  # with the server's name in front it leads back in any case
            is_fine = looked_up <= LINKS_LOOKED_UP and index.routes_back(uri, route.server)
            return uri if is_fine else namespaced(route.server, uri)

        return lead_back

    def hold_on(self, call: Call, server: Server) -> bool:
        """See Dispatcher: a server elsewhere that is being restarted is away, whatever its state says."""
        until, now = self._held_until(call, server), self.time()
        if now >= until:
            return False
        call.hold = self._call_at(min(now + SEND_AGAIN_AFTER, until), partial(self._release, call, may_hold=True))
        self.held[call] = server.name
        return True

    def unavailable(
        self, server: Server, message: str, failure: Failure | None = None, *, reason: str | None = None
    ) -> RpcError:
        """The error for a call that its server could not answer: names it, its state and the next attempt.

        `reason`: the call's own, where the server's state says nothing of it.
        """
        status = server.status
        why = failure or (None if status.state in ROUTED else status.failure)
        retry_at = None if status.next_attempt is None else self._wall(status.next_attempt)
        data = {
            "server": server.name,
            "state": status.state.value,
            "reason": why.reason.value if why else reason,
            "retryAt": retry_at,
        }
        return RpcError(INTERNAL_ERROR, message, data)

    def done(self, call: Call, error: str) -> None:
        """Tell that a call ended."""
        if call.span is not None:
            call.span.end(error)
        tool = call.route.name if call.sent_as and call.request.method == "tools/call" else ""
        kind = call.server.transport_kind if call.sent_as else ""
        seconds = self.time() - call.started
        self._tell(RequestDone(call.request.method, call.server_name, tool, kind, seconds, error))

    # -- what servers ask and tell (see connection.Host) -----------------------------------------------------------

    def capabilities(self, config: ServerConfig) -> dict[str, Any]:
        """See Host."""
        return self.input_requests.declared(config)

    def asked(self, server: Server, session: ServerSession, message: Message) -> None:
        """See Host."""
        self.input_requests.asked(server, session, message)

    def told(self, server: Server, session: ServerSession, message: Message) -> None:
        """See Host."""
        if message.method == LOG_METHOD:
            self.logs.told(server, session, message)
        elif message.method == "notifications/cancelled":
            self.input_requests.taken_back(session, message)
        elif message.method == "notifications/elicitation/complete":
            self.input_requests.completed(message)

    def gone(self, caller: Caller) -> None:
        """A client is gone, and its calls with it."""
        self.logs.forget(caller)
        self.input_requests.gone(caller)

    # -- finding the server ----------------------------------------------------------------------------------------

    def _dispatch(self, call: Call, *, may_hold: bool) -> bool:
        """Send the call where its server is there, hold it where it is away; whether it now waits.

        Raises RpcError where there is no such server, or where it is away and the call must not wait.
        """
        snapshot = self._snapshot()
        try:
            route = _resolve(snapshot, call.request)
        except RpcError:
            server = _starting_owner(snapshot, call.request)
            if server is None:
                raise
        else:
            server = snapshot.servers[route.server]
            call.server_name = route.server
            if (session := server.live) is not None:
                call.send(server, session, route)
                return True
        call.server_name = server.name
        server.kick()
        if not may_hold or server.status.state is State.PARKED:
            raise self._away(server)
        self._hold(call, server)
        return True

    def _hold(self, call: Call, server: Server) -> None:
        call.hold = self._call_at(self._held_until(call, server), self._give_up, call)
        self.held[call] = server.name

    def _held_until(self, call: Call, server: Server) -> float:
        hold = server.config.hold
        seconds = self._snapshot().config.daemon.hold if hold is None else hold
        return call.started + min(seconds, server.config.timeout)

    def _release(self, call: Call, *, may_hold: bool) -> None:
        """Try once more to send a held call."""
        self.held.pop(call, None)
        if call.hold is not None:
            call.hold.cancel()
        try:
            self._dispatch(call, may_hold=may_hold)
        except RpcError as failure:
            call.refuse(failure, "unavailable")
        except RecursionError:
            call.refuse(too_deep(), str(INVALID_PARAMS))

    def _give_up(self, call: Call) -> None:
        self._release(call, may_hold=False)

    def _away(self, server: Server) -> RpcError:
        status = server.status
        state = "away" if status.state in ROUTED else status.state.value
        message = f"server {server.name!r} is {state}"
        if status.failure is not None:
            message += f" ({status.failure.message})"
        if status.next_attempt is not None:
            message += f", next attempt in {max(0.0, status.next_attempt - self.time()):.1f} s"
        return self.unavailable(server, message)


def _resolve(snapshot: Snapshot, request: ClientRequest) -> Route:
    """Where a request goes. Raises RpcError -32602 (-32002 for a legacy read) where nowhere."""
    index, method = snapshot.index, request.method
    if method == "resources/read":
        try:
            return index.resource(request.string("uri"))
        except Unroutable as unknown:
            code = RESOURCE_NOT_FOUND_LEGACY if request.era is Era.LEGACY else INVALID_PARAMS
            raise RpcError(code, unknown.message, {"uri": request.string("uri")}) from None
    if method == "completion/complete":
        return _resolve_reference(snapshot, request)
    name = request.string("name")
    route = index.tool(name) if method == "tools/call" else index.prompt(name)
    if route is None:
        kind = "tool" if method == "tools/call" else "prompt"
        raise RpcError(INVALID_PARAMS, f"Unknown {kind}: {name[:LONGEST_SHOWN]}")
    return route


def _resolve_reference(snapshot: Snapshot, request: ClientRequest) -> Route:
    kind, target = reference(request)
    try:
        return snapshot.index.completion(kind, target)
    except Unroutable as unknown:
        raise RpcError(INVALID_PARAMS, unknown.message) from None


def _starting_owner(snapshot: Snapshot, request: ClientRequest) -> Server | None:
    """The server that a qualified name or namespaced URI speaks of and whose lists were not read of late."""
    if request.method == "completion/complete":
        target = reference(request)[1]
    else:
        target = request.string("uri" if request.method == "resources/read" else "name")
    separator = snapshot.config.daemon.separator
    meant = [
        server
        for name, server in snapshot.servers.items()
        if target.startswith((f"{snapshot.config.prefix_of(name)}{separator}", f"{name}:"))
        and (server.catalog is None or server.stale)
        and server.status.state not in ROUTED
    ]
    return max(meant, key=lambda server: len(server.name), default=None)
