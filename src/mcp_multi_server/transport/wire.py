"""The HTTP below the HTTP transports: requests, connections, and what their failures mean."""

from __future__ import annotations

import ipaddress
import math
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from urllib.request import getproxies, proxy_bypass

import anyio
import httpx2
import msgspec
from anyio.abc import TaskGroup

from ..core import jsonrpc
from ..core.errors import METHOD_NOT_FOUND
from ..core.lifecycle import Failure, Reason, http_failure
from ..core.settings import ServerConfig
from .outbox import Gate, Posting, posted, while_wanted

CONNECT_TIMEOUT = 10.0
IDLE_TIMEOUT = 300.0
"""Seconds without a byte after which an open stream counts as dead; servers send comments more often than that."""
NOTIFY_TIMEOUT = 5.0
"""Seconds a server may take to accept a message that gets no answer."""
STOP_TIMEOUT = 2.0
"""Seconds that leaving waits for the session to be ended at the server."""
KEEPALIVE = 4.0
"""Seconds an idle connection is kept: less than the 5 after which uvicorn and Node close theirs, since a request that
meets the closing one fails and is not sent again."""
MAX_CONNECTIONS = 512
MAX_BACKGROUND = 64
"""Messages without an answer that may be on their way at once; a server that takes none loses those beyond."""
LISTEN_LASTS = 5.0
LISTEN_FREE = 3
LISTEN_PAUSE = 60.0
"""A standalone stream that lasts less than LISTEN_LASTS seconds is opened again LISTEN_FREE times as soon as the SDK
asks (after a second, for ever), then after 2, 4, 8 … LISTEN_PAUSE seconds."""

SESSION_ID = "mcp-session-id"
GIVEN_UP = Failure(Reason.UNREACHABLE, "given up")
FORGOTTEN = Failure(Reason.SESSION, "the server forgot the session")
REFUSED = replace(FORGOTTEN, undone=True)
_SESSION_GONE = re.compile(r"session|not initialized", re.IGNORECASE)
_FRAMING = frozenset({"content-encoding", "content-length", "transfer-encoding"})
_TLS = httpx2.create_ssl_context()
"""One for all servers: making it takes 100 ms."""


class RpcFault(NamedTuple):
    """A JSON-RPC error in the body of an HTTP error. `whole`: the SDK takes it for a message."""

    code: int
    message: str
    whole: bool


