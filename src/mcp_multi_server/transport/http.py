"""Streamable HTTP and SSE: a server behind a URL, seen as a stream of JSON-RPC lines.

Streamable HTTP goes through the SDK's client, which begins, resumes and ends the HTTP requests, on a `Wire` of ours
that tells what the server said from what the SDK makes up. The SDK's SSE client takes 1 MiB an event and sends nothing
more after one failed POST, so SSE is put together here from the same parts.

Importing this costs the import of the SDK, 1 s and 60 MiB: import it in a thread, and only when a server has a URL.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import Context, ContextVar
from typing import Any
from urllib.parse import urljoin

import anyio
import httpx2
from anyio.abc import TaskGroup
from mcp.client._transport import ReadStream, WriteStream
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import sse_within_origin, stream_within_origin
from mcp.shared.inbound import (
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    NAME_BEARING_METHODS,
    X_MCP_HEADER_KEY,
    encode_header_value,
    find_invalid_x_mcp_header,
    mcp_param_headers,
    x_mcp_header_map,
)
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp_types import PROTOCOL_VERSION_META_KEY
from mcp_types.jsonrpc import JSONRPCError, JSONRPCMessage, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from ..core import jsonrpc
from ..core.errors import INVALID_REQUEST, PARSE_ERROR
from ..core.jsonrpc import Buffer
from ..core.lifecycle import Failure, Lost, Reason, http_failure
from . import Receiver
from .outbox import Gate, Outbox, Posting, cancelled_id, posted, while_wanted
from .wire import FORGOTTEN, NOTIFY_TIMEOUT, REFUSED, STOP_TIMEOUT, HttpSpec, Wire, client, network, network_failure

__all__ = ["HttpSpec", "ServerSentEvents", "StreamableHttp", "open_http", "open_sse"]

UNREADABLE = b"?"
"""Passed on in place of a message that the SDK could not read, to be counted as the invalid line it was."""
_INITIALIZED = "notifications/initialized"
"""The one message without an answer that what follows must not overtake."""
_DRAIN = 64 * 1024
_SESSION_ERROR = re.compile(r"session (not found|terminated|expired)", re.IGNORECASE)
_MADE_UP = (
    (PARSE_ERROR, "Failed to parse ", Failure(Reason.PROTOCOL, "an answer that is no JSON-RPC message")),
    (-32000, "SSE stream failed: ", Failure(Reason.PROTOCOL, "an answer over the size limit, or no event stream")),
    (-32000, "SSE stream ended", Failure(Reason.UNREACHABLE, "the connection broke before the answer")),
)
"""Errors that the SDK writes itself after an HTTP response that looked good, by code and beginning."""
_SDK_LOGGERS = ("mcp.client.streamable_http", "httpx2", "httpcore2.connection", "httpcore2.http11", "httpcore2.proxy")
_ours: ContextVar[bool] = ContextVar("ours", default=False)
"""Whether the running task serves one of our transports."""


def _not_ours(_: logging.LogRecord) -> bool:
    return not _ours.get()


for _name in _SDK_LOGGERS:  # they print payloads, URLs and tracebacks; what an application logs through them stays
    logging.getLogger(_name).addFilter(_not_ours)


class StreamableHttp:
    """A `Transport` over streamable HTTP, both eras. Nothing is asked of the server before the first line is sent."""

    kind: str = "http"
    pid: int | None = None

    def __init__(self, spec: HttpSpec, gate: Gate, *, line_cap: int) -> None:
        self._spec = spec
        self._gate = gate
        self._line_cap = line_cap
        self._outbox = Outbox(gate)
        self._wire = Wire(network(spec.url), gate, refused=self._refused, line_cap=line_cap)
        self._client = client(spec, self._wire)
        self._version: str | None = None
        self._param_headers: dict[str, dict[tuple[str, ...], str]] = {}
        self.last_status: int | None = None

    def send(self, parts: Sequence[Buffer]) -> None:
        """Queue one line; never waits."""
        self._outbox.put(parts)

    async def run(self) -> None:
        """Serve until the gate is closed."""
        url, cap = self._spec.url, self._line_cap
        async with (
            self._client,
            streamable_http_client(url, http_client=self._client, max_sse_event_size=cap) as (incoming, outgoing),
            anyio.create_task_group() as tasks,
        ):
            self._wire.use(tasks)
            tasks.start_soon(self._read, incoming)
            tasks.start_soon(self._write, outgoing)
            await self._gate.ended.wait()
            tasks.cancel_scope.cancel()

    def _refused(self, status: int) -> None:
        self.last_status = status

    async def _write(self, outgoing: WriteStream[SessionMessage]) -> None:
        while True:
            posting = await self._outbox.get()
            posted.set(posting)
            metadata = ClientMessageMetadata(headers=self._headers(posting.message))
            await outgoing.send(SessionMessage(_envelope(posting), metadata))
            if posting.id is None:
                self._outbox.settle(posting)

    def _headers(self, message: jsonrpc.Message) -> dict[str, str]:
        """The headers of one message; those of the modern era repeat what its body says."""
        if message.method == "initialize":
            self._version = None
        params = jsonrpc.members(message.params) if message.params else {}
        version = _modern_version(params)
        if version is None:
            return {MCP_PROTOCOL_VERSION_HEADER: self._version} if self._version else {}
        headers = {MCP_PROTOCOL_VERSION_HEADER: version, MCP_METHOD_HEADER: message.method}
        name = jsonrpc.text(params.get(NAME_BEARING_METHODS.get(message.method, "")))
        if name is not None:
            headers[MCP_NAME_HEADER] = name
        encoded = {key: encode_header_value(text) for key, text in headers.items()}
        if message.method == "tools/call" and name in self._param_headers and "arguments" in params:
            encoded |= mcp_param_headers(self._param_headers[name], jsonrpc.value(params["arguments"]))
        return encoded

    async def _read(self, incoming: ReadStream[SessionMessage | Exception]) -> None:
        async for item in incoming:
            if isinstance(item, Exception):
                self._gate.line(UNREADABLE)
            elif isinstance(item.message, JSONRPCResponse | JSONRPCError):
                context: Context | None = getattr(incoming, "last_context", None)
                posting = context.get(posted) if context is not None else None
                self._answer(posting or self._outbox.find(item.message.id), item.message)
            else:
                self._gate.line(_dump(item.message))
        self._gate.lost(Failure(Reason.INTERNAL, "the HTTP client ended"))

    def _answer(self, posting: Posting | None, message: JSONRPCResponse | JSONRPCError) -> None:
        """Settle a request: by its answer, or by the reason why what came is none."""
        if posting is None or posting.id is None:
            self._gate.line(_dump(message))
            return
        failure = posting.failure or _made_up(message)
        if failure is not None:
            self._outbox.fail(posting, failure)
            return
        if self._wire.session and _is_session_error(message):
            self._outbox.fail(posting, REFUSED)
            self._gate.lost(FORGOTTEN)
            return
        if self._outbox.settle(posting):
            message.id = posting.id
            self._gate.line(self._learn(posting.message.method, message))

    def _learn(self, method: str, message: JSONRPCResponse | JSONRPCError) -> bytes:
        """The line of an answer, after keeping what later headers need of it.

        Tools whose header annotations are not valid are left out, as 2026-07-28 demands of HTTP clients.
        """
        line = _dump(message)
        if isinstance(message, JSONRPCError):
            return line
        version, tools = message.result.get("protocolVersion"), message.result.get("tools")
        if method == "initialize" and isinstance(version, str):
            self._version = encode_header_value(version)
        if method == "tools/list" and isinstance(tools, list) and X_MCP_HEADER_KEY.encode() in line:
            message.result["tools"] = [tool for tool in tools if self._is_usable(tool)]
            return _dump(message)
        return line

    def _is_usable(self, tool: Any) -> bool:
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(name, str):
            return True
        if find_invalid_x_mcp_header(tool.get("inputSchema")) is not None:
            self._gate.note(f"tool {name!r} is left out: its {X_MCP_HEADER_KEY} annotations are not valid")
            return False
        self._param_headers[name] = x_mcp_header_map(tool.get("inputSchema"))
        return True


class ServerSentEvents:
    """A `Transport` over HTTP+SSE, the way of revision 2024-11-05: one stream in, one POST a message out."""

    kind: str = "sse"
    pid: int | None = None

    def __init__(self, spec: HttpSpec, gate: Gate, *, line_cap: int) -> None:
        self._spec = spec
        self._gate = gate
        self._line_cap = line_cap
        self._outbox = Outbox(gate)
        self._client = client(spec, network(spec.url))
        self._endpoint: httpx2.URL | None = None
        self.ready = anyio.Event()
        """Set when messages can be posted, or never will be."""
        self.last_status: int | None = None

    def send(self, parts: Sequence[Buffer]) -> None:
        """Queue one line; never waits."""
        self._outbox.put(parts)

    async def run(self) -> None:
        """Serve until the gate is closed."""
        async with self._client, anyio.create_task_group() as tasks:
            tasks.start_soon(self._read)
            tasks.start_soon(self._write, tasks)
            await self._gate.ended.wait()
            tasks.cancel_scope.cancel()

    async def _read(self) -> None:
        try:
            async with sse_within_origin(self._client, self._spec.url, max_event_size=self._line_cap) as events:
                if not events.response.is_success:
                    self.last_status = events.response.status_code
                    self._gate.lost(http_failure(self.last_status))
                    return
                async for event in events:
                    self._take(event)
            self._gate.lost(Failure(Reason.CLOSED, "the event stream ended"))
        except httpx2.SSEError:
            self._gate.lost(Failure(Reason.PROTOCOL, f"no event stream, or an event over {self._line_cap} bytes"))
        except httpx2.RequestError as error:
            self._gate.lost(network_failure(error))
        finally:
            self.ready.set()

    def _take(self, event: httpx2.ServerSentEvent) -> None:
        if event.event == "message" and event.data:
            self._gate.line(event.data.replace("\n", " ").encode())  # JSON has line breaks between its tokens only
        elif event.event == "endpoint" and self._endpoint is None:
            self._endpoint = _endpoint(self._spec.url, event.data)
            if self._endpoint is None:
                self._gate.lost(Failure(Reason.PROTOCOL, "the event stream names an endpoint that is not its own"))
            self.ready.set()

    async def _write(self, tasks: TaskGroup) -> None:
        await self.ready.wait()
        while True:
            posting = await self._outbox.get()
            if posting.message.method == _INITIALIZED:
                await self._post(posting)
            else:
                tasks.start_soon(self._post, posting)

    async def _post(self, posting: Posting) -> None:
        try:
            with while_wanted(posting):
                status = await self._status_of(posting)
        except httpx2.RequestError as error:
            self._outbox.fail(posting, network_failure(error))
            return
        if posting.abandoned:
            return
        if status < 300:
            self._outbox.settle(posting)
            return
        self.last_status = status
        if status in (401, 403):
            self._gate.lost(http_failure(status))
        elif status == 404:
            self._gate.lost(FORGOTTEN)
        self._outbox.fail(posting, http_failure(status))

    async def _status_of(self, posting: Posting) -> int:
        """Post a message; the answer comes on the event stream, so only the status counts."""
        url = self._endpoint or self._spec.url
        timeout = self._client.timeout if posting.id is not None else httpx2.Timeout(NOTIFY_TIMEOUT)
        headers = {"content-type": "application/json"}
        async with stream_within_origin(
            self._client, "POST", url, content=posting.line, headers=headers, timeout=timeout
        ) as response:
            size = 0
            async for chunk in response.aiter_bytes():  # a body read to its end leaves the connection usable
                size += len(chunk)
                if size > _DRAIN:
                    break
            return response.status_code


@asynccontextmanager
async def open_http(spec: HttpSpec, receiver: Receiver, *, line_cap: int) -> AsyncIterator[StreamableHttp]:
    """A server's streamable HTTP endpoint. Raises Lost where the URL or the headers cannot be used."""
    gate = Gate(receiver, announced=True)
    with _config_checked():
        transport = StreamableHttp(spec, gate, line_cap=line_cap)
    async with _running(transport.run, gate):
        yield transport


