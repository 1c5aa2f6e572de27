"""What servers ask of clients: whose question it is, how it reaches a client of either era, and how it ends.

Nothing that a server sends says for which call it asks. So a question goes to the client whose calls are with that
server, where they all are one client's, and is refused where they are not: never to the wrong one.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

from ..core import input_requests, jsonrpc
from ..core.errors import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, RpcError
from ..core.events import Observer, RequestDone
from ..core.input_requests import ABILITIES, InputRequired
from ..core.jsonrpc import ABSENT, Buffer, Members, Message
from ..core.protocol import CAPABILITIES_KEY, Era
from ..core.settings import ServerConfig
from ..servers.server import Server
from ..servers.session import ServerSession
from .call import THINKING, Call, calls_on
from .client_requests import MOST
from .request import Caller, ClientRequest, too_deep

BY_DEFAULT = frozenset({"sampling", "elicitation"})
"""What a server behind a daemon may ask. Of roots only where its entry says so: some replace their settings by them."""
ROUNDS = 10
"""Times that a modern server may answer one call with a question."""
POLL = 0.25
"""Seconds until a call is made once more whose server asks for time instead of an answer."""
COME_BACK_WITHIN = 60.0
"""Seconds after which a client's parked calls end when its connection has: it may come back over another one."""
PARKED_MOST = 1024
PARKED_BY_ONE = 32
"""Calls that wait for their client to come back, in all and of one client."""
STATE_PREFIX = "mcp-multi-server."
ELSEWHERE_MOST = 1024
"""Users who are at a URL; of further ones it is not told that they are done."""
_ENDED = "the call for which it was asked has ended"


