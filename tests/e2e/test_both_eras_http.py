"""As `test_both_eras`, for servers that are reached by a URL: streamable HTTP in each era, and SSE."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from tests.polling import eventually

from .entries import MARK, RUN, TESTS, Entry, fixture
from .harness import UP, Daemon
from .sdk import Mode, connected, direct_client, sdk_client
from .views import Namespace, Questions, view

QUESTIONS = Questions(
    calls=(
        ("echo", {"text": "é", "n": [1, 2.5, None]}),
        ("fail", {"why": "it does"}),
        ("big", {"bytes": 400_000}),
        ("region", {"region": "north"}),
        ("slow", {"steps": 3}),
    )
)
SERVERS: dict[str, tuple[tuple[str, ...], Entry, str]] = {
    "http-both": (("--era", "both"), {}, "2026-07-28"),
    "http-modern": (("--era", "modern", "--json"), {"type": "http"}, "2026-07-28"),
    "http-legacy": (("--era", "legacy"), {}, "2025-11-25"),
    "sse": (("--transport", "sse"), {}, "2026-07-28"),
}
"""How each is started, what its entry says besides the URL, and the revision that is spoken with it.

Nothing in the entry of `sse` says what it is: that has to be found out (transports, "Backwards Compatibility").
"""
DAMAGED = "misdeclared"
"""A tool with an impossible `x-mcp-header`, which clients of streamable HTTP must leave out (server/tools)."""


class HttpServer:
    """`tests.fixtures.http_server` as a process."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "tests.fixtures.http_server", *options]
        self.process = subprocess.Popen(
            command,
            cwd=TESTS.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={MARK: RUN, "PATH": "/usr/bin:/bin"},
        )

    @property
    def url(self) -> str:
        """Known as soon as it listens; to be asked once."""
        assert self.process.stdout is not None
        port = self.process.stdout.readline().split()[1]
        return f"http://127.0.0.1:{port}/mcp"

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


class Restarted:
    """An HTTP server that stops, and another in its place; a context manager.

    The second is made with the first and listens when it is told to, as its imports take longer than all else here.
    """

    def __init__(self, era: str) -> None:
        self.before = HttpServer("--era", era)
        self.url = self.before.url
        port = self.url.split(":")[2].split("/")[0]
        self.after = HttpServer("--era", era, "--port", port, "--on-demand")

    def __enter__(self) -> Restarted:
        return self

    def __exit__(self, *_: object) -> None:
        self.before.stop()
        self.after.stop()

    def stop(self) -> None:
        self.before.stop()

    def start(self) -> None:
        assert self.after.process.stdin is not None
        self.after.process.stdin.write("\n")
        self.after.process.stdin.flush()
        assert self.after.url == self.url


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    running = {name: HttpServer(*options) for name, (options, _, _) in SERVERS.items()}
    try:
        yield {name: server.url for name, server in running.items()}
    finally:
        for server in running.values():
            server.stop()


@pytest.fixture(scope="module")
def daemon(urls: dict[str, str]) -> Iterator[Daemon]:
    entries = {name: {"url": urls[name]} | more for name, (_, more, _) in SERVERS.items()}
    with Daemon(entries, settings={"naming": "qualified"}) as running:
        yield running.await_up(within=40)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize("name", SERVERS)
def test_a_server_by_url_looks_the_same_through_the_daemon(
    name: str, mode: Mode, daemon: Daemon, urls: dict[str, str]
) -> None:
    begin: Mode = "legacy" if SERVERS[name][2] < "2026" else "auto"
    kind = {"type": "sse"} if name == "sse" else {}

    async def main() -> tuple[dict[str, Any], dict[str, Any]]:
        async with connected(direct_client({"url": urls[name]} | kind, begin)) as client:
            own = await view(client, QUESTIONS, Namespace())
        async with connected(sdk_client(daemon.socket, mode)) as client:
            return own, await view(client, QUESTIONS, Namespace(name))

    own, through = anyio.run(main)
    assert list(through) == list(own)
    own["tools"] = [tool for tool in own["tools"] if tool["name"] != DAMAGED]
    through["tools"] = [tool for tool in through["tools"] if tool["name"] != DAMAGED]
    for question, answer in own.items():
        assert through[question] == answer, question


@pytest.mark.parametrize("name", SERVERS)
def test_the_revision_and_transport_of_a_url_are_found_out(name: str, daemon: Daemon) -> None:
    row = daemon.server(name)
    assert row["protocolVersion"] == SERVERS[name][2]
    assert row["transport"] == ("sse" if name == "sse" else "http")
    assert row["pid"] is None


