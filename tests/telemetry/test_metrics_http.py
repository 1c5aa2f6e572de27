"""The HTTP endpoint over real sockets on loopback."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from mcp_multi_server.core.events import DaemonWarning, Event, InternalError
from mcp_multi_server.telemetry import metrics_http
from mcp_multi_server.telemetry.http_messages import wants_openmetrics
from mcp_multi_server.telemetry.metrics import FleetSample, Metrics
from mcp_multi_server.telemetry.metrics_http import CannotListen, Endpoint, parse_listen, serve

pytestmark = pytest.mark.anyio

PROMETHEUS_ACCEPTS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
FLEET = FleetSample((), {"tool": 1}, 0, 0.0, True, 1_790_000_000.0, "2.0.0")
NOT_READY = "503 Service Unavailable"


class Running:
    """An endpoint that listens, and what it observed."""

    def __init__(self) -> None:
        self.address = ""
        self.is_ready = True
        self.events: list[Event] = []

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host = self.address.rpartition(":")[0].strip("[]")
        return await asyncio.open_connection(host, self.port)

    async def raw(self, request: bytes) -> tuple[str, dict[str, str], bytes]:
        """Status, headers and body of the answer to these bytes."""
        reader, writer = await self.connect()
        try:
            writer.write(request)
            head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
        finally:
            writer.close()
            await writer.wait_closed()
        status, *fields = head.decode().split("\r\n")
        return status.removeprefix("HTTP/1.1 "), dict(field.split(": ", 1) for field in fields), body

    async def get(self, path: str, *, method: str = "GET", host: str = "localhost", **headers: str) -> Any:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {text}" for name, text in headers.items())]
        return await self.raw("\r\n".join([*lines, "", ""]).encode())


@asynccontextmanager
async def running(
    listen: str = "127.0.0.1:0", *, metrics: Any = None, allowed_hosts: tuple[str, ...] = ()
) -> AsyncIterator[Running]:
    endpoint = Running()

    async def run(task_status: Any) -> None:
        await serve(
            listen,
            (metrics or Metrics(lambda: FLEET, lambda pid: None)).render,
            ready=lambda: endpoint.is_ready,
            allowed_hosts=allowed_hosts,
            tell=endpoint.events.append,
            task_status=task_status,
        )

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            endpoint.address = await tasks.start(run)
            yield endpoint
            tasks.cancel_scope.cancel()


class SlowPage:
    """A page that is not ready before it is told so; knows how many wait for it."""

    def __init__(self) -> None:
        self.rendering = 0
        self.started = anyio.Semaphore(0)
        self.go_on = anyio.Event()

    async def render(self, openmetrics: bool) -> tuple[bytes, str]:
        self.rendering += 1
        self.started.release()
        await self.go_on.wait()
        return b"slow\n", "text/plain"


@pytest.mark.parametrize(
    ("accept", "content_type", "parse"),
    [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8", parse_text),
        (PROMETHEUS_ACCEPTS, "application/openmetrics-text; version=1.0.0; charset=utf-8", parse_openmetrics),
    ],
)
async def test_metrics_come_in_the_format_that_is_asked_for(accept: str, content_type: str, parse: Any) -> None:
    async with running() as endpoint:
        status, headers, body = await endpoint.get("/metrics", Accept=accept)
    assert (status, headers["Content-Type"]) == ("200 OK", content_type)
    assert int(headers["Content-Length"]) == len(body)
    assert "mcp_multi_server_clients" in {family.name for family in parse(body.decode())}


async def test_answers_are_safe_for_browsers() -> None:
    async with running() as endpoint:
        _, headers, _ = await endpoint.get("/metrics", Origin="https://evil.example")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Connection"] == "close"
    assert not [name for name in headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
async def test_head_says_as_much_as_get_without_the_body(path: str) -> None:
    async with running() as endpoint:
        status, headers, body = await endpoint.get(path, method="HEAD")
    assert status == "200 OK"
    assert body == b""
    assert int(headers["Content-Length"]) > 0


async def test_healthy_is_not_ready() -> None:
    async with running() as endpoint:
        assert (await endpoint.get("/readyz"))[0] == "200 OK"
        endpoint.is_ready = False
        assert (await endpoint.get("/readyz"))[0] == NOT_READY
        assert (await endpoint.get("/healthz"))[0] == "200 OK"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9464", "200 OK"),
        ("LOCALHOST", "200 OK"),
        ("127.0.0.1:80", "200 OK"),
        ("[::1]:9464", "200 OK"),
        ("metrics.intern:9464", "200 OK"),
        ("evil.example", "421 Misdirected Request"),
        ("localhost.evil.example", "421 Misdirected Request"),
        ("127.0.0.1.evil.example:9464", "421 Misdirected Request"),
        ("10.0.0.1", "421 Misdirected Request"),
        ("", "421 Misdirected Request"),
    ],
)
async def test_only_known_hosts_are_served(host: str, status: str) -> None:
    async with running(allowed_hosts=("Metrics.intern",)) as endpoint:
        assert (await endpoint.get("/healthz", host=host))[0] == status


async def test_the_address_that_was_connected_to_is_a_known_host() -> None:
    async with running("127.0.0.2:0") as endpoint:
        assert (await endpoint.get("/healthz", host=endpoint.address))[0] == "200 OK"
        assert (await endpoint.get("/healthz", host="127.0.0.3"))[0] == "421 Misdirected Request"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "405 Method Not Allowed"),
        (b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n", "404 Not Found"),
        (b"GET /metrics/../metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "404 Not Found"),
        (b"GET /healthz?verbose=1 HTTP/1.1\r\nHost: localhost\r\n\r\n", "200 OK"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n", "400 Bad Request"),
        (b"GET /healthz HTTP/1.1\r\n\r\n", "400 Bad Request"),
        (b"GET /healthz\r\n\r\n", "400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", "400 Bad Request"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 17_000, "431 Request Header Fields Too Large"),
    ],
)
async def test_what_is_no_proper_request_gets_its_status(request_bytes: bytes, status: str) -> None:
    async with running() as endpoint:
        assert (await endpoint.raw(request_bytes))[0] == status
        assert (await endpoint.get("/healthz"))[0] == "200 OK"


async def test_405_says_what_is_allowed() -> None:
    async with running() as endpoint:
        _, headers, _ = await endpoint.get("/metrics", method="DELETE")
    assert headers["Allow"] == "GET, HEAD"


async def test_a_request_that_drips_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_http, "REQUEST_DEADLINE", 0.3)
    async with running() as endpoint:
        reader, writer = await endpoint.connect()
        status = asyncio.create_task(reader.readline())  # no more: who goes on writing is reset
        while not status.done():
            writer.write(b"G")
            await asyncio.wait([status], timeout=0.02)
        writer.close()
        assert status.result().startswith(b"HTTP/1.1 408 ")


async def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_http, "ANSWER_DEADLINE", 0.2)
    monkeypatch.setattr(metrics_http, "CONNECTIONS", 1)

    class Huge:
        async def render(self, openmetrics: bool) -> tuple[bytes, str]:
            return b"x" * 50_000_000, "text/plain"

    async with running(metrics=Huge()) as endpoint:
        _, deaf = await endpoint.connect()
        deaf.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport has it
        deaf.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await endpoint.get("/healthz"))[0] == "200 OK"
        deaf.transport.abort()


async def test_clients_that_vanish_leave_the_endpoint_alone() -> None:
    async with running() as endpoint:
        for part in (b"", b"GET /met", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            _, writer = await endpoint.connect()
            writer.write(part)
            writer.transport.abort()
        assert (await endpoint.get("/healthz"))[0] == "200 OK"
        assert endpoint.events == []


async def test_few_pages_are_rendered_at_a_time() -> None:
    page = SlowPage()
    async with running(metrics=page) as endpoint, anyio.create_task_group() as tasks:
        for _ in range(metrics_http.RENDERS + 3):
            tasks.start_soon(endpoint.get, "/metrics")
        for _ in range(metrics_http.RENDERS):
            await page.started.acquire()
        assert (await endpoint.get("/healthz"))[0] == "200 OK"
        assert page.rendering == metrics_http.RENDERS
        page.go_on.set()
    assert page.rendering == metrics_http.RENDERS + 3


async def test_connections_over_the_cap_wait_for_a_place() -> None:
    async with running() as endpoint:
        idle = [await endpoint.connect() for _ in range(metrics_http.CONNECTIONS)]
        waiting = asyncio.create_task(endpoint.get("/healthz"))
        assert await asyncio.wait([waiting], timeout=0.2) == (set(), {waiting})
        idle[0][1].close()
        assert (await waiting)[0] == "200 OK"
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()


async def test_a_page_that_fails_is_our_bug_and_tells_strangers_nothing() -> None:
    def sample() -> FleetSample:
        raise KeyError("hunter2")

    async with running(metrics=Metrics(sample, lambda pid: None)) as endpoint:
        status, _, body = await endpoint.get("/metrics")
        assert (status, b"hunter2" in body) == ("500 Internal Server Error", False)
        assert (await endpoint.get("/healthz"))[0] == "200 OK"
    (event,) = endpoint.events
    assert isinstance(event, InternalError)
    assert "sample" in event.trace
    assert "hunter2')" not in event.trace


async def test_an_accept_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_http, "ACCEPT_PAUSE", 0.01)
    monkeypatch.setattr(metrics_http, "CONNECTIONS", 1)
    endpoint, listener = Running(), socket.socket()
    with listener, anyio.fail_after(10):
        listener.setblocking(False)
        listener.bind(("127.0.0.1", 0))
        endpoint.address = f"127.0.0.1:{listener.getsockname()[1]}"
        async with anyio.create_task_group() as tasks:
            answers = Endpoint(
                Metrics(lambda: FLEET, lambda pid: None).render,
                ready=lambda: True,
                hosts={"localhost"},
                tell=endpoint.events.append,
            )
            tasks.start_soon(answers.serve, listener)
            await anyio.wait_all_tasks_blocked()
            listener.listen()
            assert (await endpoint.get("/healthz"))[0] == "200 OK"
            tasks.cancel_scope.cancel()


async def test_a_port_in_use_is_said_in_one_sentence() -> None:
    async with running() as first, anyio.create_task_group() as tasks:
        second = partial(
            serve,
            first.address,
            Metrics(lambda: FLEET, lambda pid: None).render,
            ready=lambda: True,
            allowed_hosts=(),
            tell=print,
        )
        with pytest.raises(CannotListen, match=rf"metrics\.listen: 127\.0\.0\.1:{first.port}: Address already in use"):
            await tasks.start(second)
        assert (await first.get("/healthz"))[0] == "200 OK"


async def test_a_port_is_free_again_at_once() -> None:
    async with running() as first:
        await first.get("/healthz")
    async with running(first.address) as second:
        assert (await second.get("/healthz"))[0] == "200 OK"


async def test_off_is_no_endpoint() -> None:
    async with running("off") as endpoint:
        assert endpoint.address == "off"


async def test_ipv6_is_served() -> None:
    async with running("[::1]:0") as endpoint:
        assert endpoint.address.startswith("[::1]:")
        assert (await endpoint.get("/healthz", host=endpoint.address))[0] == "200 OK"


async def test_an_address_of_the_network_is_warned_of() -> None:
    """192.0.2.0/24 is for documentation (RFC 5737): nobody has it, so nothing is opened here."""
    events: list[Event] = []
    with pytest.raises(CannotListen, match="Cannot assign requested address"):
        await serve(
            "192.0.2.1:9464",
            Metrics(lambda: FLEET, lambda pid: None).render,
            ready=lambda: True,
            allowed_hosts=(),
            tell=events.append,
        )
    (event,) = events
    assert isinstance(event, DaemonWarning)
    assert "192.0.2.1:9464 may be read from other machines" in event.message


async def test_loopback_is_not_warned_of() -> None:
    async with running() as endpoint:
        pass
    assert endpoint.events == []


@pytest.mark.parametrize(
    ("listen", "parsed"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("localhost:0", ("127.0.0.1", 0)),
        (":9464", ("127.0.0.1", 9464)),
        ("[::1]:9464", ("::1", 9464)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
    ],
)
def test_an_address_is_read(listen: str, parsed: tuple[str, int]) -> None:
    assert parse_listen(listen) == parsed


@pytest.mark.parametrize("listen", ["", "9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "a.b:1"])
def test_an_address_that_makes_no_sense_is_refused(listen: str) -> None:
    with pytest.raises(CannotListen, match=r"^metrics\.listen: "):
        parse_listen(listen)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        (PROMETHEUS_ACCEPTS, True),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;q=0", False),
        ("text/plain, application/openmetrics-text;q=0.5", False),
        ("application/openmetrics-text;q=nonsense", False),
        ("APPLICATION/OpenMetrics-Text; Q=0.9, text/plain;q=0.9", True),
    ],
)
def test_openmetrics_is_sent_to_those_who_like_it_best(accept: str, wanted: bool) -> None:
    assert wants_openmetrics(accept) is wanted
