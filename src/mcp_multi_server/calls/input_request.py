"""What a server needs of the client before it can go on, as each era says it.

A legacy server sends a request of its own (2025-11-25, client/*): an `InputRequest`. A modern one answers the call with
`input_required` and gets it once more with the answers (2026-07-28, basic/patterns/mrtr): an `InputRound`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from ..core import input_requests, jsonrpc
from ..core.errors import INTERNAL_ERROR, RpcError
from ..core.input_requests import InputNeeded
from ..core.jsonrpc import ABSENT, Buffer, Members, Message
from ..servers.session import ServerSession
from .request import Caller

PERSON_ANSWERS_WITHIN = 600.0
"""Seconds that a client has for one input request, as a person may have to think; its call's deadline is paused."""
POLL = 0.25
"""Seconds until a call is made once more whose server asks for time instead of input."""


class InputRequest:
    """A request of a legacy server, from the moment its client is known until it is answered, refused or withdrawn.

    `InputRequests` makes it; it ends once, on both sides. `closed` is called then.
    """

    def __init__(
        self,
        server: str,
        session: ServerSession,
        message: Message,
        caller: Caller,
        *,
        is_for_call: bool,
        closed: Callable[[], None],
    ) -> None:
        self.id = bytes(message.id)
        self.method = message.method
        self.params = input_requests.params_of(message.params)
        self.payload = input_requests.named(self.params, server)
        """The params as the client gets them: they say which server asks."""
        self.caller = caller
        self.is_for_call = is_for_call
        """False where the client is asked without a call of its own there, since the servers are its alone."""
        self._session = session
        self._closed = closed
        self._take_back: Callable[[str], object] = _nothing
        self._timer: asyncio.TimerHandle | None = None

    def open(self, *, take_back: Callable[[str], object], late: Callable[[], None]) -> None:
        """The client has been asked. `take_back` tells it that its answer is not needed; `late` is for a silent one."""
        self._take_back = take_back
        # Entered only now: a request that could not be put to the client was answered with an error.
        self._session.input_requests[self.id] = self
        self._timer = asyncio.get_running_loop().call_later(PERSON_ANSWERS_WITHIN, late)

    def answered(self, message: Message) -> None:
        """A legacy client answered, with a result or an error: pass it on."""
        if message.error is not ABSENT and jsonrpc.is_object(message.error):
            self._close("")
            self._session.answer_error(self.id, message.error)
        elif message.result is not ABSENT and jsonrpc.is_object(message.result):
            self.fulfil(message.result)
        else:
            self.refuse("the client answered with what is neither a result nor an error")

    def fulfil(self, result: Buffer) -> None:
        """Answer the server with the client's result."""
        self._close("")
        self._session.answer(self.id, result)

    def refuse(self, why: str) -> None:
        """Answer the server with an error of our own: nobody else will answer it."""
        self._close(why)
        self._session.answer_error(self.id, jsonrpc.error_object(RpcError(INTERNAL_ERROR, why)))

    def lost(self) -> None:
        """The client can answer no more."""
        self.refuse("the client is gone")

    def late(self) -> None:
        """The client has had its time."""
        self.refuse(f"the client did not answer within {PERSON_ANSWERS_WITHIN:g} s")

    def withdraw(self, reason: str) -> None:
        """The server does not wait for it any more, or is gone: nothing is sent to it."""
        self._close(reason)

    def _close(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Several ends can meet, such as an answer and the end of the call: the first one counts.
        if self._session.input_requests.pop(self.id, None) is not None:
            self._take_back(reason)
            self._closed()


class InputRound:
    """One round of what a modern server needs of a legacy client for one call. The call makes it and ends it.

    All of it is asked at once. `answered` is called with the members that the call gets when it is made once more,
    `refused` with the reason where there is no use in that.
    """

    def __init__(
        self,
        caller: Caller,
        server: str,
        needed: InputNeeded,
        *,
        answered: Callable[[Members], None],
        refused: Callable[[str], None],
    ) -> None:
        self._requests = caller.client_requests
        self._capabilities = caller.capabilities
        self._server = server
        self._needed = needed
        self._answered = answered
        self._refused = refused
        self._open: set[int] = set()
        self._answers: Members = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Ask the client, or let time go by where the server asks for nothing else. Raises RpcError if that cannot be.

        Nothing has been sent then, or what has been sent ends with `end`.
        """
        loop = asyncio.get_running_loop()
        # All are checked before the first is sent, so that nothing is asked in vain.
        for method, params in self._needed.requests.values():
            if (refusal := input_requests.refusal(method, params, self._capabilities)) is not None:
                raise RpcError(INTERNAL_ERROR, f"server {self._server!r} asks for input: {refusal.message}")
        for key, (method, params) in self._needed.requests.items():
            self._ask(key, method, params)
        self._timer = (
            loop.call_later(PERSON_ANSWERS_WITHIN, self._late) if self._open else loop.call_later(POLL, self._complete)
        )

    def end(self, reason: str) -> None:
        """Take back what is still asked."""
        if self._timer is not None:
            self._timer.cancel()
        for id in self._open:
            self._requests.cancel(id, reason)
        self._open.clear()

    def _ask(self, key: str, method: str, params: Members) -> None:
        payload = input_requests.named(params, self._server)
        # A client that is lost takes its call with it, and so this round.
        id = self._requests.ask(method, payload, answered=partial(self._take, key), lost=_nothing)
        self._open.add(id)

    def _take(self, key: str, message: Message) -> None:
        """One of the answers has come."""
        self._open.discard(int(bytes(message.id)))
        if message.result is ABSENT or not jsonrpc.is_object(message.result):
            self._refused(f"the client refused {self._needed.requests[key][0]}: {_words(message)}")
            return
        self._answers[key] = message.result
        if not self._open:
            self._complete()

    def _complete(self) -> None:
        self.end("")
        self._answered(self._needed.retry(self._answers))

    def _late(self) -> None:
        self._refused(f"the client did not answer within {PERSON_ANSWERS_WITHIN:g} s")


def _nothing(*arguments: object) -> None:
    """Do nothing."""


def _words(message: Message) -> str:
    """The text of a client's error."""
    if message.error is ABSENT or not jsonrpc.is_object(message.error):
        return "no result"
    return jsonrpc.text(jsonrpc.members(message.error).get("message")) or "no reason given"