@dataclass(frozen=True, slots=True)
class HttpSpec:
    """Where a server is. `timeout` and `start_timeout`: seconds a call, and reaching the server, may take."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    timeout: float = 60.0
    start_timeout: float = 30.0

    @classmethod
    def of(cls, config: ServerConfig) -> HttpSpec:
        """What an entry of the config says about its `url`."""
        return cls(config.url or "", config.headers, config.timeout, config.start_timeout)


class Wire(httpx2.AsyncBaseTransport):
    """Carries the SDK's HTTP requests: puts our bytes on them, and answers for a server that does not.

    The SDK lets a connect error, or a body that breaks off, end the connection and cancel the task that holds it.
    """

    def __init__(
        self, inner: httpx2.AsyncBaseTransport, gate: Gate, *, refused: Callable[[int], None], line_cap: int
    ) -> None:
        self._inner = inner
        self._gate = gate
        self._refused = refused
        self._line_cap = line_cap
        self._tasks: TaskGroup | None = None
        self._background = 0
        self._opened = -math.inf
        self._short = 0
        self.session = False
        """Whether the server has given us a session."""

    def use(self, tasks: TaskGroup) -> None:
        """Where messages that get no answer are posted, so that none of them holds up what comes after it."""
        self._tasks = tasks

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The server's response, or one made here where there is none; raises nothing of the network's."""
        posting = posted.get()
        self.session = self.session or SESSION_ID in request.headers
        if posting is None or request.method == "DELETE":
            return (await self._fetch(_within(request, STOP_TIMEOUT)))[0]
        if request.method == "GET":
            return await (self._listen(request) if posting.id is None else self._resume(request, posting))
        request = _with_body(request, posting.line)
        if posting.id is not None:
            return await self._exchange(request, posting)
        if posting.message.method == "notifications/initialized" or self._tasks is None:
            await self._deliver(request)
        elif self._background < MAX_BACKGROUND:
            self._background += 1
            self._tasks.start_soon(self._deliver_behind, request)
        return httpx2.Response(202)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()

    async def _exchange(self, request: httpx2.Request, posting: Posting) -> httpx2.Response:
        response, failure = await self._fetch(request, posting)
        posting.failure = failure or self._judge(request, response, posting)
        return response

    async def _deliver(self, request: httpx2.Request) -> None:
        response, failure = await self._fetch(_within(request, NOTIFY_TIMEOUT))
        if failure is None:
            self._judge(request, response)
        await response.aclose()

    async def _deliver_behind(self, request: httpx2.Request) -> None:
        try:
            await self._deliver(request)
        finally:
            self._background -= 1

    async def _resume(self, request: httpx2.Request, posting: Posting) -> httpx2.Response:
        """An answer that broke off is asked for again, unless nobody waits for it any more."""
        if posting.done:
            return httpx2.Response(410)
        response = await self._exchange(request, posting)
        if posting.failure is not None:
            posting.failure = replace(posting.failure, undone=False)  # what is asked for again was sent before
        return response

    async def _listen(self, request: httpx2.Request) -> httpx2.Response:
        """The standalone stream: opened for ever, but ever more slowly while it does not last."""
        while True:
            lasted = time.monotonic() - self._opened
            self._short = self._short + 1 if lasted < LISTEN_LASTS else 0
            over = min(self._short - LISTEN_FREE, 16)
            await anyio.sleep(min(LISTEN_PAUSE, 2.0**over) if over > 0 else 0)
            self._opened = time.monotonic()
            response, _ = await self._fetch(request)
            if response.status_code < 500:
                return response

    async def _fetch(
        self, request: httpx2.Request, posting: Posting | None = None
    ) -> tuple[httpx2.Response, Failure | None]:
        """A response, its body an event stream or read already; and the failure, where it is not the server's."""
        found: tuple[httpx2.Response, Failure | None] = httpx2.Response(503), GIVEN_UP
        try:
            with while_wanted(posting):
                found = await self._receive(request, posting)
        except httpx2.RequestError as error:
            return httpx2.Response(503), network_failure(error)
        return found

    async def _receive(
        self, request: httpx2.Request, posting: Posting | None
    ) -> tuple[httpx2.Response, Failure | None]:
        response = await self._inner.handle_async_request(request)
        if not response.is_success or media_type(response) != "text/event-stream":
            return await self._whole(response)
        response.stream = _Stream(response.stream, posting)
        return response, None

    async def _whole(self, response: httpx2.Response) -> tuple[httpx2.Response, Failure | None]:
        body = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > self._line_cap:
                    return httpx2.Response(503), Failure(Reason.PROTOCOL, f"an answer over {self._line_cap} bytes")
        finally:
            await response.aclose()
        headers = [(name, text) for name, text in response.headers.multi_items() if name.lower() not in _FRAMING]
        return httpx2.Response(response.status_code, headers=headers, content=bytes(body)), None

    def _judge(
        self, request: httpx2.Request, response: httpx2.Response, posting: Posting | None = None
    ) -> Failure | None:
        """Why a response holds no JSON-RPC message; tells the gate where it means the end of the connection."""
        status = response.status_code
        if status < 400:
            return _unusable(response)
        self._refused(status)
        fault = _rpc_fault(response)
        if SESSION_ID in request.headers and _says_forgotten(status, fault):
            if posting is not None and posting.id is not None and request.method == "POST":
                self._gate.failed(posting.id, REFUSED)  # of this one request it is certain; what else is open, is not
            self._gate.lost(FORGOTTEN)
        elif status in (401, 403):
            self._gate.lost(http_failure(status))
        return None if fault is not None and fault.whole else http_failure(status)


class _Stream(httpx2.AsyncByteStream):
    """A body that ends where it breaks, or when nobody waits for it any more."""

    def __init__(self, stream: Any, posting: Posting | None) -> None:
        self._stream = stream
        self._posting = posting

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = aiter(self._stream)
        while (chunk := await self._next(chunks)) is not None:
            if self._posting is not None and self._posting.done:
                return
            yield chunk

    async def _next(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        with suppress(httpx2.TransportError, StopAsyncIteration), while_wanted(self._posting):
            return await anext(chunks)
        return None

    async def aclose(self) -> None:
        await self._stream.aclose()


def client(spec: HttpSpec, transport: httpx2.AsyncBaseTransport) -> httpx2.AsyncClient:
    """An HTTP client for one server. Raises ValueError where a header cannot be sent."""
    headers = httpx2.Headers({"user-agent": "mcp-multi-server"})
    headers.update(spec.headers)
    if any(not value.isprintable() for value in headers.values()):
        raise ValueError("control characters in a header")
    timeout = httpx2.Timeout(
        spec.timeout,
        connect=min(CONNECT_TIMEOUT, spec.start_timeout),
        read=max(IDLE_TIMEOUT, spec.timeout + NOTIFY_TIMEOUT),
    )
    return httpx2.AsyncClient(headers=headers, timeout=timeout, transport=transport)


def network(url: str) -> httpx2.AsyncBaseTransport:
    """Connections to one server, through the proxy that the environment names for it.

    Raises httpx2.InvalidURL, ValueError or ImportError (a SOCKS proxy) where there can be none.
    """
    target = httpx2.URL(url)
    if target.scheme not in ("http", "https") or not target.host:
        raise ValueError("neither http nor https")
    limits = httpx2.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEPALIVE)
    return httpx2.AsyncHTTPTransport(verify=_TLS, limits=limits, proxy=_proxy(target))


