"""The messages of an HTTP transport on their way to the server, and the way back to its receiver."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import httpx2

from ..core import jsonrpc
from ..core.jsonrpc import ABSENT, Buffer, Message
from ..core.lifecycle import Failure, Reason
from ..core.protocol import CALLS
from . import Receiver
from .http_client import network_failure, silent
from .http_headers import METHOD

MAX_OPEN = 1024
MAX_HELD = 64 * 1024 * 1024
"""Requests that may wait to be sent or answered, and bytes of all messages."""
MAX_NOTICES = 64
NOTICES_AT_ONCE = 8
"""Messages without an answer that may wait, and that may be on their way at once. A server that takes none would
otherwise cost a connection for each call that is given up; it loses those beyond."""
TURN_TIMEOUT = 1.0
NOTICE_TIMEOUT = 5.0
"""Seconds that such a message may wait for its turn, and that a server may take to accept it."""
STOP_TIMEOUT = 2.0
"""Seconds that leaving waits for what is on its way, and for the session to be ended at the server."""
INITIALIZED = "notifications/initialized"
"""The one message without an answer that what follows must not overtake."""
CANCELLED = "notifications/cancelled"
LAST_WORDS = 0.1
"""Seconds that are left to the requests of a session that is gone."""
FORGOTTEN = Failure(Reason.SESSION, "the server forgot the session")
REFUSED = replace(FORGOTTEN, undone=True)
_LONGEST_ID = 18
"""Digits; ours have fewer, and Python refuses to read thousands."""
_HEAD = 256
"""Bytes in which the id of a request of ours is found."""


@dataclass(slots=True, eq=False)
class Posting:
    """One message on its way. Made when it is sent; done when it is answered, failed or given up."""

    line: bytes
    message: Message
    id: int | None
    """None where no answer is due: a notification, or an answer of ours."""
    headers: Mapping[str, str]
    task: asyncio.Task[None] | None = None
    done: bool = False

    @property
    def is_modern(self) -> bool:
        """Whether it is of the modern era: only that has such a header."""
        return METHOD in self.headers

    @property
    def is_call(self) -> bool:
        """Whether it is a client's request: that has a time of its own, and is given up when it is over."""
        return self.message.method in CALLS


