"""Forwarded calls: rows in a table, from a client's request to a server's answer, without a task or an await.

A call is sent at most once. While its server is away it is held, at most for `hold` seconds and never past its own
deadline; what was never sent can wait without harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from ..core import jsonrpc, protocol
from ..core.catalog import Kind
from ..core.errors import INTERNAL_ERROR, INVALID_PARAMS, RESOURCE_NOT_FOUND_LEGACY, RpcError
from ..core.events import Observer, RequestDone
from ..core.index import Route, Unroutable
from ..core.jsonrpc import ABSENT, Buffer, Members, Message
from ..core.lifecycle import ROUTED, Failure, State
from ..core.links import renamed_links
from ..core.operation import Operation
from ..core.protocol import PROGRESS_TOKEN, Era
from ..core.uri import namespaced
from .connection import Connection
from .conversation import Conversation
from .request import Caller, Request, too_deep
from .snapshot import Snapshot
from .tracing import Span, Tracer

METHODS = frozenset({"tools/call", "prompts/get", "resources/read", "completion/complete"})
"""What is forwarded to the server that owns the name or URI."""
LONGEST_SHOWN = 200
"""Characters of a name in an error."""
LINKS_LOOKED_UP = 256
"""Links of one result whose way back is looked for, as each may mean a look at every template of every server."""
LONGEST_FACTOR = 10
"""Progress renews a call's deadline, up to this multiple of its timeout in all."""


class Call:
    """One forwarded call; a Waiter for its server, a Cancellable for its client."""

    __slots__ = (
        "caller",
        "connection",
        "conversation",
        "deadline",
        "hold",
        "latest",
        "request",
        "route",
        "router",
        "sent_as",
        "server",
        "span",
        "started",
        "token",
    )

    def __init__(self, router: Router, caller: Caller, request: Request, now: float) -> None:
        self.router = router
        self.caller = caller
        self.request = request
        self.started = now
        self.deadline = self.latest = now
        self.hold: asyncio.TimerHandle | None = None
        self.token = request.meta.get(PROGRESS_TOKEN) if request.meta else None
        self.server = ""
        self.span: Span | None = None
        self.sent_as = 0
        self.route: Route
        self.connection: Connection
        self.conversation: Conversation

    def send(self, connection: Connection, conversation: Conversation, route: Route) -> None:
        """Forward the request; from here on the server is the one to wait for."""
        self.connection, self.conversation, self.route = connection, conversation, route
        timeout = connection.config.timeout
        now = self.router.time()
        self.deadline, self.latest = now + timeout, now + LONGEST_FACTOR * timeout
        renamed = _renamed(self.request, route.name)  # may raise, so before anything is noted
        self.sent_as = conversation.pending.add(self)
        if self.router.tracer is not None:
            self.span = self._traced(self.router.tracer)
        conversation.send(self.sent_as, self.request.method, self._params(renamed))

    def settle(self, message: Message) -> None:
        """See Waiter."""
        try:
            if message.error is not ABSENT:
                payload, error = self._error(message.error)
                self._leave(error)
                self.caller.answer_error(self.request.id, payload)
            else:
                payload, error = self._result(bytes(message.result))
                self._leave(error)
                self.caller.answer(self.request.id, payload)
        except RpcError as unfit:
            self.refuse(unfit, str(unfit.code))

    def fail(self, failure: Failure) -> None:
        """See Waiter."""
        message = f"server {self.connection.name!r}: {failure.message}; the call may or may not have been carried out"
        self.refuse(self.router.unavailable(self.connection, message, failure), "unavailable")

    def expire(self) -> None:
        """See Waiter."""
        seconds = self.router.time() - self.started
        message = f"server {self.connection.name!r} did not answer within {seconds:.3g} s"
        self.refuse(self.router.unavailable(self.connection, message), "timeout")

    def progress(self, params: Members) -> None:
        """See Waiter: pass it on under the client's own token, and give the call more time."""
        self.deadline = min(self.router.time() + self.connection.config.timeout, self.latest)
        if self.token is not None:
            params[PROGRESS_TOKEN] = self.token
            self.caller.notify("notifications/progress", jsonrpc.encode(params))

    def cancel(self, reason: str) -> None:
        """See Cancellable."""
        if self.sent_as:
            self.conversation.cancel(self.sent_as, reason)
        self._leave("cancelled")

    def refuse(self, failure: RpcError, error: str) -> None:
        """Answer with an error of our own."""
        self._leave(error)
        self.caller.answer_error(self.request.id, jsonrpc.error_object(failure))

    def _leave(self, error: str) -> None:
        """End the row: whatever comes after does not concern this call."""
        if self.hold is not None:
            self.hold.cancel()
            self.router.held.pop(self, None)
        self.caller.calls.pop(self.request.id, None)
        self.router.done(self, error)

    def _traced(self, tracer: Tracer) -> Span:
        """The span of this call, which the server gets as its parent."""
        config, negotiated = self.connection.config, self.conversation.negotiated
        assert negotiated is not None
        operation = Operation(
            self.request.method, self.route.name, self.server, negotiated.version, config.url or "", self.sent_as
        )
        return tracer.begin(operation, self.request.meta, seconds_ago=self.router.time() - self.started)

    def _params(self, renamed: bool) -> Buffer:
        """The params to forward: the client's own bytes, except for what names and eras make different."""
        request = self.request
        assert self.conversation.negotiated is not None
        said = request.meta if self.span is None else self.span.meta
        meta = protocol.meta_for_server(
            said,
            client=request.era,
            server=self.conversation.negotiated.era,
            client_info=self.caller.client_info,
            token=self.sent_as if self.token is not None else None,
        )
        if meta is request.meta and not renamed:
            return request.raw_params
        if meta is None:
            request.params.pop("_meta", None)
        elif meta is not request.meta:
            request.params["_meta"] = msgspec.Raw(jsonrpc.encode(meta))
        return jsonrpc.encode(request.params)

    def _result(self, result: bytes) -> tuple[Buffer, str]:
        """The result for the client, and `tool_error` where it says so itself."""
        assert self.conversation.negotiated is not None
        method = self.request.method
        payload: Buffer = result
        if b'"uri"' in result and method != "completion/complete":
            payload = renamed_links(result, method, self.router.rename(self.route, method))
        payload = protocol.result_for_client(
            payload, method=method, client=self.request.era, server=self.conversation.negotiated.era
        )
        failed = b'"isError"' in result and bytes(jsonrpc.members(result).get("isError", b"")) == b"true"
        return payload, "tool_error" if failed else ""

    def _error(self, error: Buffer) -> tuple[Buffer, str]:
        assert self.conversation.negotiated is not None
        server = self.conversation.negotiated.era
        payload = protocol.error_for_client(error, method=self.request.method, client=self.request.era, server=server)
        return payload, bytes(jsonrpc.members(error).get("code", b"")).decode()