@asynccontextmanager
async def open_sse(spec: HttpSpec, receiver: Receiver, *, line_cap: int) -> AsyncIterator[ServerSentEvents]:
    """A server's SSE endpoint. Raises Lost where its stream does not begin within the start timeout."""
    gate = Gate(receiver, announced=False)
    with _config_checked():
        transport = ServerSentEvents(spec, gate, line_cap=line_cap)
    async with _running(transport.run, gate):
        with anyio.move_on_after(spec.start_timeout):
            await transport.ready.wait()
        if gate.failure is not None or not transport.ready.is_set():
            late = Failure(Reason.UNREACHABLE, f"no endpoint event within {spec.start_timeout:g} s")
            raise Lost(gate.failure or late)
        gate.announce()
        yield transport


@asynccontextmanager
async def _running(run: Callable[[], Awaitable[None]], gate: Gate) -> AsyncIterator[None]:
    """Run a transport in a task of its own: what it raises or cancels stays there, and leaving it is bounded."""
    scope, finished = anyio.CancelScope(shield=True), anyio.Event()
    raised: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_contained, run, gate, scope, finished)
        try:
            yield
        except Exception as error:  # raised again below, since the group would wrap it
            raised = error
        finally:
            gate.close()
            with anyio.move_on_after(STOP_TIMEOUT, shield=True):
                await finished.wait()
            scope.cancel()
    if raised is not None:
        raise raised


