"""The HTTP endpoint for Prometheus and for health checks: GET and HEAD of three paths, on loopback.

Browsers on this machine can reach it, so it checks `Host` (DNS rebinding) and sends no CORS header. Nothing that a
client does, or fails to do, keeps a connection for longer than the two deadlines below.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import traceback
from collections.abc import Awaitable, Callable, Collection
from typing import TypeAlias

import anyio
from anyio.abc import TaskStatus

from ..core.events import DaemonWarning, InternalError, Observer
from .http_messages import HttpRequest, Refused, Response, parse_request, wants_openmetrics

HEAD_CAP = 16 * 1024
REQUEST_DEADLINE = 5.0
ANSWER_DEADLINE = 10.0
"""Seconds for a whole request to come, and for the answer to be taken."""
RENDERS = 4
"""Pages that are made at a time; each holds a thread."""
CONNECTIONS = 32
BACKLOG = 64
"""Connections that are answered at a time, and that wait in the kernel meanwhile."""
READ_SIZE = 64 * 1024
ACCEPT_PAUSE = 0.5
"""Seconds until the next accept after one that failed, as it does while the process has no descriptor left."""
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})

Render: TypeAlias = Callable[[bool], Awaitable[tuple[bytes, str]]]
"""Gives the page of metrics and its content type; True: as OpenMetrics."""


class CannotListen(OSError):
    """The address is unusable or taken; the message says which and why. The daemon goes on without the endpoint."""


def parse_listen(listen: str) -> tuple[str, int]:
    """The IP address and port of `127.0.0.1:9464`, `[::1]:9464`, `localhost:0`; `:9464` is loopback too."""
    host, colon, port = listen.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise CannotListen(f"metrics.listen: {listen!r} is no ADDRESS:PORT")
    if host in ("", "localhost"):
        return "127.0.0.1", int(port)
    try:
        return str(ipaddress.ip_address(host)), int(port)
    except ValueError:
        raise CannotListen(f"metrics.listen: {host!r} is no IP address") from None


async def serve(
    listen: str,
    render: Render,
    *,
    ready: Callable[[], bool],
    allowed_hosts: Collection[str],
    tell: Observer,
    task_status: TaskStatus[str] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; reports the bound address through `task_status`, or "off", and returns then.

    Raises CannotListen before that where the address cannot be had: it is the caller's choice to go on without.
    """
    if listen == "off":
        task_status.started("off")
        return
    host, port = parse_listen(listen)
    if not ipaddress.ip_address(host).is_loopback:
        message = f"{_authority(host, port)} may be read from other machines, and asks for no password"
        tell(DaemonWarning("metrics", message))
    with _listener(host, port) as listener:
        task_status.started(_authority(*listener.getsockname()[:2]))
        hosts = LOOPBACK_NAMES | {name.strip("[]").lower() for name in allowed_hosts}
        await Endpoint(render, ready=ready, hosts=hosts, tell=tell).serve(listener)


class Endpoint:
    """Answers the connections of one listener, so many at a time; further ones wait in the kernel.

    `serve` makes it and runs it until it is cancelled itself.
    """

    def __init__(self, render: Render, *, ready: Callable[[], bool], hosts: Collection[str], tell: Observer) -> None:
        self._render = render
        self._ready = ready
        self._hosts = hosts
        self._tell = tell
        self._connections = anyio.Semaphore(CONNECTIONS)
        self._renders = anyio.Semaphore(RENDERS)

    async def serve(self, listener: socket.socket) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        async with anyio.create_task_group() as tasks:
            while True:
                # Before the accept, so that who finds no room waits in the kernel and holds no descriptor.
                await self._connections.acquire()
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError:
                    self._connections.release()
                    await anyio.sleep(ACCEPT_PAUSE)
                else:
                    tasks.start_soon(self._connection, connection, name="metrics connection")

    async def _connection(self, connection: socket.socket) -> None:
        try:
            with connection:
                await self._exchange(connection)
        except OSError:
            pass  # the client went away: nobody is left to be told
        except Exception as bug:
            self._tell(InternalError("metrics endpoint", _trace(bug)))
        finally:
            self._connections.release()

    async def _exchange(self, connection: socket.socket) -> None:
        is_head = False
        try:
            request = parse_request(await _head(connection))
            # Known before the answer: a refusal of HEAD has no body either (RFC 9110, 9.3.2).
            is_head = request.method == "HEAD"
            with anyio.move_on_after(ANSWER_DEADLINE):
                await _send(connection, await self._answer(request, connection.getsockname()[0]), is_head)
        except Refused as refused:
            with anyio.move_on_after(ANSWER_DEADLINE):
                await _send(connection, refused.response, is_head)

    async def _answer(self, request: HttpRequest, local: str) -> Response:
        # An IP address in `Host` cannot be rebound, so the one that was connected to is always right.
        if request.host not in self._hosts and request.host != local:
            raise Refused("421 Misdirected Request", b"this host is not served here\n")
        if request.method not in ("GET", "HEAD"):
            raise Refused("405 Method Not Allowed", b"only GET and HEAD\n", "Allow: GET, HEAD")
        match request.path:
            case "/metrics":
                return await self._page(request)
            case "/healthz":
                return Response("200 OK", b"ok\n")
            case "/readyz" if self._ready():
                return Response("200 OK", b"ready\n")
            case "/readyz":
                raise Refused("503 Service Unavailable", b"not ready\n")
            case _:
                raise Refused("404 Not Found", b"see /metrics, /healthz, /readyz\n")

    async def _page(self, request: HttpRequest) -> Response:
        try:
            async with self._renders:
                body, content_type = await self._render(wants_openmetrics(request.accept))
        except Exception as bug:
            self._tell(InternalError("metrics page", _trace(bug)))
            raise Refused("500 Internal Server Error", b"the log has the reason\n") from bug
        return Response("200 OK", body, content_type)


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as failure:
        # The failure's own text repeats the address.
        reason = os.strerror(failure.errno) if failure.errno else "cannot be bound"
        raise CannotListen(f"metrics.listen: {_authority(host, port)}: {reason}") from failure
    listener.setblocking(False)  # sock_accept() demands it
    return listener


async def _head(connection: socket.socket) -> bytes:
    """The bytes up to the empty line; a body is never read."""
    loop, head = asyncio.get_running_loop(), b""
    with anyio.move_on_after(REQUEST_DEADLINE):
        while (end := head.find(b"\r\n\r\n")) < 0 and len(head) <= HEAD_CAP:
            data = await loop.sock_recv(connection, READ_SIZE)
            if not data:
                raise ConnectionResetError  # an OSError, at which `_connection` ends quietly
            head += data
        if not 0 <= end <= HEAD_CAP:
            raise Refused("431 Request Header Fields Too Large", b"")
        return head[:end]
    raise Refused("408 Request Timeout", b"")


async def _send(connection: socket.socket, response: Response, is_head: bool) -> None:
    lines = [
        f"HTTP/1.1 {response.status}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        "X-Content-Type-Options: nosniff",  # a label may hold HTML that a server chose
        "Cache-Control: no-store",
        "Connection: close",  # a connection that is kept would hold one of few places
        *response.headers,
    ]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    await asyncio.get_running_loop().sock_sendall(connection, head if is_head else head + response.body)


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _trace(bug: Exception) -> str:
    """Where it happened, without the values that an exception's text may hold."""
    return "".join(traceback.format_tb(bug.__traceback__)) + type(bug).__name__
