"""Streamable HTTP: a server behind a URL, seen as a stream of JSON-RPC lines.

Each message is a POST of its own, and its answer comes in the response, as JSON or as an event stream. A legacy server
may give a session, tell more on a stream of its own, and go on with a stream that broke off. Bytes are passed on as
they are.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import NamedTuple

import anyio
import httpx2
import msgspec

from ..core import jsonrpc
from ..core.config.settings import SERVER_LINE
from ..core.errors import INVALID_REQUEST, METHOD_NOT_FOUND
from ..core.jsonrpc import ABSENT, Buffer, Message
from ..core.lifecycle import Failure, Reason, http_failure
from . import Receiver
from .http_client import (
    JSON,
    LISTENING,
    SENDING,
    HttpSpec,
    body,
    client_for,
    events_of,
    is_stream,
    media_type,
    network_failure,
    one_line,
    redirected,
    request,
)
from .http_headers import ANNOTATION, SESSION, SessionHeaders
from .postings import FORGOTTEN, INITIALIZED, REFUSED, STOP_TIMEOUT, Posting, Postings
from .sse_parser import EventParser, StreamEvent, TooLong

GRACE = 0.5
"""Seconds in which an answered stream may end by itself, which leaves its connection usable."""
RETRY, RETRY_FLOOR = 1.0, 0.1
"""Seconds until a stream that broke off is asked for again where the server names none, and at least."""
RESUMES = 2
"""Vain attempts in a row after which the rest of an answer is not asked for again."""
LISTEN_LASTS = 5.0
LISTEN_FREE = 3
LISTEN_PAUSE = 60.0
"""A standalone stream that lasts less than LISTEN_LASTS seconds is opened again LISTEN_FREE times as soon as the server
wants, then after 2, 4, 8 … LISTEN_PAUSE seconds."""
_TRY_LATER = frozenset({408, 409, 425, 429})
"""Statuses below 500 after which it is worth asking for the standalone stream again."""

BROKE_OFF = Failure(Reason.UNREACHABLE, "the connection broke before the answer")
NO_MESSAGE = Failure(Reason.PROTOCOL, "an answer that is no JSON-RPC message")
_SESSION_GONE = re.compile(r"session|not initialized", re.IGNORECASE)
_SESSION_ERROR = re.compile(r"session (not found|terminated|expired)", re.IGNORECASE)


class StreamableHttp:
    """A `Transport` over streamable HTTP, both eras. Nothing is asked of the server before the first line is sent.

    Made by `open_http`, which ends it with `close`.
    """

    kind: str = "http"
    pid: int | None = None

    def __init__(self, spec: HttpSpec, client: httpx2.AsyncClient, receiver: Receiver, *, line_cap: int) -> None:
        self._url = httpx2.URL(spec.url)
        self._client = client
        self._line_cap = line_cap
        self._headers = SessionHeaders()
        self._postings = Postings(receiver, headers=self._headers.of, post=self._post)
        self._has_listened = False
        """Whether the server has opened the standalone stream."""
        self.last_status: int | None = None

    def send(self, parts: Sequence[Buffer]) -> None:
        """Post one line; never waits."""
        self._postings.send(parts)

    async def close(self) -> None:
        """Give up what is on its way and end the session at the server."""
        has_session = self._headers.session is not None and not self._postings.ended
        await self._postings.close(self._leave(has_session))

    async def _leave(self, has_session: bool) -> None:
        async with aclosing(self._client):
            if has_session:
                with suppress(httpx2.RequestError, TimeoutError):
                    async with asyncio.timeout(STOP_TIMEOUT):
                        await request(self._client, "DELETE", self._url, self._headers.standing())

    # -- what goes out -------------------------------------------------------------------------------------------

    async def _post(self, posting: Posting) -> None:
        """Post a message and read on until its answer is there, asking again for the rest of one that broke off."""
        events = EventParser(self._line_cap)
        failure = await self._attempt(posting, events)
        vain = 0
        while failure is not None and vain < RESUMES and _can_resume(posting, failure, events):
            await asyncio.sleep(min(LISTEN_PAUSE, max(RETRY_FLOOR, RETRY if events.retry is None else events.retry)))
            failure = await self._attempt(posting, events)
            # A stream that opened and broke off again has moved on; only attempts that got nothing count.
            vain = 0 if failure is BROKE_OFF else vain + 1
        if failure is not None:
            self._postings.fail(posting, failure)
        # A legacy server may refuse the standalone stream before it was told that we are initialized.
        if posting.message.method == INITIALIZED and self._headers.session is not None:
            self._postings.spawn(self._listen())

    async def _attempt(self, posting: Posting, events: EventParser) -> Failure | None:
        """Post a message, or ask for the rest of its answer; None where nothing more is to be done."""
        again = bool(events.last_id)
        try:
            if again:
                response = await self._stream(events, patient=posting.is_call)
            else:
                headers, patient = {**SENDING, **posting.headers}, posting.is_call
                response = await request(self._client, "POST", self._url, headers, posting.line, patient=patient)
            async with aclosing(response):
                return await self._read(response, posting, events)
        except httpx2.RequestError as error:
            failure = network_failure(error)
        except TooLong:
            failure = Failure(Reason.PROTOCOL, f"sent an answer over {self._line_cap} bytes ({SERVER_LINE})")
        return replace(failure, undone=False) if again else failure  # what is asked for again was sent before

    async def _stream(self, events: EventParser, *, patient: bool = False) -> httpx2.Response:
        """The response that goes on where an event stream ended."""
        headers = {**LISTENING, **self._headers.standing()}
        if events.last_id:
            headers["last-event-id"] = events.last_id
        events.restart()
        return await request(self._client, "GET", self._url, headers, patient=patient)

    async def _listen(self) -> None:
        """Keep the standalone stream of a legacy session open; ask for it ever more slowly while it does not last."""
        loop = asyncio.get_running_loop()
        events, short, began = EventParser(self._line_cap), 0, loop.time()
        while await self._listen_once(events):
            short = short + 1 if loop.time() - began < LISTEN_LASTS else 0
            over = min(short - LISTEN_FREE, 16)  # more makes no difference, and a number too big for a float some day
            wanted = RETRY if events.retry is None else events.retry
            await asyncio.sleep(min(LISTEN_PAUSE, max(wanted, 2.0**over if over > 0 else 0)))
            began = loop.time()

    async def _listen_once(self, events: EventParser) -> bool:
        """Read the standalone stream to its end; whether it is worth asking for it again."""
        try:
            async with aclosing(await self._stream(events)) as response:
                if is_stream(response):
                    self._has_listened = True
                    async for event in events_of(response, events):
                        self._take(event, None)
                    return True
                # A server without a standalone stream answers 404 from the start, and that says nothing of the session.
                if response.status_code == 404 and self._has_listened:
                    self._postings.lose(FORGOTTEN)
                return response.status_code >= 500 or response.status_code in _TRY_LATER
        except httpx2.RequestError:
            return True
        except TooLong:
            events.last_id = ""  # or it would be sent again
            return True

    # -- what comes back -----------------------------------------------------------------------------------------

    async def _read(self, response: httpx2.Response, posting: Posting, events: EventParser) -> Failure | None:
        """What a response says; None where nothing more is to be done, else why it holds no answer."""
        session = response.headers.get(SESSION, "")
        # Sent back in a header of every request, so it must be fit for one.
        if posting.message.method == "initialize" and session.isascii() and session.isprintable():
            self._headers.session = session or None
        if is_stream(response):
            return await self._await_answer(response, posting, events) if posting.id is not None else None
        content = await body(response, self._line_cap)
        if response.status_code >= 400:
            return self._refused(response, content, posting)
        if posting.id is None:
            return None
        if (unusable := _unusable(response)) is not None:
            return unusable
        self._take_message(content, posting)
        return None if posting.done else NO_MESSAGE

    async def _await_answer(self, response: httpx2.Response, posting: Posting, events: EventParser) -> Failure | None:
        """Read the event stream of a request to its end; from when the answer is there, for a moment only."""
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError, httpx2.RequestError):
            async with asyncio.timeout(None) as limit:
                async for event in events_of(response, events):
                    self._take(event, posting)
                    # The server may send notifications after its answer, but the connection is needed for others.
                    if posting.done and limit.when() is None:
                        limit.reschedule(loop.time() + GRACE)
        return None if posting.done else BROKE_OFF

    def _refused(self, response: httpx2.Response, content: bytes, posting: Posting) -> Failure | None:
        """An HTTP error: the end of the connection, an answer that is an error, or a request that failed."""
        status = self.last_status = response.status_code
        error = RpcFault.read(content)
        if SESSION in posting.headers and _says_forgotten(status, error):
            # A refused GET asked for the rest of an answer: its request was sent long before.
            if response.request.method == "POST":
                self._postings.fail(posting, REFUSED)
            self._postings.forget()
        elif status in (401, 403):
            self._postings.lose(http_failure(status))
        elif posting.id is not None and error is not None and error.whole and media_type(response) == JSON:
            self._answer(posting, Message(error=error.raw), content)
        else:
            return http_failure(status)
        return None

    def _take(self, event: StreamEvent, posting: Posting | None) -> None:
        """One event, on the stream of a request or on the standalone one; one without data only tells its id."""
        if event.name == "message" and event.data:
            self._take_message(event.data, posting)

    def _take_message(self, data: bytes, posting: Posting | None) -> None:
        line = one_line(data)
        try:
            message = jsonrpc.decode(line)
        except jsonrpc.InvalidMessage:
            self._take_invalid(line, posting)
            return
        # On a request's own stream an answer is to that request, whatever id a faulty server gives it.
        asked = None if message.method else self._postings.find(message.id) or posting
        if asked is None:
            self._postings.line(line)
        else:
            self._answer(asked, message, line)

    def _take_invalid(self, line: bytes, posting: Posting | None) -> None:
        error = RpcFault.read(line)
        if posting is None:
            self._postings.line(line)  # to be counted as the invalid line that it is
        elif error is not None and error.whole:
            self._answer(posting, Message(error=error.raw), line)
        else:
            self._postings.fail(posting, NO_MESSAGE)

    def _answer(self, posting: Posting, message: Message, line: bytes) -> None:
        """The answer to a request, whatever id it carries."""
        if self._headers.session is not None and message.error is not ABSENT and _is_session_error(line):
            self._postings.fail(posting, REFUSED)
            self._postings.forget()
        elif self._postings.settle(posting):
            self._postings.line(self._learned(posting, message, line))

    def _learned(self, posting: Posting, message: Message, line: bytes) -> bytes:
        """The line of an answer, after keeping what later headers need of it."""
        result: Buffer = message.result
        if posting.message.method == "initialize":
            self._headers.initialized(result)
        elif posting.message.method == "tools/list":
            result, invalid = self._headers.listed(result)
            for name in invalid:
                self._postings.note(f"tool {name!r} is left out: its {ANNOTATION} annotations are not valid")
        id = b"%d" % (posting.id or 0)
        if result is message.result and bytes(message.id) == id:
            return line
        framed = jsonrpc.result(id, result) if message.error is ABSENT else jsonrpc.error(id, message.error)
        return b"".join(framed)[:-1]


@asynccontextmanager
async def open_http(spec: HttpSpec, receiver: Receiver, *, line_cap: int) -> AsyncIterator[StreamableHttp]:
    """A server's streamable HTTP endpoint. Raises Lost where the URL or the headers cannot be used."""
    transport = StreamableHttp(spec, await client_for(spec), receiver, line_cap=line_cap)
    try:
        yield transport
    finally:
        with anyio.CancelScope(shield=True):
            await transport.close()