class Router:
    """Finds the server for each request and keeps the calls that wait for one."""

    def __init__(self, snapshot: Callable[[], Snapshot], *, observe: Observer, wall: Callable[[float], str]) -> None:
        self._snapshot = snapshot
        self._observe = observe
        self._wall = wall
        self.time = asyncio.get_running_loop().time
        self._call_at = asyncio.get_running_loop().call_at
        self.tracer: Tracer | None = None
        """Where spans are wanted, what makes them."""
        self.held: dict[Call, str] = {}
        """Calls that were not sent yet, with the server that they wait for."""

    def forward(self, caller: Caller, request: Request) -> None:
        """Take up a request; it is answered through `caller`. Raises RpcError where nothing can answer it."""
        call = Call(self, caller, request, self.time())
        if self._dispatch(call, may_hold=True):
            caller.calls[request.id] = call

    def changed(self, changed: frozenset[Kind], connection: Connection | None) -> None:
        """A new snapshot: send, or give up, what was held for that server. A `supervisor.Listener`."""
        if connection is None or not self.held:
            return
        for call in [call for call, server in self.held.items() if server == connection.name]:
            if connection.live is not None:
                self._release(call, may_hold=False)
            elif connection.status.state in (State.PARKED, State.DISABLED):
                self._give_up(call)
            else:
                connection.kick()

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

    def unavailable(self, connection: Connection, message: str, failure: Failure | None = None) -> RpcError:
        """The error for a call that its server could not answer: names it, its state and the next attempt."""
        status = connection.status
        why = failure or (None if status.state in ROUTED else status.failure)
        retry_at = None if status.next_attempt is None else self._wall(status.next_attempt)
        data = {
            "server": connection.name,
            "state": status.state.value,
            "reason": why.reason.value if why else None,
            "retryAt": retry_at,
        }
        return RpcError(INTERNAL_ERROR, message, data)

    def done(self, call: Call, error: str) -> None:
        """Tell that a call ended."""
        if call.span is not None:
            call.span.end(error)
        tool = call.route.name if call.sent_as and call.request.method == "tools/call" else ""
        kind = call.connection.transport_kind if call.sent_as else ""
        seconds = self.time() - call.started
        self._observe(RequestDone(call.request.method, call.server, tool, kind, seconds, error))

    def _dispatch(self, call: Call, *, may_hold: bool) -> bool:
        """Send the call where its server is there, hold it where it is away; whether it now waits.

        Raises RpcError where there is no such server, or where it is away and the call must not wait.
        """
        snapshot = self._snapshot()
        try:
            route = _resolve(snapshot, call.request)
        except RpcError:
            connection = _starting_owner(snapshot, call.request)
            if connection is None:
                raise
        else:
            connection = snapshot.connections[route.server]
            call.server = route.server
            if (conversation := connection.live) is not None:
                call.send(connection, conversation, route)
                return True
        call.server = connection.name
        connection.kick()
        if not may_hold or connection.status.state is State.PARKED:
            raise self._away(connection)
        self._hold(call, connection)
        return True

    def _hold(self, call: Call, connection: Connection) -> None:
        hold = connection.config.hold
        seconds = self._snapshot().config.daemon.hold if hold is None else hold
        until = call.started + min(seconds, connection.config.timeout)
        call.hold = self._call_at(until, self._give_up, call)
        self.held[call] = connection.name

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

    def _away(self, connection: Connection) -> RpcError:
        status = connection.status
        state = "away" if status.state in ROUTED else status.state.value
        message = f"server {connection.name!r} is {state}"
        if status.failure is not None:
            message += f" ({status.failure.message})"
        if status.next_attempt is not None:
            message += f", next attempt in {max(0.0, status.next_attempt - self.time()):.1f} s"
        return self.unavailable(connection, message)


