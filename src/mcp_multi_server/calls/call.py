"""One forwarded call: from a client's request to a server's answer, and what the server asks in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec

from ..core import jsonrpc, protocol
from ..core.errors import INVALID_PARAMS, RpcError
from ..core.index import Route
from ..core.input_requests import INPUT_REQUIRED
from ..core.jsonrpc import ABSENT, Buffer, Members, Message
from ..core.lifecycle import Failure
from ..core.links import renamed_links
from ..core.operation import Operation
from ..core.protocol import PROGRESS_TOKEN, Era
from ..servers.server import Server
from ..servers.session import ServerSession
from ..telemetry.tracing import Span, Tracer
from .request import Caller, ClientRequest

LONGEST_FACTOR = 10
"""Progress renews a call's deadline, up to this multiple of its timeout in all."""
THINKING = 600.0
"""Seconds that a client has for one question; meanwhile the deadline of its call stands still."""


class Questions(Protocol):
    """What a call uses of `Asking`."""

    def inquire(self, call: Call, result: bytes) -> bool:
        """Ask the client of a call what its server needs before it can answer; whether the result is such a need."""

    def left(self, call: Call) -> None:
        """A call has ended, and what was asked for its sake with it."""


class Dispatcher(Protocol):
    """What a call uses of the router."""

    @property
    def input_requests(self) -> Questions:
        """All that servers ask."""

    held: dict[Call, str]
    """Calls that were not sent yet, with the server that they wait for."""
    time: Callable[[], float]
    tracer: Tracer | None
    """Where spans are wanted, what makes them."""

    def rename(self, route: Route, method: str) -> Callable[[str], str]:
        """How URIs in that server's results are made to lead back to it."""

    def hold_on(self, call: Call, server: Server) -> bool:
        """Have a call that was not carried out wait a moment and be sent again; False where its hold is over."""

    def unavailable(
        self, server: Server, message: str, failure: Failure | None = None, *, reason: str | None = None
    ) -> RpcError:
        """The error for a call that its server could not answer."""

    def done(self, call: Call, error: str) -> None:
        """Tell that a call ended."""


class Open(Protocol):
    """What a client is asked for the sake of one call."""

    def end(self, reason: str) -> None:
        """The call does not need it any more."""


class Dialogue:
    """What a call has besides once its server asks its client for something."""

    __slots__ = ("extra", "kept", "left", "open", "rounds", "since", "state", "waits")

    def __init__(self) -> None:
        self.open: dict[str, Open] = {}
        """By the keys under which the client is asked."""
        self.state = ""
        """While the client is to come back with its answers: the `requestState` that it was given."""
        self.kept: Callable[[], None] | None = None
        """The end of the call that came meanwhile."""
        self.extra: Members = {}
        """Members that the call got when it was made once more."""
        self.rounds = 0
        self.waits = 0
        """Questions for which the deadline stands still, since the first one, with so many seconds left."""
        self.since = self.left = 0.0


