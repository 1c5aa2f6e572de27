"""How what legacy servers ask reaches a client of either era, and how the answer comes back.

Nothing that a server sends says for which call it asks. So the client is asked whose calls are with that server, where
they all are one client's; where they are not, the server is refused: never is the wrong client asked.
"""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from typing import Any

from ..core import input_requests, jsonrpc
from ..core.config.settings import ServerConfig
from ..core.errors import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, RpcError
from ..core.input_requests import ABILITIES
from ..core.jsonrpc import Members, Message
from ..core.protocol import CAPABILITIES_KEY, Era
from ..servers.server import Server
from ..servers.session import ServerSession
from .call import SentCall, calls_on
from .client_requests import MOST_OPEN
from .input_request import InputRequest
from .request import Caller, ClientRequest

BY_DEFAULT = frozenset({"sampling", "elicitation"})
"""What a server behind a daemon may ask. Roots only where its entry says so: some replace their settings by them."""
COME_BACK_WITHIN = 60.0
"""Seconds that a client has to come back over another connection, before its postponed calls end."""
POSTPONED_MOST = 1024
POSTPONED_BY_ONE = 32
"""Calls that wait for their client to come back, in all and of one client."""
STATE_PREFIX = "mcp-multi-server."
ELICITATIONS_MOST = 1024
"""Users who are at a URL; of further ones it is not told that they are done."""