def _resolve(snapshot: Snapshot, request: Request) -> Route:
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


def _resolve_reference(snapshot: Snapshot, request: Request) -> Route:
    kind, target = _reference(request)
    try:
        return snapshot.index.completion(kind, target)
    except Unroutable as unknown:
        raise RpcError(INVALID_PARAMS, unknown.message) from None


def _reference(request: Request) -> tuple[str, str]:
    """The type and the name or URI of a completion's `ref`."""
    try:
        ref = jsonrpc.members(request.params["ref"])
    except (KeyError, msgspec.ValidationError):
        raise RpcError(INVALID_PARAMS, "params.ref must be an object") from None
    kind = jsonrpc.text(ref.get("type"))
    member = {"ref/prompt": "name", "ref/resource": "uri"}.get(kind or "")
    if kind is None or member is None:
        raise RpcError(INVALID_PARAMS, "params.ref.type must be ref/prompt or ref/resource")
    target = jsonrpc.text(ref.get(member))
    if target is None:
        raise RpcError(INVALID_PARAMS, f"params.ref.{member} must be a string")
    return kind, target


def _renamed(request: Request, name: str) -> bool:
    """Put the server's own name or URI into the params; whether that made a difference."""
    if request.method == "completion/complete":
        kind, target = _reference(request)
        if target == name:
            return False
        ref = jsonrpc.members(request.params["ref"])
        ref["name" if kind == "ref/prompt" else "uri"] = msgspec.Raw(jsonrpc.encode(name))
        request.params["ref"] = msgspec.Raw(jsonrpc.encode(ref))
        return True
    member = "uri" if request.method == "resources/read" else "name"
    if request.string(member) == name:
        return False
    request.params[member] = msgspec.Raw(jsonrpc.encode(name))
    return True


def _starting_owner(snapshot: Snapshot, request: Request) -> Connection | None:
    """The server that a qualified name or namespaced URI speaks of and whose lists were not read of late."""
    if request.method == "completion/complete":
        target = _reference(request)[1]
    else:
        target = request.string("uri" if request.method == "resources/read" else "name")
    separator = snapshot.config.daemon.separator
    meant = [
        connection
        for name, connection in snapshot.connections.items()
        if target.startswith((f"{snapshot.config.prefix_of(name)}{separator}", f"{name}:"))
        and (connection.catalog is None or connection.stale)
        and connection.status.state not in ROUTED
    ]
    return max(meant, key=lambda connection: len(connection.name), default=None)