class Call:
    """A Waiter for its server, a Cancellable for its client."""

    __slots__ = (
        "caller",
        "deadline",
        "dialogue",
        "hold",
        "latest",
        "request",
        "route",
        "router",
        "sent_as",
        "server",
        "server_name",
        "session",
        "span",
        "started",
        "token",
    )

    def __init__(self, router: Dispatcher, caller: Caller, request: ClientRequest, now: float) -> None:
        self.router = router
        self.caller = caller
        self.request = request
        self.started = now
        self.deadline = self.latest = now
        self.hold: asyncio.TimerHandle | None = None
        self.token = request.meta.get(PROGRESS_TOKEN) if request.meta else None
        self.server_name = ""
        self.span: Span | None = None
        self.sent_as = 0
        self.dialogue: Dialogue | None = None
        self.route: Route
        self.server: Server
        self.session: ServerSession

    @property
    def is_parked(self) -> bool:
        """Whether its client is to come back with answers, so that nobody waits for an answer to it now."""
        return self.dialogue is not None and self.dialogue.state != ""

    def send(self, server: Server, session: ServerSession, route: Route) -> None:
        """Forward the request; from here on the server is the one to wait for."""
        self.server, self.session, self.route = server, session, route
        timeout = server.config.timeout
        now = self.router.time()
        self.deadline, self.latest = now + timeout, now + LONGEST_FACTOR * timeout
        renamed = _renamed(self.request, route.name)  # may raise, so before anything is noted
        self.sent_as = session.pending.add(self)
        if self.router.tracer is not None:
            self.span = self._traced(self.router.tracer)
        session.send(self.sent_as, self.request.method, self._params(renamed))

    def settle(self, message: Message) -> None:
        """See Waiter."""
        if self.dialogue is not None and self.is_parked:
            self._keep(partial(self.settle, message))
            return
        try:
            if message.error is not ABSENT:
                payload, error = self._error(message.error)
                self._leave(error)
                self.caller.answer_error(self.request.id, payload)
            else:
                result = bytes(message.result)
                if self._is_asked(result):
                    return
                payload, error = self._result(result)
                self._leave(error)
                self.caller.answer(self.request.id, payload)
        except RpcError as unfit:
            self.refuse(unfit, str(unfit.code))

    def fail(self, failure: Failure) -> None:
        """See Waiter."""
        if failure.undone and not self.is_parked and self.router.hold_on(self, self.server):
            return
        became = "was not carried out" if failure.undone else "may or may not have been carried out"
        message = f"server {self.server.name!r}: {failure.message}; the call {became}"
        self.refuse(self.router.unavailable(self.server, message, failure), "unavailable")

    def expire(self) -> None:
        """See Waiter."""
        seconds = self.router.time() - self.started
        message = f"server {self.server.name!r} did not answer within {seconds:.3g} s"
        self.refuse(self.router.unavailable(self.server, message, reason="timeout"), "timeout")

    def progress(self, params: Members) -> None:
        """See Waiter: pass it on under the client's own token, and give the call more time."""
        if self.dialogue is None or not self.dialogue.waits:
            self.deadline = min(self.router.time() + self.server.config.timeout, self.latest)
        if self.token is not None:
            params[PROGRESS_TOKEN] = self.token
            self.caller.notify("notifications/progress", jsonrpc.encode(params))

    def cancel(self, reason: str) -> None:
        """See Cancellable."""
        if self.sent_as:
            self.session.cancel(self.sent_as, reason)
        self._leave("cancelled")

    def refuse(self, failure: RpcError, error: str) -> None:
        """Answer with an error of our own."""
        if self.is_parked:
            self._keep(partial(self.refuse, failure, error))
            return
        self._leave(error)
        self.caller.answer_error(self.request.id, jsonrpc.error_object(failure))

    # -- while the client is asked -------------------------------------------------------------------------------

    def talk(self) -> Dialogue:
        """What it has once something is asked."""
        self.dialogue = self.dialogue or Dialogue()
        return self.dialogue

    def stand_still(self) -> None:
        """A question is open: who thinks must not be late because of the call's deadline."""
        dialogue = self.talk()
        dialogue.waits += 1
        if dialogue.waits == 1:
            dialogue.since = self.router.time()
            dialogue.left = max(0.0, self.deadline - dialogue.since)
            self.deadline = dialogue.since + dialogue.left + THINKING

    def go_on(self) -> None:
        """A question is closed; after the last one the time that was left runs again."""
        dialogue = self.talk()
        dialogue.waits -= 1
        if dialogue.waits == 0:
            now = self.router.time()
            self.deadline, self.latest = now + dialogue.left, self.latest + now - dialogue.since
            self.session.pending.hasten(self.deadline)

    def park(self, state: str, payload: bytes) -> None:
        """Answer the client with what it is asked; it comes back with `state`, in a request of its own."""
        self.talk().state = state
        self.token = None
        self.caller.calls.pop(self.request.id, None)
        self.caller.answer(self.request.id, payload)

    def unpark(self, caller: Caller, request: ClientRequest) -> None:
        """The client is back, maybe over another connection."""
        self.talk().state = ""
        self.caller, self.request = caller, request
        self.token = request.meta.get(PROGRESS_TOKEN) if request.meta else None
        caller.calls[request.id] = self

    def again(self, extra: Members) -> None:
        """Make the call once more with what its server asked for; that is how the protocol has it answered."""
        dialogue = self.talk()
        dialogue.extra = extra
        session = self.server.live
        if session is None:
            message = f"server {self.server.name!r} went away while the client was asked for what it needs"
            self.refuse(self.router.unavailable(self.server, message), "unavailable")
            return
        self.send(self.server, session, self.route)

    def _is_asked(self, result: bytes) -> bool:
        """Whether a modern server asks a legacy client for something; then the call goes on."""
        assert self.session.negotiated is not None
        if self.request.era is Era.MODERN or self.session.negotiated.era is Era.LEGACY:
            return False
        return INPUT_REQUIRED in result and self.router.input_requests.inquire(self, result)

    def _keep(self, end: Callable[[], None]) -> None:
        """The call has ended while nobody waited for it: the client hears of it when it is back."""
        self.talk().kept = end

    # -- the end -------------------------------------------------------------------------------------------------

    def _leave(self, error: str) -> None:
        """End the row: whatever comes after does not concern this call."""
        if self.hold is not None:
            self.hold.cancel()
            self.router.held.pop(self, None)
        if self.caller.calls.get(self.request.id) is self:  # while it was parked, the client may have used the id again
            del self.caller.calls[self.request.id]
        if self.sent_as and (self.dialogue is not None or self.session.input_requests):
            self.router.input_requests.left(self)
        self.router.done(self, error)

    def _traced(self, tracer: Tracer) -> Span:
        """The span of this call, which the server gets as its parent; each round of it has one."""
        config, negotiated = self.server.config, self.session.negotiated
        assert negotiated is not None
        if self.span is not None:
            self.span.end("")
        operation = Operation(
            self.request.method, self.route.name, self.server_name, negotiated.version, config.url or "", self.sent_as
        )
        return tracer.begin(operation, self.request.meta, seconds_ago=self.router.time() - self.started)

    def _params(self, renamed: Members) -> Buffer:
        """The params to forward: the client's own bytes, except for what names and eras make different.

        The request stays what the client sent: a call may have to be sent once more, and resolved anew.
        """
        request = self.request
        assert self.session.negotiated is not None
        said = request.meta if self.span is None else self.span.meta
        meta = protocol.meta_for_server(
            said,
            client=request.era,
            server=self.session.negotiated.era,
            introduction=self.caller,
            token=self.sent_as if self.token is not None else None,
        )
        if meta is request.meta and not renamed and self.dialogue is None:
            return request.raw_params
        extra = self.dialogue.extra if self.dialogue is not None else {}
        params = {**request.params, **renamed, **extra}
        if meta is None:
            params.pop("_meta", None)
        elif meta is not request.meta:
            params["_meta"] = msgspec.Raw(jsonrpc.encode(meta))
        return jsonrpc.encode(params)

    def _result(self, result: bytes) -> tuple[Buffer, str]:
        """The result for the client, and `tool_error` where it says so itself."""
        assert self.session.negotiated is not None
        method = self.request.method
        payload: Buffer = result
        if b'"uri"' in result and method != "completion/complete":
            payload = renamed_links(result, method, self.router.rename(self.route, method))
        payload = protocol.result_for_client(
            payload, method=method, client=self.request.era, server=self.session.negotiated.era
        )
        failed = b'"isError"' in result and bytes(jsonrpc.members(result).get("isError", b"")) == b"true"
        return payload, "tool_error" if failed else ""

    def _error(self, error: Buffer) -> tuple[Buffer, str]:
        assert self.session.negotiated is not None
        server = self.session.negotiated.era
        payload = protocol.error_for_client(error, method=self.request.method, client=self.request.era, server=server)
        return payload, bytes(jsonrpc.members(error).get("code", b"")).decode()


def calls_on(session: ServerSession) -> list[Call]:
    """The calls that are with a server, the oldest first."""
    return [waiter for waiter in session.pending.waiters() if isinstance(waiter, Call)]


def reference(request: ClientRequest) -> tuple[str, str]:
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


def _renamed(request: ClientRequest, name: str) -> Members:
    """The params that differ where the server's own name or URI stands in the place of the client's."""
    if request.method == "completion/complete":
        kind, target = reference(request)
        if target == name:
            return {}
        ref = jsonrpc.members(request.params["ref"])
        ref["name" if kind == "ref/prompt" else "uri"] = msgspec.Raw(jsonrpc.encode(name))
        return {"ref": msgspec.Raw(jsonrpc.encode(ref))}
    member = "uri" if request.method == "resources/read" else "name"
    return {} if request.string(member) == name else {member: msgspec.Raw(jsonrpc.encode(name))}
