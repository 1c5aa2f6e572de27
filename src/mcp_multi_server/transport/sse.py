"""HTTP+SSE, the way of revision 2024-11-05: a server behind a URL, seen as a stream of JSON-RPC lines.

All that the server says comes on one event stream, which begins with the endpoint that messages are posted to.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace

import anyio
import httpx2

from ..core.config.settings import SERVER_LINE
from ..core.jsonrpc import Buffer
from ..core.lifecycle import Failure, Lost, Reason, http_failure
from . import Receiver
from .http_client import (
    LISTENING,
    SENDING,
    HttpSpec,
    body,
    client_for,
    events_of,
    is_stream,
    network_failure,
    one_line,
    request,
    within_origin,
)
from .postings import FORGOTTEN, Posting, Postings
from .sse_parser import EventParser, TooLong


class ServerSentEvents:
    """A `Transport` over HTTP+SSE: one stream in, one POST a message out.

    Made by `open_sse`, which begins it with `begin` and ends it with `close`.
    """

    kind: str = "sse"
    pid: int | None = None

    def __init__(self, spec: HttpSpec, client: httpx2.AsyncClient, receiver: Receiver, *, line_cap: int) -> None:
        self._spec = spec
        self._client = client
        self._receiver = receiver
        self._events = EventParser(line_cap)
        self._postings = Postings(replace(receiver, lost=self._lost), headers=lambda message: {}, post=self._post)
        self._endpoint: asyncio.Future[httpx2.URL] = asyncio.get_running_loop().create_future()
        self.last_status: int | None = None

    def send(self, parts: Sequence[Buffer]) -> None:
        """Post one line; never waits."""
        self._postings.send(parts)

    async def begin(self) -> None:
        """Open the stream. Raises Lost where it does not name its endpoint within the start timeout."""
        self._postings.spawn(self._read())
        try:
            async with asyncio.timeout(self._spec.start_timeout):
                await self._endpoint
        except TimeoutError:
            late = f"no endpoint event within {self._spec.start_timeout:g} s"
            raise Lost(Failure(Reason.UNREACHABLE, late)) from None

    async def close(self) -> None:
        """Give up what is on its way, and the stream."""
        await self._postings.close(self._client.aclose())

    def _lost(self, failure: Failure) -> None:
        """Before there is an endpoint, whoever waits for it is told."""
        if self._endpoint.done():
            self._receiver.lost(failure)
        else:
            self._endpoint.set_exception(Lost(failure))

    async def _read(self) -> None:
        """Read the stream to its end, which is that of the connection."""
        try:
            async with aclosing(await request(self._client, "GET", self._spec.url, LISTENING)) as response:
                failure = await self._follow(response)
        except httpx2.RequestError as error:
            failure = network_failure(error)
        except TooLong:
            failure = Failure(Reason.PROTOCOL, f"sent an event over {self._events.cap} bytes ({SERVER_LINE})")
        self._postings.lose(failure)

    async def _follow(self, response: httpx2.Response) -> Failure:
        if not response.is_success:
            self.last_status = response.status_code
            return http_failure(self.last_status)
        if not is_stream(response):
            return Failure(Reason.PROTOCOL, "no event stream")
        async for event in events_of(response, self._events):
            if event.name == "message" and event.data:
                self._postings.line(one_line(event.data))
            elif event.name == "endpoint" and not self._endpoint.done():
                endpoint = within_origin(self._spec.url, event.data.decode(errors="replace"))
                if endpoint is None:
                    return Failure(Reason.PROTOCOL, "the event stream names an endpoint that is not its own")
                self._endpoint.set_result(endpoint)
        return Failure(Reason.CLOSED, "the event stream ended")

    async def _post(self, posting: Posting) -> None:
        """Post a message; its answer comes on the stream, so only the status counts."""
        url = self._endpoint.result()
        patient = posting.is_call  # some servers answer the POST when they have carried it out
        async with aclosing(
            await request(self._client, "POST", url, SENDING, posting.line, patient=patient)
        ) as response:
            if response.is_success:
                self._postings.settle(posting)
                with suppress(TooLong):
                    await body(response, self._events.cap)  # read to its end, it leaves the connection usable
                return
        status = self.last_status = response.status_code
        if status in (401, 403):
            self._postings.lose(http_failure(status))
        elif status == 404:
            self._postings.lose(FORGOTTEN)
        self._postings.fail(posting, http_failure(status))


@asynccontextmanager
async def open_sse(spec: HttpSpec, receiver: Receiver, *, line_cap: int) -> AsyncIterator[ServerSentEvents]:
    """A server's SSE endpoint. Raises Lost where its stream does not begin within the start timeout."""
    transport = ServerSentEvents(spec, await client_for(spec), receiver, line_cap=line_cap)
    try:
        await transport.begin()
        yield transport
    finally:
        with anyio.CancelScope(shield=True):
            await transport.close()
