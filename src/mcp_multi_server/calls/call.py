"""One forwarded call that is with its server: from sending it to the answer, the error or the end of patience."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from ..core import input_requests, jsonrpc, protocol
from ..core.errors import INTERNAL_ERROR, INVALID_PARAMS, RpcError
from ..core.input_requests import INPUT_REQUIRED
from ..core.jsonrpc import ABSENT, Buffer, Members, Message, TooDeep
from ..core.lifecycle import Failure
from ..core.names import Route
from ..core.protocol import PROGRESS_TOKEN, Era
from ..core.resource_links import renamed_links
from ..core.spans import Operation
from ..servers.server import Server
from ..servers.session import ServerSession
from ..telemetry.tracing import Span, Tracer
from .context import CallContext
from .input_request import PERSON_ANSWERS_WITHIN, InputRequest, InputRound
from .request import Caller, ClientRequest

LONGEST_FACTOR = 10
"""Progress renews a call's deadline, up to this multiple of its server's timeout in all."""
ROUNDS = 10
"""Times that a modern server may answer one call by asking for input."""
OVER = "the call for which it was asked has ended"


class PostponedAnswer:
    """What a call has once its modern client is asked for input by the answer to it (2026-07-28, basic/patterns/mrtr).

    The call makes it when the first input request comes for it, and keeps it to its end.
    """

    __slots__ = ("open", "outcome", "state")

    def __init__(self) -> None:
        self.open: dict[str, InputRequest] = {}
        """Input requests that the client has not answered, by the keys under which it is asked."""
        self.state = ""
        """The `requestState` that the client comes back with; "" while it waits for an answer as others do."""
        self.outcome: Callable[[], None] | None = None
        """How the call ended while its client was away: carried out when the client is back."""


class SentCall:
    """A client's request that is with a server. The router makes and sends it; it writes its own state alone.

    As the waiter of its server's session it is told of the answer, its loss or its deadline; as an open request of its
    client it can be cancelled. Whichever comes first takes it out of both tables, so that it ends once.
    """

    __slots__ = (
        "_context",
        "_extra",
        "_hold",
        "_latest",
        "_not_late_before",
        "_paused_at",
        "_pauses",
        "_round",
        "_rounds",
        "_span",
        "_time_left",
        "_token",
        "caller",
        "deadline",
        "id",
        "postponed",
        "request",
        "route",
        "server",
        "session",
        "started",
    )  # fmt: skip

    def __init__(
        self,
        context: CallContext,
        caller: Caller,
        request: ClientRequest,
        started: float,
        server: Server,
        session: ServerSession,
        route: Route,
        *,
        hold: Callable[[SentCall], bool],
        rounds: int = 0,
        extra: Members | None = None,
    ) -> None:
        """Send it.

        Args:
            context: What the router gives every call.
            caller: The client, which is answered.
            request: What it sent.
            started: Loop time at which the request came.
            server: The server that `route` leads to.
            session: Its session, which is live.
            route: The server's own name for what is requested.
            hold: Has a request that was not carried out wait and be sent anew; False where it does not.
            rounds: How often the server asked for input before.
            extra: Members that the params get then, with the client's input.

        Raises:
            RpcError: the params are not what the method takes.

        """
        changed = request.renamed(route.name)  # may raise, so before anything is noted
        self.caller = caller
        self.request = request
        self.started = started
        self.server = server
        self.session = session
        self.route = route
        self.postponed: PostponedAnswer | None = None
        self._context = context
        self._hold = hold
        self._extra = extra
        self._token = request.meta.get(PROGRESS_TOKEN) if request.meta else None
        self._round: InputRound | None = None
        self._rounds = rounds
        self._pauses = 0
        self._paused_at = self._time_left = 0.0
        # The time starts when the request is sent: waiting for the server had its own limit, the hold.
        now, timeout = context.time(), request.seconds(server.config.timeout)
        self.deadline, self._latest = now + timeout, now + LONGEST_FACTOR * timeout
        self._not_late_before = now + server.config.timeout
        # The id is needed for the params: it is the token under which the server reports progress.
        self.id = session.pending.add(self)
        self._span: Span | None = None if context.tracer is None else self._traced(context.tracer)
        try:
            session.send(self.id, request.method, self._params(changed))
        except Exception:  # params that are nested too deeply to be written here: nothing may be left of the call
            session.pending.take(self.id)
            self._end_span(str(INVALID_PARAMS))
            raise
        caller.open_requests.add(request.id, self)

    @property
    def tool(self) -> str:
        """The server's own name of the tool that is called; "" for other methods."""
        return self.route.name if self.request.method == "tools/call" else ""

    # -- what the server's session tells (see servers.pending.Waiter) ----------------------------------------------

    @property
    def silent_until(self) -> float:
        """A client in a hurry says nothing about the server: what counts is the time that its entry gives a call."""
        return max(self.deadline, self._not_late_before)

    def settle(self, message: Message) -> None:
        """The server answered: so is the client, unless the answer is that the server needs input first."""
        if self.postponed is not None and self._keeps(partial(self.settle, message)):
            return
        try:
            if message.error is not ABSENT:
                payload, error = self._error(message.error)
                self._finish(error)
                self.caller.answer_error(self.request.id, payload)
                return
            result = bytes(message.result)
            # Within one era what asks for input is the client's to understand, and a legacy server asks by requests.
            if self.request.era is Era.LEGACY and self.session.negotiated.era is Era.MODERN and self._asks(result):
                return
            payload, error = self._result(result)
            self._finish(error)
            self.caller.answer(self.request.id, payload)
        except TooDeep:
            raise  # it is the server's answer that is at fault, and its session says so
        except RpcError as unfit:
            self.refuse(unfit, str(unfit.code))

    def fail(self, failure: Failure) -> None:
        """The request or its answer was lost; what was certainly not carried out is sent again."""
        # A postponed call has no client that waits, and is not sent anew for one that may never come back.
        if failure.undone and not self.is_postponed and self._hold(self):
            self._end_span("")
            return
        became = "was not carried out" if failure.undone else "may or may not have been carried out"
        message = f"server {self.server.name!r}: {failure.message}; the call {became}"
        self.refuse(self._context.unavailable(self.server, message, failure), "unavailable")

    def expire(self) -> None:
        """The deadline passed."""
        seconds = self._context.time() - self.started
        message = f"server {self.server.name!r} did not answer within {seconds:.3g} s"
        self.refuse(self._context.unavailable(self.server, message, reason="timeout"), "timeout")

    def progress(self, params: Members) -> None:
        """The server is at work: tell the client under its own token, and give the call more time."""
        if not self._pauses:
            # Capped, since a server that reports progress for ever must not keep a call for ever.
            timeout = self.request.seconds(self.server.config.timeout)
            self.deadline = min(self._context.time() + timeout, self._latest)
        if self._token is not None:
            params[PROGRESS_TOKEN] = self._token
            self.caller.notify("notifications/progress", jsonrpc.encode(params))

    # -- what the client does, and we in the server's place --------------------------------------------------------

    def cancel(self, reason: str) -> None:
        """The client gave the call up or is gone: tell the server; nobody is answered."""
        self.session.cancel(self.id, reason)
        self._finish("cancelled")

    def refuse(self, failure: RpcError, error: str) -> None:
        """Answer the client with an error of ours. `error`: what events and metrics say of it."""
        if self.postponed is not None and self._keeps(partial(self.refuse, failure, error)):
            return
        self._finish(error)
        self.caller.answer_error(self.request.id, jsonrpc.error_object(failure))

    # -- while the client is asked for input -----------------------------------------------------------------------

    def pause_deadline(self) -> None:
        """An input request is open: a person who thinks must not make the call late."""
        self._pauses += 1
        if self._pauses == 1:
            self._paused_at = self._context.time()
            self._time_left = max(0.0, self.deadline - self._paused_at)
            self.deadline = self._paused_at + self._time_left + PERSON_ANSWERS_WITHIN

    def resume_deadline(self) -> None:
        """An input request is closed; after the last one the time that was left runs again."""
        self._pauses -= 1
        if self._pauses == 0:
            now = self._context.time()
            self.deadline, self._latest = now + self._time_left, self._latest + now - self._paused_at
            # The table's timer was set for the later deadline.
            self.session.pending.hasten(self.deadline)

    @property
    def is_postponed(self) -> bool:
        """Whether its client is to come back with input, so that nobody waits for an answer to it now."""
        return self.postponed is not None and self.postponed.state != ""

    def postponable(self) -> PostponedAnswer:
        """What it has, from now on, as the call of a modern client that is asked by its answer."""
        if self.postponed is None:
            self.postponed = PostponedAnswer()
        return self.postponed

    def postpone(self, state: str) -> None:
        """Answer the client with all that is asked of it; it comes back with `state`, in a request of its own."""
        postponed = self.postponable()
        postponed.state = state
        self._token = None  # progress of a request that has its answer would reach nobody
        asked = {key: (one.method, one.payload) for key, one in postponed.open.items()}
        self.caller.open_requests.remove(self.request.id, self)
        self.caller.answer(self.request.id, input_requests.needs_input_result(asked, state))
        self._context.done(self.request.method, "", "", "", self.started, "")

    def resume(self, caller: Caller, request: ClientRequest) -> None:
        """The client is back with `request`, maybe over another connection; what has come meanwhile is told now."""
        self.postponable().state = ""
        self.caller, self.request = caller, request
        self._token = request.meta.get(PROGRESS_TOKEN) if request.meta else None
        caller.open_requests.add(request.id, self)

    def abandon(self, reason: str) -> None:
        """The client did not come back."""
        self.postponable().state = ""
        self.cancel(reason)

    def give_up(self, failure: RpcError) -> None:
        """The client cannot be asked for what is still open: tell both sides."""
        self.session.cancel(self.id, failure.message)
        self.refuse(failure, str(failure.code))

    def _keeps(self, outcome: Callable[[], None]) -> bool:
        """Keep the outcome until the client is back; False where the client waits for it now."""
        postponed = self.postponable()
        if not postponed.state:
            return False
        postponed.outcome = outcome
        return True

    def _asks(self, result: bytes) -> bool:
        """Whether a modern server asks for input instead of answering; then the legacy client is asked for it now.

        Raises RpcError where it cannot be asked.
        """
        needed = input_requests.input_needed(result) if INPUT_REQUIRED in result else None
        if needed is None:
            return False
        if self._rounds >= ROUNDS:
            raise RpcError(INTERNAL_ERROR, f"server {self.server.name!r} asked for input more than {ROUNDS} times")
        self._round = InputRound(
            self.caller, self.server.name, needed, answered=self._send_again, refused=self._refuse_for_input
        )
        self._round.begin()
        return True

    def _send_again(self, extra: Members) -> None:
        """Make the call once more with the input that its server asked for, as the protocol has it."""
        self._round = None
        session = self.server.live
        if session is None:
            message = f"server {self.server.name!r} went away while the client was asked for what it needs"
            self.refuse(self._context.unavailable(self.server, message), "unavailable")
            return
        self._end_span("")
        SentCall(
            self._context,
            self.caller,
            self.request,
            self.started,
            self.server,
            session,
            self.route,
            hold=self._hold,
            rounds=self._rounds + 1,
            extra=extra,
        )

    def _refuse_for_input(self, why: str) -> None:
        failure = RpcError(INTERNAL_ERROR, f"server {self.server.name!r} asked for input: {why}")
        self.refuse(failure, str(INTERNAL_ERROR))

    # -- the end -------------------------------------------------------------------------------------------------

    def _finish(self, error: str) -> None:
        """Leave the client's table and tell the end; whatever comes after does not concern this call."""
        self.caller.open_requests.remove(self.request.id, self)
        if self._round is not None or self.session.input_requests:
            self._end_input_requests()
        if self._span is not None:
            self._span.end(error)
        method = self.request.method
        tool = self.route.name if method == "tools/call" else ""
        self._context.done(method, self.route.server, tool, self.server.transport_kind, self.started, error)

    def _end_input_requests(self) -> None:
        """End what was asked for this call's sake, as far as that can be told.

        No request of a legacy server says which call it is for: while another call of the same client is with that
        server, it may be that one's.
        """
        if self._round is not None:
            self._round.end(OVER)
        if self.postponed is not None:
            for mine in list(self.postponed.open.values()):
                mine.refuse(OVER)
        if any(other.caller is self.caller for other in calls_on(self.session)):
            return
        for one in list(self.session.input_requests.values()):
            if isinstance(one, InputRequest) and one.is_for_call and one.caller is self.caller:
                # One that was asked for no call, of a client whose servers these are, stays open.
                one.refuse(OVER)

    def _end_span(self, error: str) -> None:
        if self._span is not None:
            self._span.end(error)

    # -- translation -----------------------------------------------------------------------------------------------

    def _traced(self, tracer: Tracer) -> Span:
        """The span of this call, which the server gets as its parent."""
        url, version = self.server.config.url or "", self.session.negotiated.version
        operation = Operation(self.request.method, self.route.name, self.route.server, version, url, self.id)
        return tracer.begin(operation, self.request.meta, seconds_ago=self._context.time() - self.started)

    def _params(self, changed: Members) -> Buffer:
        """The params to forward: the client's own bytes, except for what names, eras and rounds make different.

        The request itself stays what the client sent: it may have to be sent once more, and resolved anew.
        """
        request = self.request
        meta = protocol.meta_for_server(
            request.meta if self._span is None else self._span.meta,
            client=request.era,
            server=self.session.negotiated.era,
            introduction=self.caller,
            token=self.id if self._token is not None else None,
        )
        if meta is request.meta and not changed and self._extra is None:
            return request.raw_params
        params = {**request.params, **changed, **(self._extra or {})}
        if meta is None:
            params.pop("_meta", None)
        elif meta is not request.meta:
            params["_meta"] = msgspec.Raw(jsonrpc.encode(meta))
        return jsonrpc.encode(params)

    def _result(self, result: bytes) -> tuple[Buffer, str]:
        """The result for the client, and `tool_error` where the result says so itself."""
        method = self.request.method
        payload: Buffer = result
        # A cheap look at the bytes: most results hold no link and are forwarded without being decoded.
        if b'"uri"' in result and method != "completion/complete":
            payload = renamed_links(result, method, self._context.renaming(self.route, method))
        payload = protocol.result_for_client(
            payload, method=method, client=self.request.era, server=self.session.negotiated.era
        )
        # Likewise for the flag; only a result that has the word in it is decoded.
        failed = b'"isError"' in result and bytes(jsonrpc.members(result).get("isError", b"")) == b"true"
        return payload, "tool_error" if failed else ""

    def _error(self, error: Buffer) -> tuple[Buffer, str]:
        """The error object for the client, and its code."""
        server = self.session.negotiated.era
        payload = protocol.error_for_client(error, method=self.request.method, client=self.request.era, server=server)
        return payload, bytes(jsonrpc.members(error).get("code", b"")).decode()


def calls_on(session: ServerSession) -> list[SentCall]:
    """The calls that are with a server, the oldest first; those whose clients are to come back among them."""
    return [waiter for waiter in session.pending.waiters() if isinstance(waiter, SentCall)]