@pytest.mark.parametrize("name", ["http-both", "http-modern", "http-legacy"])
def test_a_result_over_a_mebibyte_arrives_over_http(name: str, daemon: Daemon) -> None:
    """The SDK's own client refuses events of that size unless it is told otherwise."""
    with daemon.legacy() as wire:
        assert len(wire.call(f"{name}__big", {"bytes": 3_000_000})["content"][0]["text"]) == 3_000_000


def test_progress_over_http_reaches_the_client_before_the_result(daemon: Daemon) -> None:
    with daemon.legacy() as wire:
        for name in ("http-both", "http-legacy", "sse"):
            params = {"name": f"{name}__slow", "arguments": {"steps": 3}, "_meta": {"progressToken": name}}
            assert wire.result("tools/call", params)["content"][0]["text"] == "done"
            seen = wire.drain(quiet=0.05)
            assert [one["params"]["progress"] for one in seen] == [0, 1, 2], name
            assert {one["params"]["progressToken"] for one in seen} == {name}


def imported(daemon: Daemon) -> set[str]:
    """The packages that a daemon's process has imported, as `python -X importtime` tells."""
    lines = [line for line in daemon.log.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_a_daemon_with_servers_by_url_never_imports_the_sdk(urls: dict[str, str]) -> None:
    entries = {name: {"url": urls[name]} | more for name, (_, more, _) in SERVERS.items()}
    with Daemon(entries, settings={"naming": "qualified"}, environment={"PYTHONPROFILEIMPORTTIME": "1"}) as daemon:
        daemon.await_up(within=40)
        with daemon.legacy() as wire:
            for name in SERVERS:
                assert wire.call(f"{name}__echo", {"n": 1})["structuredContent"] == {"n": 1}
        packages = imported(daemon)
    assert {"mcp_multi_server", "httpx2"} <= packages
    assert not packages & {"mcp", "mcp_types"}


def test_a_daemon_without_servers_by_url_imports_no_http_client() -> None:
    with Daemon({"one": fixture()}, environment={"PYTHONPROFILEIMPORTTIME": "1"}) as daemon:
        daemon.await_up()
        packages = imported(daemon)
    assert "mcp_multi_server" in packages
    assert not packages & {"mcp", "mcp_types", "httpx2", "httpcore2"}


def test_a_server_that_goes_and_comes_back_is_found_again() -> None:
    with Restarted("both") as server:
        entry: Entry = {"url": server.url, "timeout": 3, "hold": 0.3}
        with Daemon({"one": entry, "silent": {"url": "http://127.0.0.1:9/mcp"}}) as daemon:
            with daemon.await_up("one").legacy() as wire:
                assert wire.call("echo", {"n": 1})
                server.stop()
                error = wire.error("tools/call", {"name": "one__echo", "arguments": {}})
                assert error["data"]["server"] == "one"
                assert "one" in error["message"]
                server.start()
                back = {"name": "one__echo", "arguments": {}}
                eventually(lambda: "result" in wire.request("tools/call", back), within=30, what="the server back")
            row = daemon.server("silent")
            assert row["reason"].partition(":")[0] == "unreachable"


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_call_waits_for_a_server_elsewhere_that_is_being_restarted(era: str) -> None:
    """It takes no connection meanwhile, and then no session of before; so nothing can have happened twice."""
    with Restarted(era) as server:
        entry: Entry = {"url": server.url, "type": "http", "hold": 20}
        with Daemon({"one": entry}) as daemon, daemon.legacy() as wire:
            daemon.await_up("one")
            server.stop()
            id = wire.post("tools/call", {"name": "echo", "arguments": {"n": 1}})
            eventually(lambda: daemon.server("one")["state"] not in UP, what="a server that is away")
            assert not [one for one in wire.drain(quiet=0.1) if "id" in one], "no answer yet"
            server.start()
            assert wire.answer(id)["result"]["structuredContent"] == {"n": 1}


def test_an_address_that_refuses_us_is_parked_with_the_reason() -> None:
    server = HttpServer("--header", "authorization=Bearer right")
    try:
        url = server.url
        good: Entry = {"url": url, "headers": {"Authorization": "Bearer ${env:MMS_TOKEN}"}}
        bad: Entry = {"url": url, "headers": {"Authorization": "Bearer wr0ng"}}
        nowhere: Entry = {"url": url.replace("/mcp", "/none"), "headers": good["headers"]}
        entries = {"good": good, "bad": bad, "nowhere": nowhere}
        with Daemon(entries, environment={"MMS_TOKEN": "right"}) as daemon:
            daemon.await_states(good="up", bad="parked", nowhere="parked")
            assert daemon.server("bad")["reason"].partition(":")[0] == "unauthorized"
            assert "wr0ng" not in daemon.log
            assert "Bearer" not in daemon.log
    finally:
        server.stop()