class InputRequests:
    """All input requests of legacy servers. The router makes it, and tells it what servers and clients say.

    `abilities`: what the one client can be asked; None for the clients of a daemon.
    """

    def __init__(self, abilities: frozenset[str] | None) -> None:
        self._abilities = abilities
        self._owner: Caller | None = None
        self._postponed: dict[str, SentCall] = {}
        """Calls of modern clients that are to come back with answers, by the `requestState` that they were given."""
        self._orphans: set[str] = set()
        """The states of those whose client's connection has ended."""
        self._elicitations: dict[bytes, Caller] = {}
        """The legacy clients whose users were sent to a URL, by the id of that elicitation."""
        self._keys = 0
        self._loop = asyncio.get_running_loop()

    @property
    def postponed(self) -> int:
        """How many calls wait for their clients to come back."""
        return len(self._postponed)

    def set_owner(self, caller: Caller) -> None:
        """The servers are this client's own: it is asked also where it has no call."""
        self._owner = caller

    def declared(self, config: ServerConfig) -> dict[str, Any]:
        """What a server is told that it may ask."""
        can = frozenset(ABILITIES.values()) if self._abilities is None else self._abilities
        default = BY_DEFAULT if self._abilities is None else can
        return input_requests.declared(can & (default if config.may_ask is None else frozenset(config.may_ask)))

    def asked(self, server: Server, session: ServerSession, message: Message) -> None:
        """A legacy server asks: ask its client, or answer why that cannot be."""
        try:
            self._ask_client(server, session, message)
        except RpcError as refusal:
            session.answer_error(bytes(message.id), jsonrpc.error_object(refusal))

    def withdrawn(self, session: ServerSession, message: Message) -> None:
        """A server cancels what it asked."""
        params = input_requests.params_of(message.params)
        open_one = session.input_requests.get(bytes(params.get("requestId", b"")))
        if open_one is not None:
            open_one.withdraw(jsonrpc.text(params.get("reason")) or "cancelled by the server")

    def completed(self, message: Message) -> None:
        """What a user was to do at a URL is done (2025-11-25, client/elicitation): tell the client that was asked."""
        id = bytes(input_requests.params_of(message.params).get("elicitationId", b""))
        if (caller := self._elicitations.pop(id, None)) is not None:
            caller.notify(message.method, message.params)

    def resume(self, caller: Caller, request: ClientRequest) -> bool:
        """Go on with the call that a modern client comes back for; False where the request is no such thing.

        Raises RpcError -32602 where its state is not, or no longer, waited for.
        """
        state = jsonrpc.text(request.params["requestState"])
        if request.era is Era.LEGACY or state is None or not state.startswith(STATE_PREFIX):
            return False
        call = self._postponed.get(state)
        if call is None or not _continues(call, caller, request):
            raise RpcError(INVALID_PARAMS, "requestState was not given for this request, or is used or expired")
        responses = input_requests.responses_in(request.params)
        del self._postponed[state]
        self._orphans.discard(state)
        # Only now, since responses that cannot be read leave the state good for another try.
        call.resume(caller, request)
        self._take(call, responses)
        return True

    def gone(self, caller: Caller) -> None:
        """A client's connection has ended; its postponed calls may be continued over another one, for a while."""
        if self._owner is caller:
            self._owner = None
        self._elicitations = {id: sent for id, sent in self._elicitations.items() if sent is not caller}
        for state, call in self._postponed.items():
            if call.caller is caller:
                self._orphans.add(state)
                self._loop.call_later(COME_BACK_WITHIN, self._abandon, state)

    # -- how a request of a server finds its client -----------------------------------------------------------------

    def _ask_client(self, server: Server, session: ServerSession, message: Message) -> None:
        """Raises RpcError where there is no client to ask, or more than one, or it cannot be asked."""
        if ABILITIES.get(message.method) not in session.capabilities:
            raise input_requests.unsupported(message.method)
        # Two requests of one id could not be told apart in our answers.
        if bytes(message.id) in session.input_requests:
            raise RpcError(INVALID_REQUEST, "a request with this id is still being answered")
        calls = calls_on(session)
        caller = self._whom(calls)
        opened = InputRequest(
            server.name,
            session,
            message,
            caller,
            is_for_call=bool(calls),
            closed=partial(_resume_deadlines, calls),
        )
        if calls and all(call.request.era is Era.MODERN for call in calls):
            self._ask_by_answer(opened, calls)
        else:
            self._ask_by_request(opened)
        for call in calls:
            call.pause_deadline()

    def _whom(self, calls: list[SentCall]) -> Caller:
        """The one client whose calls these are."""
        callers = {call.caller for call in calls} or ({self._owner} if self._owner is not None else set())
        if not callers:
            raise RpcError(INTERNAL_ERROR, "no client's call is with this server, so there is nobody to ask")
        if len(callers) > 1:
            # So that a client that left for good does not keep the others from being asked.
            self._abandon_orphans(calls)
            raise RpcError(INTERNAL_ERROR, "calls of several clients are with this server: it is not known whom to ask")
        return callers.pop()

    def _ask_by_request(self, opened: InputRequest) -> None:
        """Ask a legacy client, by a request of our own."""
        _check(opened, opened.caller.capabilities)
        requests = opened.caller.client_requests
        id = requests.ask(opened.method, opened.payload, answered=opened.answered, lost=opened.lost)
        # The user is sent to a URL; only this client is to hear when that is done.
        if "elicitationId" in opened.params and len(self._elicitations) < ELICITATIONS_MOST:
            self._elicitations[bytes(opened.params["elicitationId"])] = opened.caller
        opened.open(take_back=partial(requests.cancel, id), late=opened.late)

    def _ask_by_answer(self, opened: InputRequest, calls: list[SentCall]) -> None:
        """Ask a modern client, by the answer to one of its calls: the newest, which most likely is the one meant."""
        call = next((call for call in reversed(calls) if not call.is_postponed), calls[-1])
        meta = call.request.meta or {}
        _check(opened, input_requests.client_capabilities(meta.get(CAPABILITIES_KEY)))
        asked = call.postponable().open
        if len(asked) >= MOST_OPEN:
            raise RpcError(INTERNAL_ERROR, f"the client has {MOST_OPEN} input requests to answer")
        self._keys += 1
        # Keys are never used twice: an answer that comes late must not meet a later question.
        key = f"ask-{self._keys}"
        asked[key] = opened
        try:
            if not call.is_postponed:
                self._postpone(call)
        except RpcError:
            del asked[key]
            raise
        opened.open(take_back=lambda reason: asked.pop(key, None), late=lambda: self._late(opened, call))

    # -- calls of modern clients that are to come back ---------------------------------------------------------------

    def _postpone(self, call: SentCall) -> None:
        """Answer a call with all that is asked for it."""
        by_one = sum(other.caller is call.caller for other in self._postponed.values())
        if by_one >= POSTPONED_BY_ONE or len(self._postponed) >= POSTPONED_MOST:
            raise RpcError(INTERNAL_ERROR, "too many calls wait for answers of clients")
        # Not to be guessed: whoever has it may answer for the client.
        state = STATE_PREFIX + secrets.token_urlsafe(24)
        self._postponed[state] = call
        call.postpone(state)

    def _take(self, call: SentCall, responses: Members) -> None:
        """The client is back: pass its answers on, then answer it, by what has come meanwhile or what is still open."""
        postponed = call.postponable()
        for key, response in responses.items():
            if (opened := postponed.open.get(key)) is not None:
                opened.fulfil(response)
        if postponed.outcome is not None:
            postponed.outcome()
        elif postponed.open:
            self._postpone_again(call)

    def _postpone_again(self, call: SentCall) -> None:
        try:
            self._postpone(call)
        except RpcError as failure:
            call.give_up(failure)

    def _late(self, opened: InputRequest, call: SentCall) -> None:
        """A modern client was asked and never came back, or not with this answer."""
        if call.is_postponed:
            self._abandon(call.postponable().state)
        else:
            opened.late()

    def _abandon_orphans(self, calls: list[SentCall]) -> None:
        """Calls that may never be continued make way for those of clients that are there."""
        for call in calls:
            if call.is_postponed and (state := call.postponable().state) in self._orphans:
                self._abandon(state)

    def _abandon(self, state: str) -> None:
        self._orphans.discard(state)
        if (call := self._postponed.pop(state, None)) is not None:
            call.abandon("the client did not come back with what it was asked")


def _resume_deadlines(calls: list[SentCall]) -> None:
    for call in calls:
        call.resume_deadline()


def _check(opened: InputRequest, capabilities: Members) -> None:
    if (refusal := input_requests.refusal(opened.method, opened.params, capabilities)) is not None:
        raise refusal


def _continues(call: SentCall, caller: Caller, request: ClientRequest) -> bool:
    """Whether a request may go on with a postponed call: the same method and name, from the same user."""
    same = call.request.method == request.method and _target(call.request) == _target(request)
    # The user may be back over another connection, so it is the user that is compared, not the client.
    return same and call.caller.uid == caller.uid


def _target(request: ClientRequest) -> str | None:
    """The name or URI as the client wrote it."""
    return jsonrpc.text(request.params.get("uri" if request.method == "resources/read" else "name"))
