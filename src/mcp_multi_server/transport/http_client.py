"""The HTTP below the HTTP transports: one client for one server, where it may go, and what its failures mean."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from urllib.request import getproxies, proxy_bypass

import anyio.to_thread
import httpx2

from ..core.config.settings import ServerConfig
from ..core.lifecycle import Failure, Lost, Reason
from .sse_parser import EventParser, StreamEvent, TooLong

JSON, EVENTS = "application/json", "text/event-stream"
SENDING = {"accept": f"{JSON}, {EVENTS}", "content-type": JSON}
LISTENING = {"accept": EVENTS, "cache-control": "no-store"}

CONNECT_TIMEOUT = 10.0
IDLE_TIMEOUT = 300.0
"""Seconds without a byte after which an open stream counts as dead; servers send comments more often than that."""
IDLE_SPARE = 5.0
"""Seconds by which it is longer than a call may take: the call's own deadline comes first."""
KEEPALIVE = 4.0
"""Seconds an idle connection is kept: less than the 5 after which uvicorn and Node close theirs, since a request that
meets the closing one fails and is not sent again."""
MAX_CONNECTIONS = 512
MAX_IDLE = 8
"""Connections kept beyond that cost every request more than opening one does: each is looked at each time."""
MAX_REDIRECTS = 5
_REDIRECT_BODY = 64 * 1024
_INFLATED = 128 * 1024
"""Bytes; the network brings fewer at a time, so a longer piece was compressed."""

silent: ContextVar[bool] = ContextVar("silent", default=False)
"""Set where requests to servers are made: what the libraries log of those holds URLs with tokens in them."""
for _name in ("httpx2", "httpcore2.connection", "httpcore2.http11", "httpcore2.proxy", "httpcore2.socks"):
    logging.getLogger(_name).addFilter(lambda record: not silent.get())


@dataclass(frozen=True, slots=True)
class HttpSpec:
    """Where a server is. `timeout` and `start_timeout`: seconds a call, and reaching the server, may take."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    timeout: float = 60.0
    start_timeout: float = 30.0
    auth: httpx2.Auth | None = field(default=None, repr=False)
    """Proves to the server who asks; may answer a 401 with a better proof."""

    @classmethod
    def of(cls, config: ServerConfig) -> HttpSpec:
        """What an entry of the config says about its `url`."""
        return cls(config.url or "", config.headers, config.timeout, config.start_timeout)


async def client_for(spec: HttpSpec) -> httpx2.AsyncClient:
    """An HTTP client for one server, through the proxy that the environment names for it.

    Made in a thread, as the first one takes 30 ms to import what it needs, and the first with TLS 40 ms to read the
    certificates. Raises Lost where the URL, a header or the proxy cannot be used.
    """
    try:
        return await anyio.to_thread.run_sync(_make_client, spec)
    except (ValueError, ImportError, httpx2.InvalidURL):
        unusable = Failure(Reason.CONFIG, "its url, headers or proxy cannot be used", permanent=True)
        raise Lost(unusable) from None


async def request(
    client: httpx2.AsyncClient,
    method: str,
    url: str | httpx2.URL,
    headers: Mapping[str, str],
    content: bytes | None = None,
    *,
    patient: bool = False,
) -> httpx2.Response:
    """The response to a request, its body unread; to be closed by the caller. Raises httpx2.RequestError.

    Redirects are followed within the origin, with the method and the body that they are an answer to. `patient`: an
    idle connection is no reason to give it up, as somebody else does so in time.
    """
    timeout = client.timeout.as_dict() | ({"read": None} if patient else {})
    asked = client.build_request(method, url, headers=headers, content=content, timeout=httpx2.Timeout(**timeout))
    for _ in range(MAX_REDIRECTS):
        response = await client.send(asked, stream=True, follow_redirects=False)
        onward = redirected(response)
        if onward is None:
            return response
        try:
            await body(response, _REDIRECT_BODY)  # read to its end, it leaves the connection usable
        except TooLong:
            pass
        finally:
            await response.aclose()
        asked = onward
    return await client.send(asked, stream=True, follow_redirects=False)


def redirected(response: httpx2.Response) -> httpx2.Request | None:
    """The request that a response redirects to, unless it leads elsewhere or would be another one."""
    asked, onward = response.request, response.next_request
    if onward is None or onward.method != asked.method or _origin(onward.url) != _origin(asked.url):
        return None
    return onward if onward.url.userinfo in (b"", asked.url.userinfo) else None


def within_origin(url: str, named: str) -> httpx2.URL | None:
    """The URL that a server names, relative to its own or not; None where it is of another origin or none at all."""
    try:
        own = httpx2.URL(url)
        found = own.join(named)
    except (httpx2.InvalidURL, ValueError):
        return None
    return found if _origin(found) == _origin(own) else None


async def pieces(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The body of a response as it comes, inflated a mebibyte at a time with a turn for others after each."""
    async for piece in response.aiter_bytes():
        yield piece
        if len(piece) > _INFLATED:
            await asyncio.sleep(0)


async def body(response: httpx2.Response, cap: int) -> bytes:
    """The whole body of a response. Raises TooLong where it is larger than the cap."""
    found, size = [], 0
    async for piece in pieces(response):
        found.append(piece)
        size += len(piece)
        if size > cap:
            raise TooLong
    return b"".join(found)


async def events_of(response: httpx2.Response, parser: EventParser) -> AsyncIterator[StreamEvent]:
    """The events of a stream as they come. Raises TooLong."""
    async for piece in pieces(response):
        for event in parser.feed(piece):
            yield event


def one_line(data: bytes) -> bytes:
    """A message as a line; JSON has line breaks between its tokens only."""
    return data.replace(b"\r", b" ").replace(b"\n", b" ") if b"\n" in data or b"\r" in data else data


def is_stream(response: httpx2.Response) -> bool:
    """Whether the body is a stream of events."""
    return response.is_success and media_type(response) == EVENTS


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


def _make_client(spec: HttpSpec) -> httpx2.AsyncClient:
    target = httpx2.URL(spec.url)
    if target.scheme not in ("http", "https") or not target.host:
        raise ValueError("neither http nor https")
    proxy = _proxy(target)
    needs_tls = target.scheme == "https" or (proxy or "").startswith("https:")
    transport = httpx2.AsyncHTTPTransport(
        verify=_trust() if needs_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # that trusts nobody
        limits=httpx2.Limits(
            max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_IDLE, keepalive_expiry=KEEPALIVE
        ),
        proxy=proxy,
    )
    timeout = httpx2.Timeout(
        spec.timeout,
        connect=min(CONNECT_TIMEOUT, spec.start_timeout),
        read=max(IDLE_TIMEOUT, spec.timeout + IDLE_SPARE),
    )
    headers = httpx2.Headers({"user-agent": "mcp-multi-server"})
    headers.update(spec.headers)
    return httpx2.AsyncClient(auth=spec.auth, headers=headers, timeout=timeout, transport=transport)


@cache
def _trust() -> ssl.SSLContext:
    """The certificates that every server is checked against."""
    return httpx2.create_ssl_context()


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


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