async def _contained(
    run: Callable[[], Awaitable[None]], gate: Gate, scope: anyio.CancelScope, finished: anyio.Event
) -> None:
    _ours.set(True)
    try:
        with scope:
            await run()
    except Exception as error:  # whatever the libraries raise is one more way to lose a connection
        gate.lost(Failure(Reason.INTERNAL, f"the HTTP client failed: {_kind(error)}"))
    finally:
        finished.set()


@contextmanager
def _config_checked() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, ImportError, httpx2.InvalidURL):
        message = "its url, headers or proxy cannot be used"
        raise Lost(Failure(Reason.CONFIG, message, permanent=True)) from None


def _kind(error: BaseException) -> str:
    """The type of the error that matters, out of the groups around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return type(error).__name__


def _endpoint(stream: str, named: str) -> httpx2.URL | None:
    """The URL that an endpoint event names; None where it is of another origin or none at all."""
    try:
        base, url = httpx2.URL(stream), httpx2.URL(urljoin(stream, named))
    except (httpx2.InvalidURL, ValueError):
        return None
    return url if (url.scheme, url.host, url.port) == (base.scheme, base.host, base.port) else None


def _envelope(posting: Posting) -> JSONRPCMessage:
    """As much of a message as the SDK looks at; the wire puts in the rest."""
    message = posting.message
    if not message.method:
        return JSONRPCResponse(jsonrpc="2.0", id=jsonrpc.value(message.id), result={})
    if posting.id is not None:
        return JSONRPCRequest(jsonrpc="2.0", id=posting.id, method=message.method)
    params = {"requestId": id} if (id := cancelled_id(message)) is not None else None
    return JSONRPCNotification(jsonrpc="2.0", method=message.method, params=params)


def _modern_version(params: jsonrpc.Members) -> str | None:
    """The protocol version that a request of the modern era carries."""
    meta = params.get("_meta")
    if meta is None or not jsonrpc.is_object(meta):
        return None
    return jsonrpc.text(jsonrpc.members(meta).get(PROTOCOL_VERSION_META_KEY))


def _dump(message: JSONRPCMessage) -> bytes:
    return message.model_dump_json(by_alias=True, exclude_unset=True).encode()


def _made_up(message: JSONRPCResponse | JSONRPCError) -> Failure | None:
    if isinstance(message, JSONRPCResponse):
        return None
    code, text = message.error.code, message.error.message
    return next((failure for known, head, failure in _MADE_UP if code == known and text.startswith(head)), None)


def _is_session_error(message: JSONRPCResponse | JSONRPCError) -> bool:
    if isinstance(message, JSONRPCResponse) or message.error.code != INVALID_REQUEST:
        return False
    return _SESSION_ERROR.match(message.error.message) is not None