def _can_resume(posting: Posting, failure: Failure, events: EventParser) -> bool:
    """Whether the rest of an answer can be asked for; the modern era has no such thing."""
    if posting.id is None or posting.is_modern:
        return False
    return bool(events.last_id) and failure.reason is Reason.UNREACHABLE


def _unusable(response: httpx2.Response) -> Failure | None:
    """Why a response below 400 cannot answer a request."""
    if not response.is_success:
        where = "elsewhere" if redirected(response) is None else "without end"
        return Failure(Reason.UNREACHABLE, f"HTTP {response.status_code}: redirects {where}")
    if response.status_code == 202:
        return Failure(Reason.PROTOCOL, "HTTP 202 in answer to a request")
    if media_type(response) != JSON:
        return Failure(Reason.PROTOCOL, "an answer that is neither JSON nor an event stream")
    return None


class RpcFault(NamedTuple):
    """A JSON-RPC error in a body. `whole`: it is a message, though its id may be none of ours."""

    code: int
    text: str
    raw: msgspec.Raw
    whole: bool

    @classmethod
    def read(cls, content: bytes) -> RpcFault | None:
        """The error in a body; None where it holds none."""
        try:
            members = jsonrpc.members(one_line(content))
            error = jsonrpc.members(members["error"])
            code, text = jsonrpc.value(error["code"]), jsonrpc.text(error["message"])
        except (ValueError, LookupError):
            return None
        if not isinstance(code, int) or text is None:
            return None
        is_framed = jsonrpc.text(members.get("jsonrpc")) == "2.0"
        return cls(code, text, members["error"], is_framed and "id" in members)


def _says_forgotten(status: int, error: RpcFault | None) -> bool:
    """Whether an HTTP error in answer to a request with a session id means that there is no such session.

    The specification says 404; servers made from the TypeScript SDK's examples say 400 with a message about it.
    """
    if status == 404:
        return error is None or error.code != METHOD_NOT_FOUND
    return status == 400 and error is not None and _SESSION_GONE.search(error.text) is not None


def _is_session_error(line: bytes) -> bool:
    """Whether an answer means that, as those of some servers do without an HTTP error."""
    error = RpcFault.read(line)
    return error is not None and error.code == INVALID_REQUEST and _SESSION_ERROR.match(error.text) is not None