def media_type(response: httpx2.Response) -> str:
    """The content type without its parameters."""
    kind: str = response.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower()


def network_failure(error: httpx2.RequestError) -> Failure:
    """What a failed request means, in our words: those of the library may hold parts of the URL."""
    found = next((text for cause in _causes(error) for kind, text in _CAUSES if isinstance(cause, kind)), None)
    undone = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
    return Failure(Reason.UNREACHABLE, found or "the connection broke", undone=undone)


_CAUSES: tuple[tuple[type[BaseException], str], ...] = (
    (ConnectionRefusedError, "connection refused"),
    (socket.gaierror, "host name not found"),
    (ssl.SSLCertVerificationError, "its TLS certificate is not valid"),
    (ssl.SSLError, "no TLS connection"),
    (httpx2.ConnectTimeout, "connecting takes too long"),
    (httpx2.PoolTimeout, "too many connections are open"),
    (httpx2.TimeoutException, "no answer in time"),
    (httpx2.ConnectError, "cannot connect"),
    (httpx2.ProxyError, "the proxy refuses"),
    (httpx2.DecodingError, "an answer in a broken encoding"),
    (httpx2.LocalProtocolError, "the request is no valid HTTP; check its headers"),
)


def _causes(error: BaseException) -> list[BaseException]:
    """An error's causes, the first one first, itself last."""
    chain: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and len(chain) < 16:
        chain.append(found)
        inner = found.exceptions[0] if isinstance(found, BaseExceptionGroup) else None
        found = inner or found.__cause__ or found.__context__
    return chain[::-1]


def _proxy(url: httpx2.URL) -> str | None:
    if _is_loopback(url.host) or proxy_bypass(url.netloc.decode()):
        return None
    proxies = getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    return found if not found or "://" in found else f"http://{found}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _with_body(request: httpx2.Request, line: bytes) -> httpx2.Request:
    headers = request.headers.copy()
    headers["content-length"] = str(len(line))
    return httpx2.Request(
        request.method, request.url, headers=headers, stream=httpx2.ByteStream(line), extensions=request.extensions
    )


def _within(request: httpx2.Request, seconds: float) -> httpx2.Request:
    limits = dict.fromkeys(("connect", "read", "write", "pool"), seconds)
    request.extensions = {**request.extensions, "timeout": limits}
    return request


def _unusable(response: httpx2.Response) -> Failure | None:
    """Why a response below 400 cannot answer a request."""
    if not response.is_success:
        return Failure(Reason.UNREACHABLE, f"HTTP {response.status_code}: redirects elsewhere")
    if response.status_code == 202:
        return Failure(Reason.PROTOCOL, "HTTP 202 in answer to a request")
    if media_type(response) not in ("application/json", "text/event-stream"):
        return Failure(Reason.PROTOCOL, "an answer that is neither JSON nor an event stream")
    return None


def _rpc_fault(response: httpx2.Response) -> RpcFault | None:
    """The JSON-RPC error in a body, or None where it holds none."""
    try:
        members = jsonrpc.members(response.content)
        error, id = jsonrpc.value(members["error"]), jsonrpc.value(members.get("id", b"0.5"))
        code, message = error["code"], error["message"]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError):
        return None
    if not isinstance(code, int) or not isinstance(message, str):
        return None
    framed = jsonrpc.text(members.get("jsonrpc")) == "2.0" and isinstance(id, (int, str, type(None)))
    return RpcFault(code, message, framed and media_type(response) == "application/json")


def _says_forgotten(status: int, fault: RpcFault | None) -> bool:
    """Whether a response to a request with a session id means that there is no such session.

    The specification says 404; servers made from the TypeScript SDK's examples say 400 with a message about it.
    """
    if status == 404:
        return fault is None or fault.code != METHOD_NOT_FOUND
    return status == 400 and fault is not None and _SESSION_GONE.search(fault.message) is not None