class Question:
    """A request of a legacy server's: open until it is answered, refused or taken back. An Asker and an Open."""

    def __init__(self, server: str, session: ServerSession, message: Message) -> None:
        self.id = bytes(message.id)
        self.method = message.method
        self.params = input_requests.params_of(message.params)
        self.payload = input_requests.named(self.params, server)
        self.caller: Caller
        self.has_call = False
        self._session = session
        self._take_back: Callable[[str], object] = lambda reason: None
        self._waiting: list[Call] = []
        self._timer: asyncio.TimerHandle | None = None

    def open(
        self, caller: Caller, calls: list[Call], *, take_back: Callable[[str], object], late: Callable[[], None]
    ) -> None:
        """The client has been asked. `take_back` tells it that this is over; `late` is for when it never answers."""
        self.caller, self.has_call = caller, bool(calls)
        self._take_back = take_back
        self._waiting = calls
        self._session.input_requests[self.id] = self
        self._timer = asyncio.get_running_loop().call_later(THINKING, late)
        for call in calls:
            call.stand_still()

    def answered(self, message: Message) -> None:
        """See Asker."""
        if message.error is not ABSENT and jsonrpc.is_object(message.error):
            self._close("")
            self._session.answer_error(self.id, message.error)
        elif message.result is not ABSENT and jsonrpc.is_object(message.result):
            self.fulfil(message.result)
        else:
            self.refuse("the client answered with what is neither a result nor an error")

    def lost(self) -> None:
        """See Asker."""
        self.refuse("the client is gone")

    def fulfil(self, result: Buffer) -> None:
        """Pass the client's answer on."""
        self._close("")
        self._session.answer(self.id, result)

    def refuse(self, why: str) -> None:
        """Answer it ourselves: nobody else will."""
        self._close(why)
        self._session.answer_error(self.id, jsonrpc.error_object(RpcError(INTERNAL_ERROR, why)))

    def end(self, reason: str) -> None:
        """See Open."""
        self.refuse(reason)

    def withdraw(self, reason: str) -> None:
        """See Withdrawable: the server waits for it no more."""
        self._close(reason)

    def late(self) -> None:
        """The client has had its time."""
        self.refuse(f"the client did not answer within {THINKING:g} s")

    def _close(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._session.input_requests.pop(self.id, None) is not None:
            self._take_back(reason)
            for call in self._waiting:
                call.go_on()


class Inquiry:
    """One round of what a modern server needs from a legacy client before it can answer a call. An Open."""

    def __init__(self, call: Call, needed: InputRequired) -> None:
        self._call = call
        self._needed = needed
        self._open: set[int] = set()
        self._answers: Members = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Ask all of it at once. Raises RpcError where the client cannot be asked."""
        caller, loop = self._call.caller, asyncio.get_running_loop()
        for method, params in self._needed.requests.values():
            if (refusal := input_requests.refusal(method, params, caller.capabilities)) is not None:
                raise RpcError(INTERNAL_ERROR, f"server {self._call.server_name!r} asks for input: {refusal.message}")
        for key, (method, params) in self._needed.requests.items():
            entry = _Entry(self, key)
            entry.id = caller.questions.ask(method, input_requests.named(params, self._call.server_name), entry)
            self._open.add(entry.id)
        self._timer = loop.call_later(THINKING, self._late) if self._open else loop.call_later(POLL, self._done)

    def end(self, reason: str) -> None:
        """See Open."""
        if self._timer is not None:
            self._timer.cancel()
        for id in self._open:
            self._call.caller.questions.take_back(id, reason)
        self._open.clear()

    def answered(self, key: str, id: int, message: Message) -> None:
        """One of the answers has come."""
        self._open.discard(id)
        if message.result is ABSENT or not jsonrpc.is_object(message.result):
            self._refuse(f"the client refused {self._needed.requests[key][0]}: {_words(message)}")
            return
        self._answers[key] = message.result
        if not self._open:
            self._done()

    def _done(self) -> None:
        self._call.talk().open.clear()
        self.end("")
        self._call.again(self._needed.retry(self._answers))

    def _late(self) -> None:
        self._refuse(f"the client did not answer within {THINKING:g} s")

    def _refuse(self, why: str) -> None:
        failure = RpcError(INTERNAL_ERROR, f"server {self._call.server_name!r} asked for input: {why}")
        self._call.refuse(failure, str(INTERNAL_ERROR))


class _Entry:
    """One question of a round. An Asker."""

    def __init__(self, inquiry: Inquiry, key: str) -> None:
        self._inquiry = inquiry
        self._key = key
        self.id = 0

    def answered(self, message: Message) -> None:
        """See Asker."""
        self._inquiry.answered(self._key, self.id, message)

    def lost(self) -> None:
        """See Asker: the call goes with its client."""


class InputRequests:
    """All that servers ask. `abilities`: what the one client can be asked, or None for the clients of a daemon."""

    def __init__(self, *, tell: Observer, abilities: frozenset[str] | None) -> None:
        self.owner: Caller | None = None
        """The client that is asked also when it has no call there: the servers are its own."""
        self._tell = tell
        self._abilities = abilities
        self._parked: dict[str, Call] = {}
        """Calls of modern clients that are to come back with answers, by the `requestState` that they were given."""
        self._orphans: set[str] = set()
        """The states of those whose client's connection has ended."""
        self._elsewhere: dict[bytes, Caller] = {}
        """The legacy clients whose users were sent to a URL, by the id of that elicitation."""
        self._keys = 0
        self._loop = asyncio.get_running_loop()

    def declared(self, config: ServerConfig) -> dict[str, Any]:
        """What a server may ask, as it is told."""
        can = frozenset(ABILITIES.values()) if self._abilities is None else self._abilities
        default = BY_DEFAULT if self._abilities is None else can
        return input_requests.declared(can & (default if config.may_ask is None else frozenset(config.may_ask)))

    def asked(self, server: Server, session: ServerSession, message: Message) -> None:
        """A legacy server asks: put it to its client, or say why that cannot be."""
        try:
            self._put(Question(server.name, session, message), session)
        except RpcError as refusal:
            session.answer_error(bytes(message.id), jsonrpc.error_object(refusal))
        except RecursionError:
            session.answer_error(bytes(message.id), jsonrpc.error_object(too_deep()))

    def taken_back(self, session: ServerSession, message: Message) -> None:
        """A server cancels what it asked."""
        params = input_requests.params_of(message.params)
        question = session.input_requests.get(bytes(params.get("requestId", b"")))
        if question is not None:
            question.withdraw(jsonrpc.text(params.get("reason")) or "cancelled by the server")

    def completed(self, message: Message) -> None:
        """A server says that what a client was to do at a URL is done (2025-11-25, client/elicitation)."""
        caller = self._elsewhere.pop(bytes(input_requests.params_of(message.params).get("elicitationId", b"")), None)
        if caller is not None:
            caller.notify(message.method, message.params)

    def left(self, call: Call) -> None:
        """A call has ended: what was asked for it is over, as far as that can be told."""
        if call.dialogue is not None:
            for one in list(call.dialogue.open.values()):
                one.end(_ENDED)
        if any(other.caller is call.caller for other in calls_on(call.session)):
            return
        for question in list(call.session.input_requests.values()):
            if isinstance(question, Question) and question.has_call and question.caller is call.caller:
                question.refuse(_ENDED)

    def inquire(self, call: Call, result: bytes) -> bool:
        """Ask a legacy client what a modern server's result asks for, if it does. Raises RpcError."""
        needed = input_requests.input_required(result)
        if needed is None:
            return False
        dialogue = call.talk()
        dialogue.rounds += 1
        if dialogue.rounds > ROUNDS:
            raise RpcError(INTERNAL_ERROR, f"server {call.server_name!r} asked for input more than {ROUNDS} times")
        inquiry = Inquiry(call, needed)
        dialogue.open = {"": inquiry}
        inquiry.begin()
        return True

    def resume(self, caller: Caller, request: ClientRequest) -> bool:
        """Go on with the call that a modern client comes back for; False where the request is none such.

        Raises RpcError -32602 where it is not, or no longer, waited for.
        """
        state = jsonrpc.text(request.params["requestState"])
        if request.era is Era.LEGACY or state is None or not state.startswith(STATE_PREFIX):
            return False
        call = self._parked.get(state)
        if call is None or not _continues(call, caller, request):
            raise RpcError(INVALID_PARAMS, "requestState was not given for this request, or is used or expired")
        responses = input_requests.responses_in(request.params)
        del self._parked[state]
        self._orphans.discard(state)
        call.unpark(caller, request)
        self._go_on(call, responses)
        return True

    def gone(self, caller: Caller) -> None:
        """A client's connection has ended; its parked calls may be continued over another, for a while."""
        if self.owner is caller:
            self.owner = None
        self._elsewhere = {id: sent for id, sent in self._elsewhere.items() if sent is not caller}
        for state, call in self._parked.items():
            if call.caller is caller:
                self._orphans.add(state)
                self._loop.call_later(COME_BACK_WITHIN, self._drop, state)

    # -- how a question finds its client ---------------------------------------------------------------------------

    def _put(self, question: Question, session: ServerSession) -> None:
        if ABILITIES.get(question.method) not in session.capabilities:
            raise input_requests.unsupported(question.method)
        if question.id in session.input_requests:
            raise RpcError(INVALID_REQUEST, "a request with this id is still being answered")
        calls = calls_on(session)
        callers = {call.caller for call in calls} or ({self.owner} if self.owner is not None else set())
        if not callers:
            raise RpcError(INTERNAL_ERROR, "no client's call is with this server, so there is nobody to ask")
        if len(callers) > 1:
            self._drop_orphans(calls)
            raise RpcError(INTERNAL_ERROR, "calls of several clients are with this server: it is not known whom to ask")
        if calls and all(call.request.era is Era.MODERN for call in calls):
            self._park(question, calls)
        else:
            self._push(question, callers.pop(), calls)

    def _push(self, question: Question, caller: Caller, calls: list[Call]) -> None:
        """Ask a legacy client, by a request."""
        _check(question, caller.capabilities)
        id = caller.questions.ask(question.method, question.payload, question)
        if "elicitationId" in question.params and len(self._elsewhere) < ELSEWHERE_MOST:
            self._elsewhere[bytes(question.params["elicitationId"])] = caller
        question.open(
            caller, calls, take_back=lambda reason: caller.questions.take_back(id, reason), late=question.late
        )

    def _park(self, question: Question, calls: list[Call]) -> None:
        """Ask a modern client, by the answer to one of its calls; the newest, which is the likeliest to be meant."""
        call = next((call for call in reversed(calls) if not call.is_parked), calls[-1])
        meta = call.request.meta or {}
        _check(question, input_requests.client_capabilities(meta.get(CAPABILITIES_KEY)))
        opened = call.talk().open
        if len(opened) >= MOST:
            raise RpcError(INTERNAL_ERROR, f"the client has {MOST} questions to answer")
        self._keys += 1
        key = f"ask-{self._keys}"
        opened[key] = question
        try:
            if not call.is_parked:
                self._hand_over(call)
        except RpcError:
            del opened[key]
            raise
        question.open(
            call.caller, calls, take_back=lambda reason: opened.pop(key, None), late=lambda: self._late(question, call)
        )

    def _hand_over(self, call: Call) -> None:
        """Answer a call with all that is asked for it."""
        by_it = sum(other.caller is call.caller for other in self._parked.values())
        if by_it >= PARKED_BY_ONE or len(self._parked) >= PARKED_MOST:
            raise RpcError(INTERNAL_ERROR, "too many calls wait for answers of clients")
        state = STATE_PREFIX + secrets.token_urlsafe(24)
        self._parked[state] = call
        opened = {key: one for key, one in call.talk().open.items() if isinstance(one, Question)}
        call.park(state, input_requests.asks({key: (one.method, one.payload) for key, one in opened.items()}, state))
        self._tell(RequestDone(call.request.method, "", "", "", self._loop.time() - call.started, ""))

    def _go_on(self, call: Call, responses: Members) -> None:
        """The client is back: pass its answers on, ask again for what it left out, tell what has come meanwhile."""
        dialogue = call.talk()
        for key, response in responses.items():
            if isinstance(question := dialogue.open.get(key), Question):
                question.fulfil(response)
        if dialogue.kept is not None:
            dialogue.kept()
        elif dialogue.open:
            try:
                self._hand_over(call)
            except RpcError as failure:
                call.session.cancel(call.sent_as, failure.message)
                call.refuse(failure, str(failure.code))

    def _late(self, question: Question, call: Call) -> None:
        """A modern client never came back."""
        if call.is_parked:
            self._drop(call.talk().state)
        else:
            question.late()

    def _drop_orphans(self, calls: list[Call]) -> None:
        """Calls that may never be continued make way for those of clients that are there."""
        for call in calls:
            if call.is_parked and (state := call.talk().state) in self._orphans:
                self._drop(state)

    def _drop(self, state: str) -> None:
        self._orphans.discard(state)
        if (call := self._parked.pop(state, None)) is not None:
            call.talk().state = ""
            call.cancel("the client did not come back with what it was asked")


def _check(question: Question, capabilities: Members) -> None:
    if (refusal := input_requests.refusal(question.method, question.params, capabilities)) is not None:
        raise refusal


def _continues(call: Call, caller: Caller, request: ClientRequest) -> bool:
    """Whether a request may go on with a parked call: the same method and name, from the same user."""
    same = call.request.method == request.method and _target(call.request) == _target(request)
    return same and call.caller.uid == caller.uid


def _target(request: ClientRequest) -> str | None:
    """The name or URI as the client wrote it; the decoded params have the server's own by now."""
    return jsonrpc.text(
        jsonrpc.members(request.raw_params).get("uri" if request.method == "resources/read" else "name")
    )


def _words(message: Message) -> str:
    """The text of a client's error."""
    if message.error is ABSENT or not jsonrpc.is_object(message.error):
        return "no result"
    return jsonrpc.text(jsonrpc.members(message.error).get("message")) or "no reason given"