class Postings:
    """All of them, each carried by a task of its own; capped in number and bytes.

    Made by a transport, whose `headers` and `post` say how a message is sent. Ended by `lose` or `close`: the receiver
    is told nothing more.
    """

    def __init__(
        self,
        receiver: Receiver,
        *,
        headers: Callable[[Message], Mapping[str, str]],
        post: Callable[[Posting], Awaitable[None]],
    ) -> None:
        self.ended = False
        """Whether the connection is lost, or left."""
        self._receiver = receiver
        self._headers = headers
        self._post = post
        self._requests: dict[int, Posting] = {}
        self._notices = 0
        self._held = 0
        self._turns = asyncio.Semaphore(NOTICES_AT_ONCE)
        self._waiting: deque[Posting] = deque()
        self._start: asyncio.Handle | None = None
        """Of the first of those that wait, in the next turn of the loop."""
        self._last_words: asyncio.TimerHandle | None = None
        """Loses the connection whose session is gone."""
        self._is_opening = False
        """Whether what must not be overtaken is on its way."""
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, parts: Sequence[Buffer]) -> None:
        """Post one line. Where it is no message, or the caps are reached, a request fails and all else is dropped."""
        line = b"".join(parts)
        try:
            message = jsonrpc.decode(line)
            id = int(message.id) if message.method and message.id is not ABSENT else None
            posting = Posting(line, message, id, self._headers(message))
        except (jsonrpc.InvalidMessage, ValueError):
            salvaged = jsonrpc.salvage_id(line[:_HEAD], b"")
            self._refuse(None if salvaged is None else int(salvaged), "not sent: no valid JSON-RPC")
            return
        if message.method != CANCELLED or self._give_up(posting):
            self._put(posting)

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run something as long as the connection lives; what it raises ends that and nothing else."""
        context = contextvars.copy_context()
        context.run(silent.set, True)
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def find(self, id: Buffer) -> Posting | None:
        """The request with this id that waits for its answer."""
        number = bytes(id)
        return self._requests.get(int(number)) if number.isdigit() and len(number) <= _LONGEST_ID else None

    def settle(self, posting: Posting) -> bool:
        """Be done with a message. False where that was so before."""
        if posting.done:
            return False
        posting.done = True
        self._held -= len(posting.line)
        if posting.id is None:
            self._notices -= 1
        else:
            del self._requests[posting.id]
        return True

    def fail(self, posting: Posting, failure: Failure) -> None:
        """Be done with a message that did not get through."""
        if self.settle(posting) and posting.id is not None:
            self._tell_failed(posting.id, failure)

    def forget(self) -> None:
        """The session is gone, and with it the connection, as soon as the requests on their way have been answered.

        They will be refused as well, which makes it certain that they were not carried out. No more are sent.
        """
        if not self._requests:
            self.lose(FORGOTTEN)
        elif self._last_words is None:
            self._last_words = asyncio.get_running_loop().call_later(LAST_WORDS, self.lose, FORGOTTEN)

    def line(self, line: bytes) -> None:
        """Tell one line from the server."""
        if not self.ended:
            self._receiver.line(line)

    def note(self, text: str) -> None:
        """Tell whoever reads the server's log."""
        if not self.ended:
            self._receiver.stderr(text)

    def lose(self, failure: Failure) -> None:
        """Tell that the connection is over; the first reason counts."""
        if not self.ended:
            self._end()
            self._receiver.lost(failure)

    async def close(self, leave: Coroutine[None, None, None]) -> None:
        """The transport is being left: give up what is on its way, then do what there is to do last."""
        self._end()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=STOP_TIMEOUT)
        await asyncio.wait({self.spawn(leave)})

    def _put(self, posting: Posting) -> None:
        if self.ended or (posting.id is None and self._notices >= MAX_NOTICES):
            return
        if len(self._requests) >= MAX_OPEN or self._held + len(posting.line) > MAX_HELD:
            self._refuse(posting.id, "not sent: too many messages wait for the server")
            return
        self._held += len(posting.line)
        if posting.id is None:
            self._notices += 1
        else:
            self._requests[posting.id] = posting
        self._waiting.append(posting)
        self._start_soon()

    def _start_soon(self) -> None:
        if self._start is None and self._waiting and not self._is_opening:
            self._start = asyncio.get_running_loop().call_soon(self._start_next)

    def _start_next(self) -> None:
        """Start one message a turn of the loop: a hundred at once would keep it from everybody else."""
        self._start = None
        posting = self._waiting.popleft()
        if self._last_words is not None:
            self.fail(posting, REFUSED)
        elif not posting.done and not self.ended:
            self._is_opening = posting.message.method == INITIALIZED
            posting.task = self.spawn(self._carry(posting))
        self._start_soon()

    def _give_up(self, cancellation: Posting) -> bool:
        """Close the connection of the request that a message cancels; whether the server must be told as well.

        In the modern era the end of its stream cancels a request, and there is no message for it.
        """
        params = cancellation.message.params
        posting = self.find(jsonrpc.members(params).get("requestId", b"")) if params is not ABSENT else None
        if posting is not None and self.settle(posting) and posting.task is not None:
            posting.task.cancel()
        return not (posting or cancellation).is_modern

    async def _carry(self, posting: Posting) -> None:
        try:
            if posting.id is not None:
                await self._post(posting)
            else:
                await self._carry_notice(posting)
        except httpx2.RequestError as error:
            self.fail(posting, network_failure(error))
        except Exception as error:  # whatever the libraries raise costs the one request that it happens to
            self.fail(posting, _unexpected(error))

    async def _carry_notice(self, posting: Posting) -> None:
        """Carry a message that gets no answer, unless its turn comes too late. An answer of ours needs no turn."""
        turn = self._turns if posting.message.method else nullcontext()
        try:
            async with asyncio.timeout(TURN_TIMEOUT) as limit, turn:
                limit.reschedule(asyncio.get_running_loop().time() + NOTICE_TIMEOUT)
                await self._post(posting)
        except TimeoutError:
            pass
        finally:
            self.settle(posting)
            if posting.message.method == INITIALIZED:
                self._is_opening = False
                self._start_soon()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.lose(_unexpected(error))

    def _end(self) -> None:
        self.ended = True
        for task in self._tasks:
            task.cancel()

    def _refuse(self, id: int | None, why: str) -> None:
        """Fail a request in the loop's next turn, when whoever sends has noted what it waits for."""
        if id is not None:
            asyncio.get_running_loop().call_soon(self._tell_failed, id, Failure(Reason.UNREACHABLE, why))

    def _tell_failed(self, id: int, failure: Failure) -> None:
        if not self.ended:
            self._receiver.failed(id, failure)


def _unexpected(error: BaseException) -> Failure:
    return Failure(Reason.INTERNAL, f"the HTTP client failed: {type(error).__name__}")
